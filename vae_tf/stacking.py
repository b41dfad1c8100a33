"""A deep network begun from denoising autoencoders, a layer at a time (Vincent et al. 2010)."""

import keras

from vae_tf import data, random
from vae_tf.errors import check_positive_int, invalid
from vae_tf.models.autoencoder import DenoisingAutoencoder
from vae_tf.models.two_networks import check_widths


def pretrain_stack(
    x,
    hidden_units=(1000, 1000, 1000),
    levels=(0.1, 0.2, 0.3),
    corruption="masking",
    epochs=15,
    batch_size=100,
    learning_rate=1e-3,
    seed=None,
    callbacks=(),
    verbose="auto",
):
    """Train a `DenoisingAutoencoder` of one sigmoid layer for each width, on the codes of the one before it.

    Args:
        x: images for the first layer; the next see the codes of clean images, `(N, units)`.
        hidden_units: the layers' widths.
        levels: of the corruption, one a layer.
        corruption: "masking", "gaussian" or "salt_and_pepper".
        epochs: passes over the images, of each layer; 0 leaves the initial weights.
        batch_size, callbacks, verbose: as for Keras's `fit`.
        learning_rate: Adam's.
        seed: a non-negative integer that fixes all layers.

    Returns:
        The list of models, compiled; `stacked_classifier` makes one network of their encoders.

    Raises:
        ValueError, TypeError: an argument makes no sense, or there is not one level for each layer.

    Example:
        >>> stack = pretrain_stack(x_train, seed=0)  # doctest: +SKIP
        >>> classifier = stacked_classifier(stack, num_classes=10)  # doctest: +SKIP

    Source: Vincent et al. (2010), "Stacked Denoising Autoencoders", section 3.5.
    """
    widths = check_widths("hidden_units", hidden_units)
    levels = levels if hasattr(levels, "__len__") else (levels,)
    if not widths or len(levels) != len(widths):
        expected = f"one level for each of {len(widths)} layers"
        raise invalid("levels", expected, f"levels={tuple(levels)!r}")
    epochs = check_positive_int("epochs", epochs, minimum=0)
    codes, stack = data.check_images(x, "x", (0.0, 1.0)), []
    seeds = [None] * len(widths) if seed is None else random.child_seeds(seed, len(widths))
    for units, level, own_seed in zip(widths, levels, seeds, strict=True):
        model = DenoisingAutoencoder(
            units, (), corruption=corruption, corruption_level=level, code_activation="sigmoid",
            kernel_initializer="glorot_uniform", seed=own_seed,
        )  # fmt: skip
        model.build((None, *codes.shape[1:]))
        model.compile(keras.optimizers.Adam(learning_rate))
        if epochs:
            options = {"callbacks": list(callbacks), "verbose": verbose}
            model.fit(codes, epochs=epochs, batch_size=batch_size, **options)
        stack.append(model)
        if len(stack) < len(widths):
            codes = model.code(codes)
    return stack


def stacked_classifier(stack, num_classes):
    """One network of a stack's encoders, with a softmax layer of classes on top, to be fine-tuned.

    It shares its weights with the stack. It takes floats in [0, 1], as `x / 255` of bytes.

    Args:
        stack: from `pretrain_stack`.
        num_classes: how many labels there are.

    Returns:
        A `keras.Model` from images to probabilities, `(batch, num_classes)`, not compiled.

    Example:
        >>> classifier.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])  # doctest: +SKIP
        >>> classifier.fit(x_train / 255, y_train, epochs=36)  # doctest: +SKIP
    """
    if not stack:
        raise invalid("stack", "at least one model, from `pretrain_stack`", repr(stack))
    num_classes = check_positive_int("num_classes", num_classes, minimum=2)
    hidden = inputs = keras.Input(stack[0].image_shape, name="x")
    for number, model in enumerate(stack, 1):
        layer = keras.Model(model.encoder.input, model.encoder.output, name=f"encoder_{number}")
        hidden = layer(hidden)
    outputs = keras.layers.Dense(
        num_classes, "softmax", kernel_initializer="zeros", name="classes"
    )(hidden)
    return keras.Model(inputs, outputs, name="classifier")
