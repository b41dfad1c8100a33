"""The β-VAE of Higgins et al. (2017), and its capacity form of Burgess et al. (2018)."""

import keras
from keras import ops

from vae_tf.errors import check_non_negative, check_positive_int, invalid
from vae_tf.models.vae import VAE

GAMMA, STEPS = 1000.0, 100_000  # as Burgess et al. had them


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
        capacity_steps: the number of steps in which C(t) rises from 0 to `capacity`, in a line. It is
            the warm-up of this form, which has no β for `KLWarmup` to raise.

    With `FreeBits` the KL of either form is Σ_j max(KL_j, free bits).

    Raises:
        ValueError, TypeError: both `beta` and `capacity` are given, or `gamma` or `capacity_steps`
            without a capacity, or one makes no sense.

    Example:
        >>> vae = BetaVAE(latent_dim=5, hidden_units=(32,), beta=4.0, seed=0)
        >>> vae = BetaVAE(latent_dim=5, hidden_units=(32,), capacity=25.0, capacity_steps=10_000)

    Source: Higgins et al. (2017), "β-VAE", equation 4; Burgess et al. (2018), "Understanding
    disentangling in β-VAE", equation 8.
    """

    def __init__(
        self, *args, beta=None, capacity=None, gamma=GAMMA, capacity_steps=STEPS, **kwargs
    ):
        super().__init__(*args, **kwargs)
        if beta is not None and capacity is not None:
            received = f"beta={beta}, capacity={capacity}"
            raise invalid("capacity", "either beta or capacity", received)
        for name, given, default in (
            ("gamma", gamma, GAMMA),
            ("capacity_steps", capacity_steps, STEPS),
        ):
            if capacity is None and given != default:
                raise invalid(name, "a capacity with it", f"{name}={given!r} without a capacity")
        beta = 4.0 if beta is None else check_non_negative("beta", beta)
        self.given_beta = None if capacity is not None else beta
        self.capacity = None if capacity is None else check_non_negative("capacity", capacity)
        self.gamma = check_non_negative("gamma", gamma)
        self.capacity_steps = check_positive_int("capacity_steps", capacity_steps)
        if self.capacity is None:
            self.beta_end.assign(beta)
        else:
            self.kl_warmup_steps.assign(self.capacity_steps)

    def objective(self, means):
        """Reconstruction + β·KL, or reconstruction + γ·|KL − C(t)|."""
        if self.capacity is None:
            return super().objective(means)
        distance = ops.abs(means["kl_loss"] + self.lacking(means) - self.capacity_now)
        return means["reconstruction_loss"] + self.gamma * distance

    @property
    def beta(self):
        """The KL's weight β in the next step; a model with a capacity has none."""
        if self.capacity is not None:
            raise AttributeError("A BetaVAE with a capacity has no β.")
        return super().beta

    @property
    def capacity_now(self):
        """C(t) in the next step, in nats."""
        return self.capacity * self.risen

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
