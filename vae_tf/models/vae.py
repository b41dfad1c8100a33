"""The variational autoencoder of Kingma & Welling (2014)."""

import keras
from keras import ops

from vae_tf import random
from vae_tf.distributions import Normal
from vae_tf.errors import check_positive_int, invalid
from vae_tf.layers import Sampling
from vae_tf.models.schedule import KLSchedule
from vae_tf.models.two_networks import TwoNetworks


@keras.saving.register_keras_serializable(package="vae_tf")
class VAE(KLSchedule, TwoNetworks):
    """A variational autoencoder: q(z|x) = N(μ(x), diag σ²(x)), p(z) = N(0, I), p(x|z) a likelihood.

    Training minimises the negative evidence lower bound, in nats per image,

        −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z)) = reconstruction_loss + kl_loss = loss.

    Images are arrays `(N, H, W)`, `(N, H, W, C)` or `(N, D)`, or batches of a `tf.data` set of `x`,
    `(x,)` or `(x, y)`: bytes (uint8, 0 to 255), booleans, or floats in [0, 1]. Labels are not used.
    `model(x)` is one stochastic pass and gives the likelihood's parameters (logits for a Bernoulli);
    `predict` and `reconstruct` give images.

    Args:
        latent_dim: the size of the code z.
        hidden_units: widths of the dense encoder's hidden layers, which the decoder mirrors; `()` gives
            a linear model.
        activation: of the hidden layers, anything that Keras takes.
        likelihood: p(x|z): "bernoulli", "continuous_bernoulli", "gaussian" (one σ, learned),
            "discretized_logistic", or an object such as `Gaussian(sigma=0.1)`.
        binarize, seed: as for `Model`.
        kernel_initializer: of the encoder's hidden layers, anything that Keras takes; the decoder's
            begin after Glorot, for He's would amplify the noise of the first codes.
        network: "dense" or "conv", what makes the networks that are not given.
        filters: channels of the convolutional encoder's layers, each of which halves the image; the
            decoder mirrors them. None: 32, 64, 128, 256, of as many layers as leave 4 to 7 pixels.
        encoder: a Keras model from `(batch, *image_shape)` to `[z_mean, z_log_var]`, each `(batch,
            latent_dim)`.
        decoder: a Keras model from `(batch, latent_dim)` to the likelihood's parameters.
        output_bias: where the decoder's output begins when it is not given: "mean", at the training
            images' mean, and a learned σ at their spread; or "zeros", as in the original program.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> vae = VAE(latent_dim=2, hidden_units=(32,), seed=0)
        >>> vae.compile()
        >>> history = vae.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> vae.generate(num=4, seed=0).shape
        (4, 8, 8)

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", equation 10.
    """

    heads = ("z_mean", "log_var")

    def __init__(
        self,
        latent_dim=10,
        hidden_units=(512, 384, 256),
        activation="relu",
        likelihood="bernoulli",
        binarize=False,
        kernel_initializer="he_uniform",
        seed=None,
        network="dense",
        filters=None,
        encoder=None,
        decoder=None,
        output_bias="mean",
        **kwargs,
    ):
        networks = encoder, decoder
        super().__init__(
            latent_dim, hidden_units, activation, kernel_initializer, network, filters, *networks,
            output_bias, likelihood=likelihood, seed=seed, binarize=binarize, **kwargs,
        )  # fmt: skip
        self.sampling = Sampling(seed=random.child_seeds(self.seed, 3)[2], name="sampling")
        self.add_schedule()
        self.free_bits = self.add_setting("free_bits", 0.0)

    # The model's parts.

    def encode(self, x, *condition):
        """q(z|x): `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`."""
        return tuple(self.encoder(x))

    def posterior(self, x, *condition):
        """q(z|x) = N(μ(x), diag σ²(x))."""
        return Normal(*self.encode(x, *condition))

    def prior(self, *condition):
        """p(z) = N(0, I).

        Raises:
            ValueError: a subclass overrides `regularizer`, and does not say what its prior is.
        """
        if type(self).regularizer is not VAE.regularizer:
            name = type(self).__name__
            raise invalid(
                "prior",
                f"a {name} that says its prior, since it overrides `regularizer`",
                "none",
                f"Define `prior(self)` in {name}; if it is still N(0, I), return Normal(0.0, 0.0).",
            )
        return Normal(ops.zeros((1, self.latent_dim)), ops.zeros((1, self.latent_dim)))

    def regularizer(self, z_mean, z_log_var, *condition):
        """KL(q(z|x) ‖ p(z)) in nats, for each image and latent dimension: `(batch, latent_dim)`."""
        standard = type(self).prior is VAE.prior
        return Normal(z_mean, z_log_var).kl(None if standard else self.prior(*condition))

    # The evidence lower bound.

    def terms(self, x, *condition, training=False):
        """−ELBO, its two terms, and what each latent dimension carries, from one draw of z an image."""
        z_mean, z_log_var = self.encode(x, *condition)
        kl = self.regularizer(z_mean, z_log_var, *condition)
        z = self.sampling((z_mean, z_log_var))
        reconstruction = -self.likelihood.log_prob(self.decode(z, *condition), x)
        return {
            "loss": reconstruction + ops.sum(kl, axis=-1),
            "reconstruction_loss": reconstruction,
            "kl_loss": ops.sum(kl, axis=-1),
            **carried(z_mean, z_log_var, kl),
        }

    def objective(self, means):
        """Reconstruction + β Σ_j max(KL_j, free bits); the `loss` that is shown has β = 1."""
        return means["reconstruction_loss"] + self.beta * (means["kl_loss"] + self.lacking(means))

    def lacking(self, means):
        """Σ_j max(0, free bits − KL_j)."""
        return ops.sum(ops.relu(self.free_bits - means["kl_per_dimension"]))

    def call(self, inputs):
        """One draw of z from q(z|x), decoded; the mean KL enters by `add_loss`."""
        x, *condition = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        z_mean, z_log_var = self.encode(self.to_floats(x), *condition)
        kl = self.regularizer(z_mean, z_log_var, *condition)
        self.add_loss(ops.mean(ops.sum(kl, axis=-1)))
        return self.decode(self.sampling((z_mean, z_log_var)), *condition)

    def _code_to_decode(self, code):
        return self.sampling(code)

    def sample_prior(self, num, *condition):
        """Codes z ~ p(z), `(num, latent_dim)`."""
        prior = self.prior(*condition)
        epsilon = self.sampling.normal((num, self.latent_dim))
        return prior.mean() + ops.exp(0.5 * prior.log_var) * epsilon

    def log_weights(self, x, num_samples, *condition):
        """log p(x, z_k) − log q(z_k|x) for draws z_k from q(z|x): `(num_samples, batch)`, in nats.

        Their mean over k estimates the ELBO, their logmeanexp log p(x), both from below. For many
        samples, in bounded memory, see `vae_tf.evaluation.log_likelihood`.

        Args:
            x: images, as the likelihood has them.
            num_samples: how many draws of z an image.
            seed: a non-negative integer that fixes the draws; without it the noise is training's.

        Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", equation 8.
        """
        num_samples = check_positive_int("num_samples", num_samples)
        q, prior = self.posterior(x, *condition), self.prior(*condition)
        z, log_q = q.sample_with_log_prob(self.sampling, num_samples)
        codes = ops.reshape(z, (-1, self.latent_dim))
        x, *condition = (repeated(value, num_samples) for value in (x, *condition))
        log_p = self.likelihood.log_prob(self.decode(codes, *condition), x)
        return ops.reshape(log_p, ops.shape(log_q)) + prior.log_prob(z) - log_q


def carried(z_mean, z_log_var, kl):
    """The terms of which `LatentMonitor` tells what each latent dimension carries."""
    return {
        "kl_per_dimension": kl,
        "z_mean": z_mean,
        "z_mean_squared": ops.square(ops.cast(z_mean, "float32")),
        "z_variance": ops.exp(ops.cast(z_log_var, "float32")),
    }


def repeated(value, num):
    """A batch `num` times after one another, `(num·batch, ...)`: one for each of `num` samples."""
    shape = ops.shape(value)
    return ops.reshape(ops.broadcast_to(value, (num, *shape)), (-1, *shape[1:]))
