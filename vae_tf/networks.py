"""Encoders and decoders: ordinary Keras models, to be looked at, replaced or used alone."""

import itertools
import math

import keras
import numpy as np
from keras import layers, ops

from vae_tf.errors import as_typed, invalid

LAST = "glorot_uniform"  # of the layers that give a distribution's parameters


def dense_encoder(
    image_shape,
    latent_dim,
    hidden_units=(512, 384, 256),
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
    name="encoder",
    heads=("z_mean", "log_var"),
    head_activation=None,
):
    """x -> Dense layers -> (z_mean, z_log_var): the parameters of q(z|x) = N(μ, diag σ²).

    Args:
        image_shape: the shape of one image, without the batch.
        latent_dim: the size of the code.
        hidden_units: the widths of the hidden layers; none at all gives a linear encoder.
        activation: any Keras activation.
        kernel_initializer: of the hidden layers, any Keras initializer; the last one's is Glorot's.
        seed: fixes the initial weights.
        name: of the model, and before those of its layers where it is another.
        heads: names of the outputs; `("code",)` for an encoder without a distribution.
        head_activation: of the outputs.

    Returns:
        A `keras.Model` from `(batch, *image_shape)`, float in [0, 1], to a tensor of shape
        `(batch, latent_dim)` for each of the heads.
    """
    seeds, prefix = seeds_of(seed), "" if name == "encoder" else f"{name}_"
    inputs = keras.Input(tuple(image_shape), name="x")
    hidden = layers.Flatten(name=f"{prefix}flatten")(inputs)
    for index, units in enumerate(hidden_units):
        kernel = with_seed(kernel_initializer, seeds)
        hidden = _dense(units, activation, f"{prefix}hidden_{index}", kernel)(hidden)
    outputs = _heads(hidden, latent_dim, seeds, heads, head_activation, prefix)
    return keras.Model(inputs, outputs, name=name)


def dense_decoder(
    latent_dim,
    output_shape,
    hidden_units=(256, 384, 512),
    activation="relu",
    kernel_initializer="glorot_uniform",
    seed=None,
):
    """z -> Dense layers -> the parameters of p(x|z), unbounded (logits for a Bernoulli).

    Arguments as for `dense_encoder`, widths in the order in which the decoder applies them.

    Args:
        output_shape: what the likelihood needs for an image, `likelihood.parameter_shape(image_shape)`.

    Returns:
        A `keras.Model` from `(batch, latent_dim)` to `(batch, *output_shape)`.
    """
    seeds = seeds_of(seed)
    inputs = keras.Input((latent_dim,), name="z")
    hidden = inputs
    for index, units in enumerate(hidden_units):
        kernel = with_seed(kernel_initializer, seeds)
        hidden = _dense(units, activation, f"decoder_hidden_{index}", kernel)(hidden)
    last = _dense(math.prod(output_shape), None, "logits", with_seed(LAST, seeds))(hidden)
    outputs = layers.Reshape(tuple(output_shape), name="image")(last)
    return keras.Model(inputs, outputs, name="decoder")


def conv_encoder(
    image_shape,
    latent_dim,
    filters=None,
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
    heads=("z_mean", "log_var"),
    head_activation=None,
):
    """x -> 3×3 convolutions of stride 2 -> (z_mean, z_log_var).

    Args:
        image_shape: `(height, width)` or `(height, width, channels)`. Each convolution halves height
            and width, so 2^len(filters) must divide them.
        filters: how many channels each convolution gives; by default `filters_for(image_shape)`.

    The other arguments, and what is returned, as for `dense_encoder`.

    Raises:
        ValueError: images of another shape, or of a size that does not divide.

    Example:
        >>> conv_encoder((28, 28), latent_dim=10).count_params()
        81556

    Source: Radford et al. (2016), "Unsupervised representation learning with deep convolutional
    GANs", section 3, for strides in the place of pooling.
    """
    filters = filters_for(image_shape) if filters is None else filters
    _check_divides("image_shape", image_shape, len(filters))
    seeds = seeds_of(seed)
    inputs = keras.Input(tuple(image_shape), name="x")
    hidden = _halved(inputs, image_shape, filters, activation, kernel_initializer, seeds)
    hidden = layers.Flatten(name="flatten")(hidden)
    outputs = _heads(hidden, latent_dim, seeds, heads, head_activation)
    return keras.Model(inputs, outputs, name="encoder")


def conv_decoder(
    latent_dim,
    output_shape,
    filters=None,
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
):
    """z -> Dense -> transposed 3×3 convolutions of stride 2 -> the parameters of p(x|z).

    The smallest maps have `filters[0]` channels; a last 3×3 convolution of stride 1 gives the
    parameters.

    Args:
        output_shape: `(height, width, ...)`, what the likelihood needs for an image,
            `likelihood.parameter_shape(image_shape)`.
        filters: how many channels each transposed convolution gives; by default those of
            `conv_encoder`, turned round.

    The other arguments as for `conv_encoder`, what is returned as for `dense_decoder`.
    """
    filters = filters_for(output_shape)[::-1] if filters is None else filters
    height, width, *_ = _check_divides("output_shape", output_shape, len(filters))
    seeds, halved = seeds_of(seed), 2 ** len(filters)
    inputs = keras.Input((latent_dim,), name="z")
    smallest = (height // halved, width // halved, filters[0])
    kernel = with_seed(kernel_initializer, seeds)
    hidden = _dense(math.prod(smallest), activation, "smallest_maps", kernel)(inputs)
    hidden = layers.Reshape(smallest, name="maps")(hidden)
    outputs = _doubled(hidden, output_shape, filters, activation, kernel_initializer, seeds)
    return keras.Model(inputs, outputs, name="decoder")


def map_encoder(
    image_shape,
    embedding_dim,
    filters=None,
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
    residual_blocks=2,
):
    """x -> 3×3 convolutions of stride 2 -> residual blocks -> a map of vectors.

    Arguments and errors as for `conv_encoder`.

    Args:
        embedding_dim: the length of a vector.
        residual_blocks: how many follow, each of a 3×3 and a 1×1 convolution.

    Returns:
        A `keras.Model` from `(batch, *image_shape)` to `(batch, height/2^n, width/2^n, embedding_dim)`,
        with n the number of filters.

    Source: van den Oord et al. (2017), section 4.1.
    """
    filters = filters_for(image_shape) if filters is None else filters
    _check_divides("image_shape", image_shape, len(filters))
    seeds = seeds_of(seed)
    inputs = keras.Input(tuple(image_shape), name="x")
    hidden = _halved(inputs, image_shape, filters, activation, kernel_initializer, seeds)
    hidden = _residual(hidden, residual_blocks, activation, kernel_initializer, seeds)
    kernel = with_seed(LAST, seeds)
    vectors = layers.Conv2D(embedding_dim, 1, kernel_initializer=kernel, name="vectors")(hidden)
    return keras.Model(inputs, vectors, name="encoder")


def map_decoder(
    map_shape,
    output_shape,
    filters=None,
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
    residual_blocks=2,
):
    """A map of vectors -> 3×3 convolution -> residual blocks -> transposed convolutions -> parameters of p(x|z).

    Args:
        map_shape: `(height, width, embedding_dim)`.

    The others as for `conv_decoder` and `map_encoder`; what is returned takes `(batch, *map_shape)`.
    """
    filters = filters_for(output_shape)[::-1] if filters is None else filters
    seeds = seeds_of(seed)
    inputs = keras.Input(tuple(map_shape), name="z")
    kernel = with_seed(kernel_initializer, seeds)
    hidden = _conv(layers.Conv2D, filters[0], 1, activation, "maps", kernel)(inputs)
    hidden = _residual(hidden, residual_blocks, activation, kernel_initializer, seeds, "decoder_")
    outputs = _doubled(hidden, output_shape, filters, activation, kernel_initializer, seeds)
    return keras.Model(inputs, outputs, name="decoder")


def filters_for(image_shape):
    """32, 64, 128, 256, ... channels, of as many layers as halve an image down to 4 to 7 pixels.

    Images of other sides than these are halved as often as 2 divides them, and at least once.

    Example:
        >>> filters_for((28, 28)), filters_for((64, 64, 3))
        ((32, 64), (32, 64, 128, 256))
    """
    sides, filters = np.array(image_shape[:2]), [32]
    while np.all(sides % 2 ** (len(filters) + 1) == 0) and min(sides) >> len(filters) > 7:
        filters.append(min(2 * filters[-1], 256))
    return tuple(filters)


def begin_at_mean(decoder, likelihood, images):
    """Set a decoder's output bias, where it is still 0, so that it begins at the images' mean.

    Args:
        decoder: a `dense_decoder` or `conv_decoder`; the bias of the second is one for each channel.
        likelihood: p(x|z), whose own weights, such as a Gaussian's σ, begin at the images' spread.
        images: floats, NumPy `(num, *image_shape)`.

    Source: Burda et al. (2016), whose published program begins so.
    """
    bias = decoder.get_layer("logits").bias
    if np.any(bias):
        return
    shape, pixels = images.shape[1:], likelihood.parameter_shape(images.shape[1:])
    axes = 0 if math.prod(bias.shape) == math.prod(pixels) else (0, 1, 2)
    mean, std = (f(images, axis=axes, keepdims=True)[0] for f in (np.mean, np.std))
    parameters = likelihood.begin(np.broadcast_to(mean, shape), np.broadcast_to(std, shape))
    bias.assign(np.mean(np.reshape(parameters, (-1, *bias.shape)), axis=0))


def _check_divides(argument, shape, halvings):
    """Return the shape, or say which sizes can be halved so often."""
    shape = tuple(shape)
    if len(shape) < 2:
        raise invalid(
            argument,
            "(height, width) or (height, width, channels) for a convolutional network",
            f"{argument}={shape}",
            "Images without height and width need a dense network.",
        )
    step = 2**halvings
    if shape[0] % step or shape[1] % step:
        down = [size // step * step for size in shape[:2]]
        up = [-(-size // step) * step for size in shape[:2]]
        sizes = [f"{h}x{w}" for h, w in (down, up) if h and w]
        nearest = " or ".join(sizes)
        raise invalid(
            argument,
            f"a height and a width that {step} divides, for {halvings} layers of stride 2",
            f"{shape[0]}x{shape[1]}: nearest {nearest}",
            f"Resize the images ({as_typed('resize', sizes[0])}), or take fewer filters.",
        )
    return shape


def _halved(inputs, image_shape, filters, activation, kernel_initializer, seeds):
    """Convolutions of stride 2, each of which halves the image."""
    height, width, *channels = image_shape
    hidden = layers.Reshape((height, width, math.prod(channels)), name="with_channels")(inputs)
    for index, number in enumerate(filters):
        kernel = with_seed(kernel_initializer, seeds)
        hidden = _conv(layers.Conv2D, number, 2, activation, f"conv_{index}", kernel)(hidden)
    return hidden


def _doubled(hidden, output_shape, filters, activation, kernel_initializer, seeds):
    """Transposed convolutions of stride 2, each of which doubles the maps, and the parameters of p(x|z)."""
    for index, number in enumerate(filters):
        kernel, name = with_seed(kernel_initializer, seeds), f"transposed_{index}"
        hidden = _conv(layers.Conv2DTranspose, number, 2, activation, name, kernel)(hidden)
    kernel, channels = with_seed(LAST, seeds), math.prod(output_shape[2:])
    last = _conv(layers.Conv2D, channels, 1, None, "logits", kernel)(hidden)
    return layers.Reshape(tuple(output_shape), name="image")(last)


def _residual(hidden, blocks, activation, kernel_initializer, seeds, prefix=""):
    """Blocks h + conv 1×1(conv 3×3(h)), whose last convolution begins at 0."""
    units = hidden.shape[-1]
    for index in range(blocks):
        kernel, name = with_seed(kernel_initializer, seeds), f"{prefix}residual_{index}"
        inner = _conv(layers.Conv2D, units, 1, activation, name, kernel)(hidden)
        last = layers.Conv2D(units, 1, kernel_initializer="zeros", name=f"{name}_out")
        hidden = layers.add([hidden, last(inner)])
    return hidden


def _heads(hidden, latent_dim, seeds, names, activation, prefix=""):
    """The outputs of an encoder, from one matrix product; one alone is no list."""
    name, units = f"{prefix}{'_and_'.join(names)}", len(names) * latent_dim
    together = _dense(units, activation, name, with_seed(LAST, seeds))(hidden)
    return ops.split(together, len(names), axis=-1) if len(names) > 1 else together


def _dense(units, activation, name, kernel):
    return layers.Dense(units, activation=activation, kernel_initializer=kernel, name=name)


def _conv(kind, filters, strides, activation, name, kernel):
    return kind(
        filters,
        kernel_size=3,
        strides=strides,
        padding="same",
        data_format="channels_last",
        activation=activation,
        kernel_initializer=kernel,
        name=name,
    )


def seeds_of(seed):
    """A seed for each layer's initial weights; endless Nones where `seed` is None."""
    if seed is None:
        return itertools.repeat(None)
    return map(int, np.random.SeedSequence(seed).generate_state(99))


def with_seed(initializer, seeds):
    """An initializer of one layer's own, with the next of the seeds."""
    initializer = keras.initializers.get(initializer)
    config, seed = initializer.get_config(), next(seeds)
    config |= {"seed": seed} if "seed" in config else {}
    return type(initializer).from_config(config)
