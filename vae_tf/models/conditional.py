"""The conditional variational autoencoder of Sohn et al. (2015)."""

import dataclasses
import math

import keras
from keras import layers, ops

from vae_tf import networks, random
from vae_tf.distributions import Normal
from vae_tf.errors import InvalidTypeError, invalid
from vae_tf.models.condition import Condition
from vae_tf.models.vae import VAE


@keras.saving.register_keras_serializable(package="vae_tf")
class ConditionalVAE(VAE):
    """A VAE that is told y of each image x, at both ends: q(z|x, y), p(z|y), p(x|z, y).

        −log p(x|y) ≤ E_q[−log p(x|z, y)] + KL(q(z|x, y) ‖ p(z|y)) = loss.

    y is a label, of which the networks see a one-hot row, or any array. It is the second argument
    of `fit`, `encode`, `decode` and `reconstruct`; every call takes it as `label=...`, its own name.

    Args:
        args, kwargs: as for `VAE`. An encoder of your own is given x flattened with y behind it (with
            network="conv" x with one more channel), a decoder z with y behind it.
        num_classes: labels are 0 to num_classes − 1; 10 where neither this nor a condition is given.
        condition: a `Condition` in their place: of arrays, or of labels under another name.
        learned_prior: p(z|y) is normal, with a network of y as wide as the encoder; otherwise N(0, I).

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> cvae = ConditionalVAE(latent_dim=2, hidden_units=(32,), num_classes=3, seed=0)
        >>> cvae.compile()
        >>> x, y = np.zeros((90, 8, 8), "uint8"), np.arange(90) % 3
        >>> history = cvae.fit(x, y, verbose=0)
        >>> cvae.generate(num=4, label=2, seed=0).shape
        (4, 8, 8)

    Source: Sohn, Lee & Yan (2015), "Learning Structured Output Representation using Deep Conditional
    Generative Models", equation 4.
    """

    def __init__(self, *args, num_classes=None, condition=None, learned_prior=False, **kwargs):
        super().__init__(*args, **kwargs)
        if isinstance(condition, dict):  # from its saved form
            condition = Condition(**condition)
        if condition is None:
            condition = Condition("label", num_classes=10 if num_classes is None else num_classes)
        elif num_classes is not None:
            expected = "None where there is a condition, which has its own"
            raise invalid("num_classes", expected, f"num_classes={num_classes}")
        if not isinstance(condition, Condition):
            raise invalid("condition", "a vae_tf.Condition", condition, kind=InvalidTypeError)
        self.condition = condition
        self.learned_prior, self.prior_network = bool(learned_prior), None

    def build(self, input_shape):
        seed = random.child_seeds(self.seed, 7)[-1]
        size, shape = (self._size,), tuple(input_shape[1:])
        if self.network == "conv":
            self.channel = layers.Dense(math.prod(shape[:2]), name="channel")
            self.channel.build((None, *size))
        if self.learned_prior:
            self.prior_network = networks.dense_encoder(
                size, self.latent_dim, self.hidden_units, self.activation, seed=seed, name="prior"
            )
        super().build(input_shape)

    @property
    def _size(self):
        """The length of a row of y, as the networks see it."""
        return self.condition.num_classes or math.prod(self.condition.shape)

    def network_inputs(self, image_shape):
        if self.network == "conv":
            height, width, channels = (*image_shape, 1)[:3]
            seen = (height, width, channels + 1)
        else:
            seen = (math.prod(image_shape) + self._size,)
        return seen, self.latent_dim + self._size

    def _rows(self, y):
        """y as rows of floats, `(batch, size)`."""
        if self.condition.num_classes:
            return ops.one_hot(y, self._size)
        return ops.reshape(ops.cast(y, "float32"), (-1, self._size))

    def encode(self, x, y):
        """q(z|x, y): `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`."""
        rows = self._rows(y)
        if self.network == "conv":
            height, width, channels = (*self.image_shape, 1)[:3]
            x = ops.reshape(x, (-1, height, width, channels))
            channel = ops.reshape(self.channel(rows), (-1, height, width, 1))
            return tuple(self.encoder(ops.concatenate([x, channel], axis=-1)))
        x = ops.reshape(x, (-1, math.prod(self.image_shape)))
        return tuple(self.encoder(ops.concatenate([x, rows], axis=-1)))

    def decode(self, z, y):
        """p(x|z, y): its parameters."""
        return self.decoder(ops.concatenate([z, self._rows(y)], axis=-1))

    def prior(self, y):
        """p(z|y)."""
        if self.learned_prior:
            return Normal(*self.prior_network(self._rows(y)))
        return super().prior(y)

    def terms(self, x, y, training=False):
        """−ELBO and its terms; where the prior is learned, without those that are compared with N(0, I)."""
        terms = super().terms(x, y, training=training)
        unit = ("z_mean", "z_mean_squared", "z_variance") if self.learned_prior else ()
        return {name: term for name, term in terms.items() if name not in unit}

    def get_config(self):
        condition = dataclasses.asdict(self.condition)
        return {**super().get_config(), "condition": condition, "learned_prior": self.learned_prior}
