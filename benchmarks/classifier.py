"""A classifier of MNIST's digits, which judges samples."""

import keras
from keras import layers


def classifier(images, file, epochs=4):
    """`(model, accuracy on the test images)`; the model gives the ten probabilities of images in [0, 1].

    Args:
        images: `vae_tf.Images`, bytes with labels.
        file: a `pathlib.Path` ending in .keras, where it is kept and looked for.
    """
    if file.exists():
        model = keras.models.load_model(file)
    else:
        model = _trained(images, epochs)
        model.save(file)
    _, accuracy = model.evaluate(images.x_test / 255.0, images.y_test, verbose=0)
    if accuracy < 0.98:
        raise SystemExit(
            f"The classifier is right in {accuracy:.1%} of the test images, which is too few."
        )
    return model, accuracy


def _trained(images, epochs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input(images.image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images.x_train / 255.0, images.y_train, batch_size=128, epochs=epochs, verbose=0)
    return model
