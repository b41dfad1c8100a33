"""The vector quantised autoencoder of van den Oord et al. (2017)."""

import json

import keras
from keras import ops

from vae_tf import autoregressive, networks
from vae_tf.distributions.numerics import sum_over_pixels
from vae_tf.engine import replicas
from vae_tf.errors import (
    InvalidTypeError,
    OldPriorWarning,
    check_choice,
    check_non_negative,
    check_positive_int,
    invalid,
    warn,
)
from vae_tf.models.arrays import is_tensor
from vae_tf.models.base import Model
from vae_tf.models.two_networks import OUTPUT_BIAS, check_widths
from vae_tf.quantizer import VectorQuantizer, straight_through


@keras.saving.register_keras_serializable(package="vae_tf")
class VQVAE(Model):
    """An autoencoder whose code is a map of vectors, each one of K from a codebook e.

        −log p(x|z_q) + ‖sg[z_e(x)] − e‖² + β·‖z_e(x) − sg[e]‖²,  z_q = the e_k nearest to z_e(x),

    in nats per image, summed over the map. The second term is there with codebook="loss" alone; with
    "ema" the codebook follows by moving averages. The code that `encode` gives and `decode` takes is z_q;
    `codes` gives the numbers k. `generate` needs a prior over the codes, which a `CodePrior` trains.

    Args:
        num_embeddings: K.
        embedding_dim: the length of a vector.
        commitment_cost: β.
        codebook: how it learns, "ema" or "loss".
        decay: of the moving averages.
        filters: channels of the encoder's convolutions, each of which halves the map, as for `VAE`.
        residual_blocks: how many of them the encoder and the decoder have.
        activation, kernel_initializer, output_bias: as for `VAE`.
        code_prior: what a saved model knows of the network that a `CodePrior` has trained.
        kwargs: `likelihood`, `binarize` and `seed`, as for `Model`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> vqvae = VQVAE(num_embeddings=16, embedding_dim=4, filters=(8,), seed=0)
        >>> vqvae.compile()
        >>> history = vqvae.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> vqvae.codes(np.zeros((3, 8, 8), "uint8")).shape
        (3, 4, 4)

    Source: van den Oord, Vinyals & Kavukcuoglu (2017), "Neural Discrete Representation Learning",
    equation 3.
    """

    def __init__(
        self,
        num_embeddings=128,
        embedding_dim=16,
        commitment_cost=0.25,
        codebook="ema",
        decay=0.99,
        filters=None,
        residual_blocks=2,
        activation="relu",
        kernel_initializer="he_uniform",
        output_bias="mean",
        code_prior=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.commitment_cost = check_non_negative("commitment_cost", commitment_cost)
        self.quantizer = VectorQuantizer(num_embeddings, embedding_dim, codebook, decay)
        self.filters = None if filters is None else check_widths("filters", filters)
        if self.filters == ():
            raise invalid("filters", "one number at least", "filters=()")
        self.residual_blocks = check_positive_int("residual_blocks", residual_blocks, minimum=0)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_bias = check_choice("output_bias", output_bias, OUTPUT_BIAS)
        self.code_prior, self._saved_prior = None, code_prior and json.dumps(code_prior)

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        if len(shape) < 2:
            expected = "(height, width) or (height, width, channels): a VQVAE's code is a map"
            hint = "x.reshape(-1, height, width) gives them both; a VAE takes vectors."
            raise invalid("image_shape", expected, f"image_shape={shape}", hint)
        pixels, seeds = self.likelihood.parameter_shape(shape), self.weight_seeds
        filters = networks.filters_for(shape) if self.filters is None else self.filters
        options = self.activation, self.kernel_initializer
        dim, blocks = self.quantizer.embedding_dim, self.residual_blocks
        self.encoder = networks.map_encoder(shape, dim, filters, *options, seeds[0], blocks)
        self.decoder = networks.map_decoder(
            self.latent_shape, pixels, filters[::-1], *options, seeds[1], blocks
        )
        self.quantizer.build((None, *self.latent_shape))
        if self._saved_prior is not None:
            self.adopt(keras.saving.deserialize_keras_object(json.loads(self._saved_prior)))
        super().build(input_shape)

    def begin(self, x):
        if self.output_bias == "mean":
            networks.begin_at_mean(self.decoder, self.likelihood, x)

    @property
    def latent_shape(self):
        return tuple(self.encoder.output.shape[1:])

    # What a model gives.

    def encode(self, x):
        """The code z_q, `(batch, height, width, embedding_dim)`."""
        return self.quantizer(self.encoder(x))

    def decode(self, z):
        """p(x|z_q): its parameters."""
        return self.decoder(z)

    def terms(self, x, training=False):
        z = ops.cast(self.encoder(x), "float32")
        codes = self.quantizer.codes(z)
        z_q = self.quantizer.look_up(codes)
        if training:
            uniform = self.noise.uniform((ops.shape(x)[0], self.quantizer.num_embeddings))
            whole = (replicas.gathered(part) for part in (ops.stop_gradient(z), codes, uniform))
            vectors, nearest, uniform = whole
            self.quantizer.follow(vectors, nearest, uniform[0])
        reconstruction = -self.likelihood.log_prob(self.decode(straight_through(z, z_q)), x)
        commitment = self.commitment_cost * sum_over_pixels(ops.square(z - ops.stop_gradient(z_q)))
        terms = {"reconstruction_loss": reconstruction, "commitment_loss": commitment}
        if self.quantizer.codebook == "loss":
            terms["codebook_loss"] = sum_over_pixels(ops.square(ops.stop_gradient(z) - z_q))
        usage = ops.mean(ops.one_hot(codes, self.quantizer.num_embeddings), axis=(1, 2))
        return {"loss": sum(terms.values()), **terms, "code_usage": usage}

    # Codes by their numbers, and the prior over them.

    def codes(self, x, batch_size=1000):
        """The numbers of the codes of images: int32 `(N, height, width)`, NumPy for arrays."""
        if is_tensor(x):
            return self.quantizer.codes(self.encoder(self.to_floats(x)))
        self.assert_built("codes")
        find = lambda x: self.quantizer.codes(self.encoder(x))  # noqa: E731
        return self._in_batches(find, x, None, batch_size).astype("int32")

    @property
    def num_codes(self):
        return self.quantizer.num_embeddings

    @property
    def embeddings(self):
        """The codes' vectors, NumPy `(num_embeddings, embedding_dim)`."""
        return ops.convert_to_numpy(self.quantizer.embeddings)

    def log_prior(self, codes):
        """log p(k) of maps of codes `(batch, height, width)`, in nats for each, by the prior that it has."""
        self.needs("sample_prior", "log_prior")
        return autoregressive.log_prob(self.code_prior, codes)

    def prior_to_train(self, **options):
        """A `CodePrior` of this model, with the given arguments."""
        from vae_tf.models.code_prior import CodePrior  # which is built upon this

        return CodePrior(self, **options)

    def adopt(self, network):
        """Take a network of codes as the prior, in the place of one that it has; None takes that away."""
        self._tracker.unlock()  # Keras lets a built model have no more layers
        if self.code_prior is not None:
            self._tracker.untrack(self.code_prior)
        if network is not None:
            network.trainable = False  # `VQVAE.fit` leaves it alone
        self.code_prior = network
        if self.built:
            self._tracker.lock()

    @property
    def sample_prior(self):
        return None if self.code_prior is None else self._sample_prior

    def _sample_prior(self, num):
        """The vectors z_q of codes that are drawn from the prior."""
        height, width = self.latent_shape[:2]
        uniform = ops.reshape(self.noise.uniform((num, height * width)), (-1, height, width))
        return self.quantizer.look_up(autoregressive.draw_codes(self.code_prior, uniform))

    def needs(self, capability, method):
        if capability == "sample_prior" and self.code_prior is None:
            expected, hint = "a VQVAE with a prior over its codes", "prior.compile(); prior.fit(x)"
            hint = f"Train one: prior = vae_tf.CodePrior(vqvae); {hint}. vae-tf train does so by itself."
            raise invalid(
                "model", f"{expected}, for `{method}`", "one without", hint, InvalidTypeError
            )
        super().needs(capability, method)

    def fit(self, *args, **kwargs):
        """As `Model.fit`. A prior that the model has is left as it is, and a warning says so."""
        if self.code_prior is not None:
            warn(
                "This VQVAE has a prior over its codes, which are about to change. When it is trained, "
                "train the prior on: prior = vae_tf.CodePrior(vqvae); prior.compile(); prior.fit(x).",
                OldPriorWarning,
            )
        return super().fit(*args, **kwargs)

    def get_config(self):
        prior = self.code_prior and keras.saving.serialize_keras_object(self.code_prior)
        return {
            **super().get_config(),
            "num_embeddings": self.quantizer.num_embeddings,
            "embedding_dim": self.quantizer.embedding_dim,
            "commitment_cost": self.commitment_cost,
            "codebook": self.quantizer.codebook,
            "decay": self.quantizer.decay,
            "filters": self.filters and list(self.filters),
            "residual_blocks": self.residual_blocks,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_bias": self.output_bias,
            "code_prior": prior,
        }
