"""One phase of a training: a model that is fitted, the images, its callbacks, and what comes of it."""

import contextlib
import time

import keras

from vae_tf import files
from vae_tf.engine.callbacks import FreeBits, Interruption, KLWarmup, StepHistory, StopAt
from vae_tf.engine.checkpoints import BestModel, Checkpoints
from vae_tf.engine.monitor import LatentMonitor
from vae_tf.errors import invalid
from vae_tf.training import runs
from vae_tf.training.progress import Progress, in_order

EVALUATIONS = 20  # while a phase trains, at most


def callbacks(steps, warmup_steps=0, beta=1.0, free_bits=0.0, model=None):
    """The callbacks of a recipe: the monitor and the history, which takes what the monitor adds.

    Args:
        steps: when to stop.
        warmup_steps, beta: of `KLWarmup`.
        free_bits: of `FreeBits`.
        model: a schedule is left out where the model has no such setting; None stands for a VAE.
    """
    schedules = {"beta": KLWarmup(warmup_steps, beta), "free_bits": FreeBits(free_bits)}
    fitting = [hook for name, hook in schedules.items() if model is None or hasattr(model, name)]
    return [LatentMonitor(), StepHistory(), *fitting, StopAt(steps)]


class Phase:
    """A model in training, of which the history, the checkpoints and the best state are in `plan.path`.

    Args:
        plan: a `Plan`; of the second phase `Plan.of_prior`.
        model: compiled and built.
        name: what the progress line and the status call the second phase; nothing of the first.

    Raises:
        ValueError: the images have no labels, and the model is conditioned on them.
    """

    def __init__(self, plan, model, name=""):
        self.plan, self.model, self.name = plan, model, name
        self.monitor, self.history, *_ = self.hooks = _hooks(plan, model)
        self.train_pair, self.held_pair = (
            self._pair(plan.watched, "train"),
            self._pair(plan.watched, "test"),
        )

    def fit(self, progress=True):
        """Train, or go on from the last checkpoint; the status in which that ends.

        Raises:
            KeyboardInterrupt: the training of the model itself had not begun.
        """
        start = time.perf_counter()
        self.plan.path.mkdir(exist_ok=True)
        files.remove_scratch(self.plan.path)
        try:
            self._fit(progress)
        except KeyboardInterrupt:
            if not (self.history.rows or self.name):
                raise
            self.history.on_train_end()
            return self._interrupted()
        finally:
            self.seconds = round(time.perf_counter() - start, 1)
        return "completed"

    def kept(self, status):
        """Write the history; of a training that was completed take the best state, if asked to, and test it.

        Returns:
            What `config.json` says of the phase.
        """
        found = {"seconds": self.seconds, "trained_steps": self.model.steps_made}
        runs.save_history(self.plan.path, self.history.rows, self.monitor.rows)
        if status != "completed":
            return found
        if self.plan.config.early_stopping:
            self.model.load_weights(self.plan.path / "best.keras")  # and the optimizer's
            found |= {"best_step": self.model.steps_made}
        return found | {"test": self.test()}

    def test(self):
        """The terms on the test images."""
        options = {"batch_size": self.plan.batch_size, "verbose": 0, "return_dict": True}
        found = self.model.evaluate(*self._pair(self.plan.images, "test"), **options)
        return in_order(self.model, found)

    def _fit(self, progress):
        plan, hooks = self.plan, self.hooks
        interruption = Interruption(begun=plan.resume, save=hooks[-1].save)
        every = 1 if plan.config.early_stopping else max(1, -(-plan.epochs // EVALUATIONS))
        with contextlib.ExitStack() as stack:
            stack.enter_context(interruption.installed())
            if progress:
                hooks = [*hooks, bar := Progress(plan.steps, plan.batch_size, name=self.name)]
                stack.callback(bar.stop)
            self.model.fit(
                *self.train_pair,
                batch_size=plan.batch_size,
                epochs=plan.epochs,
                verbose=0,
                validation_data=self.held_pair[0] if self.held_pair[1] is None else self.held_pair,
                validation_freq=every,
                callbacks=[*hooks, interruption],
            )

    def _interrupted(self):
        """The status of a training that Ctrl-C ended."""
        made, saved_step = self.model.steps_made, self.hooks[-1].saved_step
        status = f"interrupted after {made} of {self.plan.steps} steps"
        status += f" of the {self.name}" if self.name else ""
        if saved_step == made:
            return status
        return f"{status}, at once: its last checkpoint is of step {saved_step}"

    def _pair(self, images, part):
        """`(x, y)` of a part of the images; y is None for a model without a condition."""
        x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
        if self.model.condition is None:
            return x, None
        if y is None:
            expected = f"images with labels, which {type(self.model).__name__} is conditioned on"
            raise invalid("data", expected, f"no labels of the {part} images of {images.name!r}")
        return x, y


def _hooks(plan, model):
    """The callbacks of a plan, the two that record first."""
    config = plan.config
    hooks = callbacks(plan.steps, plan.warmup_steps, config.final_beta, config.free_bits, model)
    hooks.append(BestModel(plan.path / "best.keras"))
    if config.early_stopping:
        hooks.append(keras.callbacks.EarlyStopping("val_loss", patience=config.early_stopping))
    if config.tensorboard:
        hooks.append(keras.callbacks.TensorBoard(plan.path / "tensorboard", write_graph=False))
    return [*hooks, Checkpoints(plan.path / "checkpoints", config.checkpoint_every)]
