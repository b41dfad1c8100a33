"""Models as a user would write them, for the tests of export and serving."""

import json
import math

import keras
from keras import ops

from vae_tf import VAE, Condition, Gaussian, Model
from vae_tf.distributions import Normal

PACKAGE = keras.saving.register_keras_serializable(package="tests")


@PACKAGE
class Labelled(VAE):
    """A class moves the code before it is decoded, and the code that is found."""

    condition = Condition("label", num_classes=4)

    def build(self, input_shape):
        self.shift = keras.layers.Embedding(4, self.latent_dim, "random_normal")
        self.shift.build((None,))
        super().build(input_shape)

    def encode(self, x, label):
        z_mean, z_log_var = self.encoder(x)
        return z_mean - 9 * self.shift(label), z_log_var

    def decode(self, z, label):
        return self.decoder(z + 9 * self.shift(label))


@PACKAGE
class Turned(VAE):
    """A condition of another name, shape and type: two angles."""

    condition = Condition("angles", shape=(2,), dtype="float64")

    def decode(self, z, angles):
        return self.decoder(z + ops.cast(angles, "float32"))


@PACKAGE
class Autoencoder(Model):
    """Without noise, a prior or a bound: codes are numbers that no distribution is claimed of."""

    latent_dim = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = Gaussian(1.0)

    def build(self, input_shape):
        self.encoder = keras.Sequential(
            [keras.Input(input_shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        self.decoder = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(math.prod(input_shape[1:])),
                keras.layers.Reshape(input_shape[1:]),
            ]
        )
        super().build(input_shape)

    def terms(self, x, training=False):
        return {"loss": -self.likelihood.log_prob(self.decode(self.encode(x)), x)}

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)


@PACKAGE
class TwoLayers(Autoencoder):
    """z₂ ~ N(0, I), z₁ ~ N(W z₂, e^−2 I), x ~ p(x|z₁); q(z₁|x) and q(z₂|z₁) have variance e^−2 too."""

    def build(self, input_shape):
        self.down, self.up = keras.layers.Dense(3), keras.layers.Dense(2)
        self.down.build((None, 2))
        self.up.build((None, 3))
        super().build(input_shape)

    def log_weights(self, x, num_samples):
        z1, log_q1 = Normal(self.encode(x), -2.0).sample_with_log_prob(self.noise, num_samples)
        q2 = Normal(self.up(z1), -2.0)
        z2 = q2.mean() + ops.exp(-1.0) * self.noise.normal(x[:, 0, :2, 0], num_samples)
        log_p = Normal(0.0, 0.0).log_prob(z2) + Normal(self.down(z2), -2.0).log_prob(z1)
        pixels = ops.reshape(self.decode(ops.reshape(z1, (-1, 3))), (-1, *self.image_shape))
        many = ops.reshape(ops.broadcast_to(x, (num_samples, *ops.shape(x))), ops.shape(pixels))
        log_x = ops.reshape(self.likelihood.log_prob(pixels, many), ops.shape(log_q1))
        return log_x + log_p - log_q1 - q2.log_prob(z2)

    def terms(self, x, training=False):
        return {"loss": -self.log_weights(x, 1)[0]}

    def sample_prior(self, num):
        z2 = self.noise.normal((num, 2))
        return self.down(z2) + ops.exp(-1.0) * self.noise.normal((num, 3))


def save_run(model, folder):
    """What `load_run` needs of a run directory."""
    shape = list(model.image_shape)
    record = {
        "config": {"dataset": "digits", "data": None, "seed": 0},
        "data": {"name": "digits", "image_shape": shape, "train": 1, "test": 1, "sha256": ""},
        "steps": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(record))
    model.save(folder / "model.keras")
    return folder
