"""The vector quantised autoencoder of van den Oord et al. (2017), and the prior over its codes."""

import json
import math

import keras
from keras import ops

from vae_tf import autoregressive, networks
from vae_tf.errors import (
    InvalidTypeError,
    check_choice,
    check_non_negative,
    check_positive_int,
    invalid,
)
from vae_tf.models.arrays import is_tensor
from vae_tf.models.base import Model
from vae_tf.models.vae import OUTPUT_BIAS, check_widths
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
        self.residual_blocks = check_positive_int("residual_blocks", residual_blocks, minimum=0)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_bias = check_choice("output_bias", output_bias, OUTPUT_BIAS)
        self.code_prior, self._saved_prior = None, code_prior and json.dumps(code_prior)

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
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
            self.quantizer.follow(z, codes, self.noise)
        reconstruction = -self.likelihood.log_prob(self.decode(straight_through(z, z_q)), x)
        commitment = self.commitment_cost * _squares(z - ops.stop_gradient(z_q))
        terms = {"reconstruction_loss": reconstruction, "commitment_loss": commitment}
        if self.quantizer.codebook == "loss":
            terms["codebook_loss"] = _squares(ops.stop_gradient(z) - z_q)
        usage = ops.mean(ops.one_hot(codes, self.quantizer.num_embeddings), axis=(1, 2))
        return {"loss": sum(terms.values()), **terms, "code_usage": usage}

    # Codes by their numbers, and the prior over them.

    def codes(self, x, batch_size=1000):
        """The numbers of the codes of images: int32 `(N, height, width)`, NumPy for arrays."""
        if is_tensor(x):
            return self.quantizer.codes(self.encoder(self.to_floats(x)))
        self.assert_built("codes")
        find = lambda x: self.quantizer.codes(self.encoder(x))  # noqa: E731
        return self._in_batches(find, x, None, batch_size)

    def adopt(self, network):
        """Take a trained network of codes as the prior; `VQVAE.fit` does not train it."""
        network.trainable = False
        self._tracker.unlock()  # Keras lets a built model have no more layers
        self.code_prior = network
        if self.built:
            self._tracker.lock()

    @property
    def sample_prior(self):
        return None if self.code_prior is None else self._sample_prior

    def _sample_prior(self, num):
        """Codes k drawn one after another, each given those before it; their vectors z_q."""
        height, width = self.latent_shape[:2]
        uniform = self.noise.uniform((num, height * width))

        def draw(place, codes):
            logits = self.code_prior(ops.reshape(codes, (-1, height, width)))
            logits = ops.reshape(logits, (-1, height * width, self.quantizer.num_embeddings))
            share = ops.cumsum(ops.softmax(ops.take(logits, place, axis=1)), axis=-1)
            u = ops.take(uniform, place, axis=1)[:, None] * share[:, -1:]
            code = ops.sum(ops.cast(share < u, "int32"), axis=-1)
            here = ops.arange(height * width) == place
            return ops.where(here, code[:, None], codes)

        codes = ops.fori_loop(0, height * width, draw, ops.zeros((num, height * width), "int32"))
        return self.quantizer.look_up(ops.reshape(codes, (-1, height, width)))

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


@keras.saving.register_keras_serializable(package="vae_tf")
class CodePrior(Model):
    """p(k), a network over the code maps of a trained `VQVAE`: the second phase of its training.

        loss = −log p(k) = −Σ_i log p(k_i | k_1, ..., k_{i−1}), in nats per image.

    `fit` takes images. Once it is trained the VQVAE has it: `generate` draws codes from it.

    Args:
        vqvae: a trained `VQVAE`, which is left as it is but for its prior. One that it has is trained on.
        filters, num_layers: of the gated masked convolutions.
        seed: as for `Model`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> prior = CodePrior(vqvae)  # doctest: +SKIP
        >>> prior.compile()  # doctest: +SKIP
        >>> prior.fit(x)  # doctest: +SKIP
        >>> vqvae.generate(num=4, seed=0)  # doctest: +SKIP

    Source: van den Oord et al. (2017), section 3.3; van den Oord et al. (2016), "Conditional Image
    Generation with PixelCNN Decoders".
    """

    def __init__(self, vqvae, filters=64, num_layers=6, seed=None, **kwargs):
        if isinstance(vqvae, dict):  # from its saved form
            vqvae = keras.saving.deserialize_keras_object(vqvae)
        if not isinstance(vqvae, VQVAE):
            raise invalid("vqvae", "a VQVAE", type(vqvae).__name__, kind=InvalidTypeError)
        super().__init__(vqvae.likelihood, seed, vqvae.binarize is not None, **kwargs)
        self.vqvae = vqvae
        self.filters = check_positive_int("filters", filters)
        self.num_layers = check_positive_int("num_layers", num_layers)

    def build(self, input_shape):
        if not self.vqvae.built:
            self.vqvae.build(input_shape)
        if self.network is None:
            shape, num = self.vqvae.latent_shape[:2], self.vqvae.quantizer.num_embeddings
            options, seed = (self.filters, self.num_layers), self.weight_seeds[0]
            self.vqvae.adopt(autoregressive.code_prior_network(shape, num, *options, seed=seed))
        super().build(input_shape)

    @property
    def network(self):
        """From codes to logits; None before `build`."""
        return self.vqvae.code_prior

    @property
    def trainable_weights(self):
        return self.network.weights if self.built else []

    trainable_variables = trainable_weights

    @property
    def latent_shape(self):
        return self.vqvae.latent_shape

    def encode(self, x):
        return self.vqvae.encode(x)

    def decode(self, z):
        return self.vqvae.decode(z)

    def sample_prior(self, num):
        return self.vqvae.sample_prior(num)

    def terms(self, x, training=False):
        """−log p(k), and the same in bits of each code."""
        codes = self.vqvae.codes(x)
        log_p = ops.log_softmax(self.network(codes), axis=-1)
        chosen = ops.one_hot(codes, log_p.shape[-1])
        nats = -ops.sum(chosen * log_p, axis=(1, 2, 3))
        bits = nats / (math.prod(codes.shape[1:]) * math.log(2))
        return {"loss": nats, "bits_per_code": bits}

    def get_config(self):
        config = super().get_config()
        config.pop("likelihood", None)
        config.pop("binarize", None)
        return {
            **config,
            "vqvae": keras.saving.serialize_keras_object(self.vqvae),
            "filters": self.filters,
            "num_layers": self.num_layers,
        }


def _squares(difference):
    """Squares summed over all but the batch."""
    return ops.sum(ops.square(difference), axis=tuple(range(1, len(difference.shape))))
