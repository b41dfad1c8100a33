"""The importance weighted autoencoder of Burda et al. (2016)."""

import math

import keras
from keras import ops

from vae_tf.distributions import Normal
from vae_tf.errors import check_positive_int
from vae_tf.models.vae import VAE, carried, repeated


@keras.saving.register_keras_serializable(package="vae_tf")
class IWAE(VAE):
    """A VAE that is trained on the bound of k samples, which is tighter than the ELBO:

        L_k = E[log 1/k Σ_i w_i],  w_i = p(x|z_i) p(z_i) / q(z_i|x),  z_i ~ q(z|x);  log p(x) ≥ L_k ≥ ELBO.

    `loss` is −L_k and `elbo_loss` −ELBO. During a KL warm-up the bound that is descended has
    w_i = p(x|z_i) (p(z_i) / q(z_i|x))^β. With k = 1 it is a VAE.

    Args:
        args, kwargs: as for `VAE`.
        num_samples: k. A step decodes k codes of each image.
        doubly_reparameterized: give the encoder the gradient of Tucker et al., whose signal does not
            drown in noise as k grows (Rainforth et al. 2018). Its expectation is the same.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> iwae = IWAE(latent_dim=5, hidden_units=(32,), num_samples=5, seed=0)

    Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", equations 8 and
    13; Tucker et al. (2019), "Doubly Reparameterized Gradient Estimators", equation 8.
    """

    def __init__(self, *args, num_samples=5, doubly_reparameterized=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_samples = check_positive_int("num_samples", num_samples)
        self.doubly_reparameterized = bool(doubly_reparameterized)

    def terms(self, x, *condition, training=False):
        """−L_k, and −ELBO and its terms from the same k draws an image."""
        if self.num_samples == 1 and not self.doubly_reparameterized:  # L_1 is the ELBO
            return super().terms(x, *condition, training=training)
        q, prior = self.posterior(x, *condition), self.prior(*condition)
        kl = self.regularizer(q.mean(), q.log_var, *condition)
        z, log_q = q.sample_with_log_prob(self.sampling, self.num_samples)
        factors = []
        if self.doubly_reparameterized:
            z = scaled_gradient(z, factors)
            log_q = Normal(*map(ops.stop_gradient, (q.mean(), q.log_var))).log_prob(z)
        codes = ops.reshape(z, (-1, self.latent_dim))
        images, *conditions = (repeated(value, self.num_samples) for value in (x, *condition))
        log_x = self.likelihood.log_prob(self.decode(codes, *conditions), images)
        log_x, log_ratio = ops.reshape(log_x, ops.shape(log_q)), prior.log_prob(z) - log_q
        beta = self.beta if training else 1.0
        log_w = log_x + beta * log_ratio
        descended, reconstruction = -log_mean_exp(log_w), -ops.mean(log_x, axis=0)
        own_weights = ops.exp(log_w + descended) / self.num_samples  # w̃_i, which sum to 1
        factors.append(_second_factor(own_weights, beta)[..., None])
        return {
            "loss": -log_mean_exp(log_x + log_ratio) if training else descended,
            "elbo_loss": reconstruction + ops.sum(kl, axis=-1),
            "reconstruction_loss": reconstruction,
            "kl_loss": ops.sum(kl, axis=-1),
            "descended": descended[:, None],
            **carried(q.mean(), q.log_var, kl),
        }

    def objective(self, means):
        """−L_k, with the weights that the KL warm-up gives, and `VAE`'s free bits."""
        if "descended" not in means:
            return super().objective(means)
        return ops.sum(means["descended"]) + self.beta * self.lacking(means)

    def get_config(self):
        return {
            **super().get_config(),
            "num_samples": self.num_samples,
            "doubly_reparameterized": self.doubly_reparameterized,
        }


def log_mean_exp(log_w):
    """log 1/k Σ_i w_i over the first axis, from log w."""
    return ops.logsumexp(log_w, axis=0) - math.log(log_w.shape[0])


def _second_factor(own_weights, beta):
    """What the gradient at z_i, w̃_i ∂log w_i/∂z_i, is multiplied by: w̃_i, the normalised weight.

    During a warm-up q enters w_i by its power β. Then −β w̃_i ∂log q(z_i)/∂φ is what has to be
    replaced, by −β (w̃_i − w̃_i²) ∂log w_i/∂z_i ∂z_i/∂φ, and the factor is 1 − β + β w̃_i.
    """
    return 1.0 - beta + beta * own_weights


def scaled_gradient(z, factors):
    """z, whose gradient comes back times `factors[0]`, which are known only after z was used."""

    @ops.custom_gradient
    def identity(z):
        return z, lambda upstream: upstream * factors[0]

    return identity(z)
