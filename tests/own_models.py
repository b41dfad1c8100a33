"""Three models as a user would write them: each the mathematics of its paper, and nothing else."""

import math

import keras
from keras import layers, ops

import vae_tf
from vae_tf.distributions import Normal


@keras.saving.register_keras_serializable(package="own_models")
class ConditionalVAE(vae_tf.VAE):
    """Told of each image's label, one of four, at both ends (Sohn, Lee & Yan 2015)."""

    condition = vae_tf.Condition("label", num_classes=4)

    def build(self, input_shape):
        self.in_image = layers.Embedding(4, math.prod(input_shape[1:]))
        self.in_code = layers.Embedding(4, self.latent_dim)
        self.in_image.build((None,))
        self.in_code.build((None,))
        super().build(input_shape)

    def encode(self, x, label):
        return self.encoder(x + ops.reshape(self.in_image(label), ops.shape(x)))

    def decode(self, z, label):
        return self.decoder(z + self.in_code(label))


# README: your own model
@keras.saving.register_keras_serializable(package="own_models")
class TwoLayerVAE(vae_tf.Model):
    """p(z₂) p(z₁|z₂) p(x|z₁), and q(z₁|x) q(z₂|z₁) (Rezende, Mohamed & Wierstra 2014)."""

    latent_dim = 4  # of z₁, which `decode` takes; z₂ has two numbers

    def build(self, input_shape):
        self.encoder = vae_tf.dense_encoder(input_shape[1:], 4, (64,))
        self.decoder = vae_tf.dense_decoder(4, input_shape[1:], (64,))
        self.up, self.down = layers.Dense(4), layers.Dense(8)
        self.up.build((None, 4))
        self.down.build((None, 2))
        super().build(input_shape)

    def encode(self, x):
        return self.encoder(x)  # (z_mean, z_log_var) of q(z₁|x)

    def decode(self, z):
        return self.decoder(z)

    def sample_prior(self, num):
        z2 = self.noise.normal((num, 2))
        return Normal(*ops.split(self.down(z2), 2, axis=-1)).sample(self.noise)

    def log_weights(self, x, num_samples):
        z1, log_q1 = Normal(*self.encode(x)).sample_with_log_prob(self.noise, num_samples)
        q2 = Normal(*ops.split(self.up(z1), 2, axis=-1))
        z2 = q2.mean() + ops.exp(0.5 * q2.log_var) * self.noise.normal(z1[0, :, :2], num_samples)
        p1 = Normal(*ops.split(self.down(z2), 2, axis=-1))
        pixels = self.decode(ops.reshape(z1, (-1, 4)))
        log_x = self.likelihood.log_prob(pixels, ops.tile(x, [num_samples] + [1] * (x.ndim - 1)))
        log_p = Normal(0.0, 0.0).log_prob(z2) + p1.log_prob(z1)
        return ops.reshape(log_x, ops.shape(log_q1)) + log_p - log_q1 - q2.log_prob(z2)

    def terms(self, x, training=False):
        return {"loss": -self.log_weights(x, 1)[0]}


# README: end


@keras.saving.register_keras_serializable(package="own_models")
class Autoencoder(vae_tf.Model):
    """Without noise and without KL: a code of three numbers; the squared error, if σ is given."""

    latent_dim = 3

    def build(self, input_shape):
        size, image_shape = math.prod(input_shape[1:]), input_shape[1:]
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(3)])
        self.decoder = keras.Sequential([layers.Dense(size), layers.Reshape(image_shape)])
        self.encoder.build(input_shape)
        self.decoder.build((None, 3))
        super().build(input_shape)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def terms(self, x, training=False):
        return {"loss": -self.likelihood.log_prob(self.decode(self.encode(x)), x)}
