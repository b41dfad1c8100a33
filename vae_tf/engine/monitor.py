"""What a code carries and where it lies, watched in every `fit`."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from vae_tf.engine.callbacks import mean_of_known
from vae_tf.errors import CollapseWarning, PriorMismatchWarning, check_positive_int

ACTIVE = 0.01  # a unit is active where Var_x E_q[z] is above this (Burda et al. 2016, section 5.2)
FAR = 1.0  # nats between the codes of all images and the prior, from which draws go astray


class LatentMonitor(keras.callbacks.Callback):
    """Record what each latent dimension carries, an epoch at a time, and warn once of dead ones and
    once of codes that have left the prior.

    Adds to the epoch's logs the model's settings (a VAE's `beta`), `gradient_norm` (mean over the steps
    where it was measured, before any clipping) and, for a model with the terms `kl_per_dimension`,
    `z_mean`, `z_mean_squared` and `z_variance`:

    - `active_units`, the number of dimensions with Var_x E_q[z] > 0.01;
    - `aggregate_kl`, Σ_j KL(N(m_j, s_j²) ‖ N(0, 1)) in nats, with m_j and s_j the mean and the standard
      deviation of z_j over all images and draws: how far the aggregate posterior is from the prior.

    `rows` is a list of dictionaries: `epoch`, `active_units`, and by dimension `kl_per_dimension` in
    nats and `aggregate_std`, s_j. Every `fit` has a monitor of its own; give it one to read `rows`.

    Args:
        patience: for how many steps after the warm-up nothing is said; of a shorter training's codes,
            for how many steps in all.

    Source: Burda et al. (2016), "Importance Weighted Autoencoders", section 5.2; Hoffman & Johnson
    (2016), "ELBO surgery", for the aggregate posterior.
    """

    names = ("kl_per_dimension", "z_mean", "z_mean_squared", "z_variance")

    def __init__(self, patience=1000):
        super().__init__()
        self.patience = check_positive_int("patience", patience, minimum=0)
        self.rows, self.sums, self.norms, self.images, self.said = [], {}, [], 0, []
        self.settings, self.gap = {}, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.sums, self.norms, self.images, self.settings = {}, [], 0, {}

    def on_steps_end(self, steps):
        numbers = dict(steps.numbers)
        self.norms += numbers.pop("gradient_norm").tolist()
        images = np.float64(numbers.pop("images"))
        self.images += float(images.sum())
        self.settings = {name: float(values[-1]) for name, values in numbers.items()}
        for name in self.names if set(self.names) <= set(steps.terms) else ():
            added = np.tensordot(images, steps.terms[name], axes=1)
            self.sums[name] = (np.array(self.sums.get(name, 0)) + added).tolist()

    def on_epoch_end(self, epoch, logs=None):
        if not self.images > 0:
            return
        extra = self.settings | mean_of_known([{"gradient_norm": norm} for norm in self.norms])
        if self.sums:
            extra |= self._measure(epoch)
        if logs is not None:
            logs |= extra

    def _measure(self, epoch):
        """What the epoch's sums say of the code; a row of it is recorded."""
        kl, mean, squared, variance = (
            np.ravel(self.sums[name]) / self.images for name in self.names
        )
        spread = squared - mean**2
        of_all = np.maximum(spread + variance, 1e-12)
        active = int(np.sum(spread > ACTIVE))
        gap = float(0.5 * np.sum(of_all + mean**2 - 1 - np.log(of_all)))
        by_dimension = {"kl_per_dimension": kl, "aggregate_std": np.sqrt(of_all)}
        by_dimension = {name: values.tolist() for name, values in by_dimension.items()}
        self.rows.append({"epoch": epoch + 1, "active_units": active, **by_dimension})
        self.gap = gap
        if np.isfinite(mean).all() and self.model.steps_made >= self._warm + self.patience:
            self._warn_of_dead(kl.size - active, kl.size)
            self._warn_of_distance()
        return {"active_units": active, "aggregate_kl": gap}

    def on_train_end(self, logs=None):
        """A short training leaves no time after the warm-up: what it ends with is looked at."""
        if self.rows and self.model.steps_made >= max(self._warm, self.patience):
            self._warn_of_distance()

    @property
    def _warm(self):
        """How many steps the warm-up takes."""
        steps = getattr(self.model, "kl_warmup_steps", 0)
        return float(tf.convert_to_tensor(getattr(steps, "value", steps)))

    def _warn_of_dead(self, dead, of):
        if dead:
            self._warn(
                CollapseWarning,
                f"{dead} of {of} latent dimensions are inactive (Var_x E_q[z] at most {ACTIVE}): the "
                "decoder does without them. If that is not wanted, a longer KL warm-up, free bits or a "
                "smaller weight of the KL usually help (KLWarmup(steps, beta), FreeBits(nats); "
                "vae-tf train --kl-warmup, --free-bits, --beta).",
            )

    def _warn_of_distance(self):
        if self.gap > FAR:
            std = self.rows[-1]["aggregate_std"]
            self._warn(
                PriorMismatchWarning,
                f"The codes of the images have left the prior N(0, I), by {self.gap:.1f} nats: their "
                f"standard deviations are {min(std):.2g} to {max(std):.2g}, where the prior's is 1. Images that "
                "are generated from the prior will look worse than reconstructions. More images or "
                "steps, more latent dimensions, or a larger weight of the KL usually help "
                "(KLWarmup(steps, beta); vae-tf train --steps, --latent-dim, --beta).",
            )

    def _warn(self, kind, message):
        if kind.__name__ not in self.said:
            self.said.append(kind.__name__)
            warnings.warn(message, kind, stacklevel=2)
