"""Images, from four sources, checked and kept as bytes: digits | TFDS by name | .npz | folder.

`load` gives an `Images`: arrays `(N, H, W, C)`, which a model's `fit` takes as they are.
"""

from vae_tf import lazy

BINARIZE = ("none", "dynamic", "fixed")  # what `--binarize` takes
FIXED_SEED = 0  # of `--binarize fixed`: one draw for all runs
HOLD_OUT = 0.1  # of a user's own images, where they come without a test set

_MODULE_OF = {
    "Images": "images",
    "binarize": "images",
    "hold_out": "images",
    "check_images": "checks",
    "load": "sources",
}
__all__ = ["BINARIZE", "FIXED_SEED", "HOLD_OUT", *_MODULE_OF]
__getattr__, __dir__ = lazy.attach(__name__, _MODULE_OF)
