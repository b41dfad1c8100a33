"""The β-VAE of Higgins et al. (2017), and its capacity form of Burgess et al. (2018)."""

import keras
from keras import ops

from vae_tf.errors import check_non_negative, check_positive_int, invalid
from vae_tf.models.vae import VAE


@keras.saving.register_keras_serializable(package="vae_tf")
class BetaVAE(VAE):
    """A VAE whose KL counts β times, or is held at a capacity C that grows in training:

        E_q[−log p(x|z)] + β·KL(q(z|x) ‖ p(z)),  or  E_q[−log p(x|z)] + γ·|KL(q(z|x) ‖ p(z)) − C(t)|.

    With β above 1 fewer dimensions carry something, and each tends to carry one factor of the images.
    The `loss` that is shown is −ELBO, as a VAE's, so that the two compare.

    Args:
        args, kwargs: as for `VAE`.
        beta: β, by default 4. With a capacity there is none.
        capacity: C in nats at its end, at which the second form holds the KL; None: the first form.
        gamma: γ, how strongly.
        capacity_steps: the number of steps in which C(t) rises from 0 to `capacity`, in a line.

    Raises:
        ValueError, TypeError: both `beta` and `capacity` are given, or one makes no sense.

    Example:
        >>> vae = BetaVAE(latent_dim=5, hidden_units=(32,), beta=4.0, seed=0)
        >>> vae = BetaVAE(latent_dim=5, hidden_units=(32,), capacity=25.0, capacity_steps=10_000)

    Source: Higgins et al. (2017), "β-VAE", equation 4; Burgess et al. (2018), "Understanding
    disentangling in β-VAE", equation 8.
    """

    def __init__(
        self, *args, beta=None, capacity=None, gamma=1000.0, capacity_steps=100_000, **kwargs
    ):
        super().__init__(*args, **kwargs)
        if beta is not None and capacity is not None:
            received = f"beta={beta}, capacity={capacity}"
            raise invalid("capacity", "either beta or capacity", received)
        beta = 4.0 if beta is None else check_non_negative("beta", beta)
        self.given_beta = None if capacity is not None else beta
        self.capacity = None if capacity is None else check_non_negative("capacity", capacity)
        self.gamma = check_non_negative("gamma", gamma)
        self.capacity_steps = check_positive_int("capacity_steps", capacity_steps)
        self.beta_end.assign(beta if capacity is None else 1.0)

    def objective(self, means):
        """Reconstruction + β·KL (with `VAE`'s free bits), or reconstruction + γ·|KL − C(t)|."""
        if self.capacity is None:
            return super().objective(means)
        distance = ops.abs(means["kl_loss"] - self.capacity_now)
        return means["reconstruction_loss"] + self.gamma * distance

    @property
    def capacity_now(self):
        """C(t) in the next step, in nats."""
        return self.capacity * ops.minimum(1.0, self.step / self.capacity_steps)

    def settings(self):
        return super().settings() if self.capacity is None else {"capacity": self.capacity_now}

    def get_config(self):
        return {
            **super().get_config(),
            "beta": self.given_beta,
            "capacity": self.capacity,
            "gamma": self.gamma,
            "capacity_steps": self.capacity_steps,
        }
