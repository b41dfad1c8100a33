"""What the tests of `compress` share: a VAE that is not trained, and binary images."""

import numpy as np

from vae_tf import VAE

SHAPE = (4, 4, 1)


def linear_vae(shape=SHAPE, seed=0, **kwargs):
    """A VAE whose codes say something of the images, without training."""
    model = VAE(2, hidden_units=(), seed=seed, **kwargs)
    model.build((None, *shape))
    random, pixels = np.random.default_rng(seed), int(np.prod(shape))
    up = np.concatenate([random.normal(0, 0.4, (pixels, 2)), np.zeros((pixels, 2))], axis=1)
    head = model.encoder.get_layer("z_mean_and_log_var")
    head.set_weights([up, np.array([0.2, -0.1, -2.0, -3.0])])
    output = next(layer for layer in model.decoder.layers if layer.name == "logits")
    output.set_weights([random.normal(0, 2, (2, pixels)), random.normal(size=pixels)])
    return model


def binary(count, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random((count, *shape)) < 0.4
