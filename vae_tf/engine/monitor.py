"""What a code carries and where it lies, and how many codes are used; watched in every `fit`."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from vae_tf.engine.callbacks import mean_of_known
from vae_tf.errors import CollapseWarning, PriorMismatchWarning, check_positive_int

ACTIVE = 0.01  # a unit is active where Var_x E_q[z] is above this (Burda et al. 2016, section 5.2)
FEW = 0.1  # of the codes, below which so small a perplexity is told
FAR = 1.0  # nats between the codes of all images and the prior, from which draws go astray


def perplexity(shares):
    """exp(−Σ_k p_k log p_k): how many codes are used, as many alike as would be so mixed."""
    return float(np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-30)))))


class Watch(keras.callbacks.Callback):
    """Sums some of the model's terms over an epoch's images; a base of what is told of an epoch.

    A subclass gives `names`, the terms, and `measured(epoch, means)`, which adds to the epoch's logs.
    """

    names = ()

    def __init__(self):
        super().__init__()
        self.sums, self.images, self.said = {}, 0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.sums, self.images = {}, 0

    def on_steps_end(self, steps):
        images = np.float64(steps.numbers["images"])
        self.images += float(images.sum())
        for name in self.names if set(self.names) <= set(steps.terms) else ():
            added = np.tensordot(images, steps.terms[name], axes=1)
            self.sums[name] = (np.array(self.sums.get(name, 0)) + added).tolist()

    def on_epoch_end(self, epoch, logs=None):
        if self.images > 0 and self.sums:
            means = {name: np.ravel(self.sums[name]) / self.images for name in self.names}
            found = self.measured(epoch, means)
            if logs is not None:
                logs |= found

    def warn(self, kind, message):
        """Say it, once in a training."""
        if kind.__name__ not in self.said:
            self.said.append(kind.__name__)
            warnings.warn(message, kind, stacklevel=2)


class CodeMonitor(Watch):
    """Record how many codes of a codebook are used, an epoch at a time, and warn once where few are.

    Adds to the epoch's logs, for a model with the term `code_usage`, each code's share of an image's
    vectors: `perplexity`, exp(−Σ_k p_k log p_k) of the mean shares p over all images. It is K where all
    codes are used alike, and 1 where there is one. Every `fit` has such a monitor.

    Args:
        patience: for how many steps nothing is said.

    Source: van den Oord et al. (2017), "Neural Discrete Representation Learning".
    """

    names = ("code_usage",)

    def __init__(self, patience=1000):
        super().__init__()
        self.patience = check_positive_int("patience", patience, minimum=0)

    def measured(self, epoch, means):
        shares = means["code_usage"]
        of_all = perplexity(shares)
        if of_all < FEW * len(shares) and self.model.steps_made >= self.patience:
            self.warn(
                CollapseWarning,
                f"Few of the {len(shares)} codes are used: their perplexity is {of_all:.1f}. More steps, "
                "a codebook that follows by moving averages (codebook='ema'), fewer codes "
                "(num_embeddings) or a smaller commitment_cost usually help (vae-tf train --steps, "
                "--codebook, --num-embeddings, --commitment-cost).",
            )
        return {"perplexity": of_all}


class LatentMonitor(Watch):
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
        self.rows, self.norms, self.settings, self.gap = [], [], {}, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.norms, self.settings = [], {}

    def on_steps_end(self, steps):
        super().on_steps_end(steps)
        numbers = {name: column for name, column in steps.numbers.items() if name != "images"}
        self.norms += numbers.pop("gradient_norm").tolist()
        self.settings = {name: float(values[-1]) for name, values in numbers.items()}

    def on_epoch_end(self, epoch, logs=None):
        if self.images > 0 and logs is not None:
            logs |= self.settings | mean_of_known([{"gradient_norm": norm} for norm in self.norms])
        super().on_epoch_end(epoch, logs)

    def measured(self, epoch, means):
        """What the epoch's means say of the code; a row of it is recorded."""
        kl, mean, squared, variance = (means[name] for name in self.names)
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
            self.warn(
                CollapseWarning,
                f"{dead} of {of} latent dimensions are inactive (Var_x E_q[z] at most {ACTIVE}): the "
                "decoder does without them. If that is not wanted, a longer KL warm-up, free bits or a "
                "smaller weight of the KL usually help (KLWarmup(steps, beta), FreeBits(nats); "
                "vae-tf train --kl-warmup, --free-bits, --beta).",
            )

    def _warn_of_distance(self):
        if self.gap > FAR:
            std = self.rows[-1]["aggregate_std"]
            self.warn(
                PriorMismatchWarning,
                f"The codes of the images have left the prior N(0, I), by {self.gap:.1f} nats: their "
                f"standard deviations are {min(std):.2g} to {max(std):.2g}, where the prior's is 1. Images that "
                "are generated from the prior will look worse than reconstructions. More images or "
                "steps, more latent dimensions, or a larger weight of the KL usually help "
                "(KLWarmup(steps, beta); vae-tf train --steps, --latent-dim, --beta).",
            )
