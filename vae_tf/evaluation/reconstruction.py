"""How well the code brings back its image, and its label."""

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf.errors import check_positive_int, invalid
from vae_tf.evaluation.estimates import ROWS, Estimate, at_rows, checked


def reconstruction_error(model, x, batch_size=ROWS, condition=None):
    """How far images are from their reconstructions through the code, without noise.

    Args:
        model: any model that decodes.
        x: images.
        batch_size: images at once.
        condition: one for each image, of a model that has conditions.

    Returns:
        A dictionary of `Estimate`s over the images: `mse`, the mean square a pixel, and −log p(x|z)
        at the code, in nats an image: `cross_entropy` of a Bernoulli, `nll` of another likelihood
        (which of a density changes with the unit of a pixel).
    """
    x, conditions = checked(model, x, condition)
    batch_size = check_positive_int("batch_size", batch_size)
    errors, entropies = [], []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        part = model.to_floats(tf.constant(x[rows]))
        given = tuple(tf.constant(array) for array in at_rows(conditions, rows))
        difference = model.reconstruction(part, *given) - ops.cast(part, "float32")
        square = ops.convert_to_numpy(difference).astype(np.float64) ** 2
        errors.append(square.reshape(len(square), -1).mean(axis=1))
        entropies.append(-_log_prob(model, part, given))
    name = "cross_entropy" if model.likelihood.support.kind == "binary" else "nll"
    pairs = {"mse": errors, name: entropies}
    return {name: Estimate.over(np.concatenate(values)) for name, values in pairs.items()}


def pixel_variance(model, x, batch_size=ROWS):
    """The variance of all pixels of images, as the model has them (bytes as floats in [0, 1])."""
    total = squares = 0.0
    for start in range(0, len(x), batch_size):
        part = model.to_floats(ops.convert_to_tensor(x[start : start + batch_size]))
        part = ops.convert_to_numpy(part).astype(np.float64)
        total, squares = total + part.sum(), squares + np.square(part).sum()
    return float(squares / x.size - (total / x.size) ** 2)


def _log_prob(model, x, conditions):
    """log p(x|z) at the code of x."""
    encoded = model.encode(x, *conditions)
    code = encoded[0] if isinstance(encoded, (tuple, list)) else encoded
    pixels = model.likelihood.distribution(model.decode(code, *conditions))
    return ops.convert_to_numpy(pixels.log_prob(x)).astype(np.float64)


def neighbour_accuracy(z_train, y_train, z, y):
    """How often the nearest training code (Euclidean) has the image's own label.

    Args:
        z_train, y_train: codes, each flattened, and labels to look among.
        z, y: those that are asked. Where they are the training ones, an image's own code is left out.

    Returns:
        An `Estimate` of the fraction.

    Raises:
        ValueError: there are no labels.
    """
    from sklearn.neighbors import NearestNeighbors

    if y_train is None or y is None:
        hint = "Leave `neighbours` out of the measures, or give data with labels."
        raise invalid("y", "labels of the images", "none", hint)
    for points, labels, name in ((z_train, y_train, "y_train"), (z, y, "y")):
        if len(points) != len(labels):
            expected = f"one label for each of {len(points)} codes"
            raise invalid(name, expected, f"{len(labels)} labels")
    finder = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(_flat(z_train))
    asked = None if z is z_train else _flat(z)
    nearest = finder.kneighbors(asked, return_distance=False)[:, 0]
    return Estimate.over(np.asarray(y_train)[nearest] == np.asarray(y))


def _flat(codes):
    return np.reshape(codes, (len(codes), -1))
