"""The variational autoencoder of Kingma & Welling (2014) as a `keras.Model`."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import seeding, threefry
from vae_tf.callbacks import FiniteGuard, LatentMonitor
from vae_tf.data import is_grey
from vae_tf.errors import GreyValuesWarning, InvalidTypeError, check_positive_int, invalid
from vae_tf.layers import Binarize, Sampling
from vae_tf.likelihoods import Bernoulli, get_likelihood
from vae_tf.models import execution
from vae_tf.models.base import ImageModel
from vae_tf.networks import dense_decoder, dense_encoder
from vae_tf.objectives import gaussian_kl, gaussian_log_prob


@keras.saving.register_keras_serializable(package="vae_tf")
class VAE(ImageModel):
    """A variational autoencoder: q(z|x) = N(μ(x), diag σ²(x)), p(z) = N(0, I), p(x|z) a likelihood.

    Training minimises the negative evidence lower bound, in nats per image,

        −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z)) = reconstruction_loss + kl_loss = loss.

    Images are arrays `(N, H, W)`, `(N, H, W, C)` or `(N, D)`, or batches of a `tf.data` set of `x`,
    `(x,)` or `(x, y)`: bytes (uint8, 0 to 255), booleans, or floats in [0, 1]. Labels are not used.
    `model(x)` is one stochastic pass and gives logits; `predict` and `reconstruct` give images.

    Args:
        latent_dim: the size of the code z.
        hidden_units: widths of the encoder's hidden layers, which the decoder mirrors; `()` gives a
            linear model.
        activation: of the hidden layers, anything that Keras takes.
        kernel_initializer: of the encoder's hidden layers, anything that Keras takes; the decoder's
            begin after Glorot, for He's would amplify the noise of the first codes.
        likelihood: p(x|z): "bernoulli", "gaussian" (one σ, learned), or an object such as
            `Gaussian(sigma=0.1)`. A Gaussian takes floats of any value.
        binarize: draw x ~ Bernoulli(grey values) anew whenever an image is trained on, and once, with
            fixed noise, where it is evaluated: the field's dynamic binarisation.
        seed: one integer that fixes the initial weights, the noise and the order of the data;
            None leaves them to `keras.utils.set_random_seed`.

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

    tracked = ("loss", "reconstruction_loss", "kl_loss")

    def __init__(
        self,
        latent_dim=10,
        hidden_units=(512, 384, 256),
        activation="relu",
        likelihood="bernoulli",
        binarize=False,
        kernel_initializer="he_uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.hidden_units = check_hidden_units(hidden_units)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        seeds = _spawn(self.seed, 5)
        self._encoder_seed, self._decoder_seed, noise_seed, self._order_seed, pixel_seed = seeds
        self.likelihood = get_likelihood(likelihood)
        self.sampling = Sampling(seed=noise_seed, name="sampling")
        self.binarize = Binarize(seed=pixel_seed, name="binarize") if binarize else None
        if binarize and self.value_range != (0.0, 1.0):
            raise invalid("binarize", "False: its likelihood is not of binary pixels", binarize)
        # β rises to `beta_end` over `kl_warmup_steps`; callbacks set these, and training saves them.
        self.beta = self._setting("beta", 1.0)
        self.beta_end = self._setting("beta_end", 1.0)
        self.kl_warmup_steps = self._setting("kl_warmup_steps", 0.0)
        self.free_bits = self._setting("free_bits", 0.0)

    def _setting(self, name, value):
        initializer = keras.initializers.Constant(value)
        return self.add_weight(name=name, initializer=initializer, trainable=False)

    def build(self, input_shape):
        self.image_shape = tuple(input_shape[1:])
        self.encoder = dense_encoder(
            self.image_shape,
            self.latent_dim,
            self.hidden_units,
            self.activation,
            self.kernel_initializer,
            self._encoder_seed,
        )
        self.decoder = dense_decoder(
            self.latent_dim,
            self.image_shape,
            self.hidden_units[::-1],
            self.activation,
            seed=self._decoder_seed,
        )
        self.built = True

    # The model's three parts, and the pass through them.

    def encode(self, x):
        """q(z|x): `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`."""
        return self.encoder(self.to_floats(self._checked(x)))

    def decode(self, z):
        """p(x|z): its parameters (logits for a Bernoulli), `(batch, *image_shape)`, for z `(batch, latent_dim)`."""
        return self.decoder(z)

    def regularizer(self, z_mean, z_log_var):
        """KL(q(z|x) ‖ p(z)) in nats, for each image and latent dimension: `(batch, latent_dim)`."""
        return gaussian_kl(z_mean, z_log_var, axis=None)

    def call(self, x):
        """One draw of z from q(z|x), decoded; the mean KL enters by `add_loss`."""
        z_mean, z_log_var = self.encode(x)
        kl = ops.mean(self.regularizer(z_mean, z_log_var), axis=0)
        self.add_loss(ops.sum(kl))
        self.step_terms = {  # of this pass, for `train_step` to complete
            "kl_per_dimension": kl,
            "z_mean": ops.mean(z_mean, axis=0),
            "z_mean_squared": ops.mean(ops.square(z_mean), axis=0),
        }
        return self.decode(self.sampling((z_mean, z_log_var)))

    def _terms(self, x):
        """The batch's means: −ELBO, reconstruction and KL, from one draw of z an image."""
        reconstruction = -ops.mean(self.likelihood.log_prob(self(x), x))
        kl = sum(self.losses)
        return {"loss": reconstruction + kl, "reconstruction_loss": reconstruction, "kl_loss": kl}

    def observed(self, batch):
        """A batch as the likelihood has it: floats, and binary ones with `binarize`."""
        x = self.to_floats(self.step_inputs(batch))
        return x if self.binarize is None else self.binarize(x)

    def log_weights(self, x, num_samples, seed=None):
        """log p(x, z_k) − log q(z_k|x) for draws z_k from q(z|x): `(num_samples, batch)`, in nats.

        Their mean over k estimates the ELBO, their logmeanexp log p(x), both from below. For many
        samples, in bounded memory, see `vae_tf.evaluation.log_likelihood`.

        Args:
            x: images, as the likelihood has them.
            num_samples: how many draws of z an image.
            seed: a non-negative integer that fixes the draws; None takes the noise of training.

        Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", equation 8.
        """
        num_samples = check_positive_int("num_samples", num_samples)
        x = self.to_floats(self._checked(x))
        z_mean, z_log_var = self.encode(x)
        shape = (num_samples, ops.shape(x)[0], self.latent_dim)
        key = self.sampling.next_key() if seed is None else threefry.key_of(seed)
        epsilon = threefry.normal(key, shape[0] * shape[1], self.latent_dim)
        return self.log_weights_at(x, z_mean, z_log_var, ops.reshape(epsilon, shape))

    def log_weights_at(self, x, z_mean, z_log_var, epsilon):
        """`log_weights` for given noise ε of shape `(num_samples, batch, latent_dim)`."""
        z = z_mean + ops.exp(0.5 * z_log_var) * epsilon
        log_q = gaussian_log_prob(z, z_mean, z_log_var)
        return self.log_prob_at(x, z) + gaussian_log_prob(z) - log_q

    def log_prob_at(self, x, z):
        """log p(x|z_k) for z of shape `(num_samples, batch, latent_dim)`: `(num_samples, batch)`."""
        shape = ops.shape(z)[:2]
        parameters = self.decode(ops.reshape(z, (-1, self.latent_dim)))
        repeated = ops.broadcast_to(x, (shape[0], *ops.shape(x)))
        repeated = ops.reshape(repeated, (-1, *self.image_shape))
        return ops.reshape(self.likelihood.log_prob(parameters, repeated), shape)

    # Training and evaluation.

    @property
    def term_sizes(self):
        scalars = (*self.tracked, "beta", "gradient_norm", "images")
        vectors = ("kl_per_dimension", "z_mean", "z_mean_squared")
        return dict.fromkeys(scalars, 1) | dict.fromkeys(vectors, self.latent_dim)

    @property
    def noise_layers(self):
        return [self.sampling] if self.binarize is None else [self.sampling, self.binarize]

    @property
    def value_range(self):
        return self.likelihood.value_range

    def look_at(self, images):
        if isinstance(self.likelihood, Bernoulli) and self.binarize is None and is_grey(images):
            warnings.warn(
                "The images have grey values: their cross-entropy is a loss, and no log-likelihood. "
                "VAE(binarize=True) trains on binary draws of them.",
                GreyValuesWarning,
                stacklevel=5,  # the caller of `fit`
            )

    def draw_ahead(self, steps, rows):
        keys = self.sampling.next_keys(steps)
        return {self.sampling: threefry.normal(keys, rows, self.latent_dim)}

    def own_callbacks(self):
        return [FiniteGuard(), LatentMonitor()]

    def train_step(self, batch):
        """One gradient step on a batch, down reconstruction + β Σ_j max(KL_j, free bits).

        The step's own terms are left in `self.step_terms`; what is returned is, as Keras has it,
        their running mean over the epoch. `loss` is −ELBO, whatever β a warm-up has reached.
        """
        x = self.observed(batch)
        step = ops.cast(self.optimizer.iterations, "float32") + 1
        warm = ops.minimum(1.0, step / ops.maximum(1.0, self.kl_warmup_steps))
        self.beta.assign(self.beta_end * warm)
        with tf.GradientTape() as tape:
            terms = self._terms(x)
            lacking = ops.sum(ops.relu(self.free_bits - self.step_terms["kl_per_dimension"]))
            objective = terms["reconstruction_loss"] + self.beta * (terms["kl_loss"] + lacking)
        gradients = tape.gradient(objective, self.trainable_weights)
        terms |= {"beta": ops.convert_to_tensor(self.beta)}
        terms |= {"gradient_norm": self.norm_if_measured(gradients)}
        if self.jit_compile and self._in_one_loop:
            execution.hold_back(self.trainable_weights, gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        count = ops.shape(x)[0]
        self.step_terms |= terms | {"images": ops.cast(count, "float32")}
        return self.track(count, terms)

    def test_step(self, batch):
        """The batch's −ELBO and its terms."""
        x = self.observed(batch)
        return self.track(ops.shape(x)[0], self._terms(x))

    def predict_step(self, batch):
        """Reconstructed images: the likelihood's mean at z = z_mean, without noise."""
        z_mean, _ = self.encode(self.step_inputs(batch))
        return self.likelihood.mean(self.decode(z_mean))

    # Looking at what was learned.

    def reconstruct(self, x):
        """Images `(N, ...)` to their reconstructions in [0, 1], through z = z_mean, as NumPy."""
        return ops.convert_to_numpy(self.predict_step(self._checked(x)))

    def generate(self, num=1, seed=None):
        """Decode `num` draws from the prior to images in [0, 1], as NumPy `(num, *image_shape)`.

        Args:
            num: how many images.
            seed: a non-negative integer; the same seed gives the same images, here and from the
                exported model. None draws one.
        """
        self.assert_built("generate")
        num = check_positive_int("num", num)
        seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        z = threefry.seeded_normal(seeding.row_seeds(seed, num), self.latent_dim)
        return self.decode_images(z)

    def interpolate(self, start, end, num=8):
        """Images along the straight line between the codes of two images.

        Args:
            start, end: one image each, of shape `image_shape`.
            num: how many images, both ends included.

        Returns:
            NumPy, `(num, *image_shape)`, in [0, 1].
        """
        self.assert_built("interpolate")
        num = check_positive_int("num", num, minimum=2)
        (z_start, z_end), _ = self.encode(np.stack([start, end]))
        weights = ops.reshape(ops.linspace(0.0, 1.0, num), (-1, 1))
        return self.decode_images((1 - weights) * z_start + weights * z_end)

    def decode_images(self, z, batch_size=1000):
        """The decoder's means for codes `(N, latent_dim)`: NumPy `(N, *image_shape)` in [0, 1]."""
        z = ops.convert_to_tensor(z, self.compute_dtype)
        parts = [self.decode(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return np.concatenate([ops.convert_to_numpy(self.likelihood.mean(part)) for part in parts])

    # Saving.

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "binarize": self.binarize is not None,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }


def check_hidden_units(hidden_units):
    """Return the widths as a tuple of positive ints, or say what is wrong with them."""
    if isinstance(hidden_units, (int, np.integer)):
        hidden_units = (hidden_units,)
    if isinstance(hidden_units, str) or not hasattr(hidden_units, "__iter__"):
        raise invalid(
            "hidden_units",
            "a sequence of positive integers, such as (512, 384, 256)",
            f"hidden_units={hidden_units!r}",
            "() gives a linear model.",
            kind=InvalidTypeError,
        )
    return tuple(check_positive_int("hidden_units", units) for units in hidden_units)


def _spawn(seed, num):
    return (
        [None] * num
        if seed is None
        else [int(s) for s in np.random.SeedSequence(seed).generate_state(num)]
    )
