"""The prior over the codes of a VQVAE, which is trained after it."""

import math

import keras

from vae_tf import autoregressive
from vae_tf.errors import InvalidTypeError, check_positive_int, invalid
from vae_tf.models.base import Model
from vae_tf.models.vqvae import VQVAE


@keras.saving.register_keras_serializable(package="vae_tf")
class CodePrior(Model):
    """p(k), a network over the code maps of a trained `VQVAE`: the second phase of its training.

        loss = −log p(k) = −Σ_i log p(k_i | k_1, ..., k_{i−1}), in nats per image.

    `fit` takes images. Once it is trained the VQVAE has it: `generate` draws codes from it.

    Args:
        vqvae: a trained `VQVAE`, which is left as it is but for its prior.
        filters, num_layers: of the gated masked convolutions; by default 64 and 6. Where the VQVAE has a
            prior, it is trained on: then they are that one's.
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

    def __init__(self, vqvae, filters=None, num_layers=None, seed=None, **kwargs):
        if isinstance(vqvae, dict):  # from its saved form
            vqvae = keras.saving.deserialize_keras_object(vqvae)
        if not isinstance(vqvae, VQVAE):
            raise invalid("vqvae", "a VQVAE", type(vqvae).__name__, kind=InvalidTypeError)
        super().__init__(vqvae.likelihood, seed, vqvae.binarize is not None, **kwargs)
        vqvae.assert_built("CodePrior")
        self.vqvae, self.network = vqvae, vqvae.code_prior  # from codes to logits
        sizes = {"filters": filters, "num_layers": num_layers}
        sizes = {k: None if v is None else check_positive_int(k, v) for k, v in sizes.items()}
        self.filters, self.num_layers = self._sizes(**sizes)

    def _sizes(self, **given):
        """Those that are given, or else of the prior that there is, or else the usual ones."""
        if self.network is None:
            return [given[k] or usual for k, usual in (("filters", 64), ("num_layers", 6))]
        has = autoregressive.sizes_of(self.network)
        for name, value in given.items():
            if value not in (None, has[name]):
                hint = "Leave it out to train that prior on; vqvae.adopt(None) takes it away."
                expected = f"{has[name]}, as the prior has that this VQVAE has"
                raise invalid(name, expected, f"{name}={value}", hint)
        return has.values()

    def build(self, input_shape):
        if self.network is None:
            shape, num = self.vqvae.latent_shape[:2], self.vqvae.quantizer.num_embeddings
            options, seed = (self.filters, self.num_layers), self.weight_seeds[0]
            self.network = autoregressive.code_prior_network(shape, num, *options, seed=seed)
        super().build(input_shape)

    def fit(self, *args, **kwargs):
        """As `Model.fit`; from here on the VQVAE has this prior."""
        if not self.built:
            with self.distribute_strategy.scope():
                self.build((None, *self.vqvae.image_shape))
        self.vqvae.adopt(self.network)
        return super().fit(*args, **kwargs)

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

    def check_support(self, x):
        """Nothing: its loss is of codes, and of no pixel."""

    def terms(self, x, training=False):
        """−log p(k), and the same in bits of each code."""
        codes = self.vqvae.codes(x)
        nats = -autoregressive.log_prob(self.network, codes)
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
