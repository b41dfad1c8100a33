"""Training from a configuration to a run directory.

`config.py`: what can be asked for. `plan.py`: the numbers that follow from it and from the data.
`fit.py`: training itself, `phase.py`: of one model. `runs.py`: the run directory.
"""

from vae_tf import lazy

_MODULE_OF = {
    **dict.fromkeys(("RECIPES", "Recipe", "TrainConfig"), "config"),
    **dict.fromkeys(("Plan", "prepare", "prepare_resume"), "plan"),
    "callbacks": "phase",
    "train": "fit",
    **dict.fromkeys(("load_history", "load_run"), "runs"),
}
__all__ = [*_MODULE_OF]
__getattr__, __dir__ = lazy.attach(__name__, _MODULE_OF)
