"""Walks in the space of codes: around an image, between two, along what tells two groups apart."""

import numpy as np

from vae_tf import paths
from vae_tf.applications.sources import source_of
from vae_tf.errors import check_non_negative, check_positive_int, invalid
from vae_tf.evaluation.estimates import check_seed
from vae_tf.layers import Noise, PerImage, drawing


def around(source, x, num=8, scale=1.0, seed=0, condition=None):
    """Variations of images: z' = μ + scale·σ·ε with ε ~ N(0, I), decoded.

    With scale 1, z' is a draw from q(z|x): codes that the model takes for the image. Larger scales
    go further from it.

    Args:
        source: whatever `source_of` takes that has a Gaussian q(z|x), and decodes.
        x: images `(N, *image_shape)`.
        num: variations of each.
        scale: of the noise, 0 or more.
        seed: fixes variation k of image i, whatever the others are.
        condition: of a model that has conditions: one for each image, or one for all.

    Returns:
        Floats, `(N, num, *image_shape)`.

    Raises:
        ValueError, TypeError: an argument makes no sense, or the source has no σ.

    Example:
        >>> around("runs/digits_default_z5", x_test[:3], num=4).shape  # doctest: +SKIP
        (3, 4, 8, 8, 1)

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", section 2.4.
    """
    source = source_of(source)
    source.needs("posterior", "variations around an image")
    num = check_positive_int("num", num)
    z_mean, z_log_var = source.posterior(x, condition)
    scale = check_non_negative("scale", scale) * np.exp(0.5 * z_log_var)
    with drawing(PerImage(check_seed(seed), np.arange(len(x)))):
        noise = np.asarray(Noise(seed=0).normal(z_mean.shape, num))
    return _decoded(source, np.swapaxes(z_mean + scale * noise, 0, 1), condition)


def path(source, start, end, num=8, kind="straight", condition=None):
    """Images along a path between the codes of two images, both ends included.

    Args:
        source: whatever `source_of` takes that encodes and decodes.
        start, end: one image each, `image_shape`.
        num: how many images.
        kind: "straight" or "spherical"; see `vae_tf.paths`. With N(0, I) as prior a spherical path
            stays where the codes are, while the middle of a straight one is nearer to 0 than any code.
        condition: one for all, of a model that has conditions.

    Returns:
        Floats, `(num, *image_shape)`.

    Raises:
        ValueError, TypeError: an argument makes no sense, or the source cannot encode.

    Example:
        >>> path("runs/digits_default_z5", x_test[0], x_test[1], 5).shape  # doctest: +SKIP
        (5, 8, 8, 1)

    Source: Shoemake (1985); White (2016), "Sampling generative networks", for the spherical path.
    """
    source = source_of(source)
    source.needs("encode", "a path between images")
    num = check_positive_int("num", num, minimum=2)
    ends = np.concatenate([source.checked(np.asarray(image)[None]) for image in (start, end)])
    one, other = source.encode(ends, condition)
    return source.decode(paths.between(one, other, num, kind), condition)


def attribute_vector(source, without, having, condition_without=None, condition_having=None):
    """What tells two groups of images apart: the mean code of one minus the mean code of the other.

    Args:
        source: whatever `source_of` takes that encodes.
        without, having: images of each group, as many as there are of each.
        condition_without, condition_having: theirs, of a model that has conditions.

    Returns:
        The vector from the first group to the second, in the shape of a code.

    Example:
        >>> to_8 = attribute_vector(vae, x[y == 3], x[y == 8])  # doctest: +SKIP
        >>> with_attribute(vae, x[y == 3][:5], to_8, (0, 0.5, 1)).shape  # doctest: +SKIP
        (5, 3, 8, 8, 1)

    Source: Larsen et al. (2016), "Autoencoding beyond pixels using a learned similarity metric".
    """
    source = source_of(source)
    source.needs("encode", "an attribute")
    groups = ((without, condition_without), (having, condition_having))
    first, second = (source.encode(x, condition).mean(axis=0) for x, condition in groups)
    return second - first


def with_attribute(source, x, vector, strengths, condition=None):
    """Images with an attribute added to their codes: z + strength·vector, decoded.

    Args:
        source: whatever `source_of` takes that encodes and decodes.
        x: images `(N, *image_shape)`.
        vector: from `attribute_vector`.
        strengths: numbers; 0 is the reconstruction, and a negative one takes the attribute away.
        condition: of a model that has conditions: one for each image, or one for all.

    Returns:
        Floats, `(N, number of strengths, *image_shape)`.
    """
    source = source_of(source)
    z = source.encode(x, condition)
    if np.shape(vector) != z.shape[1:]:
        raise invalid(
            "vector", f"one of shape {z.shape[1:]}, as a code", f"shape {np.shape(vector)}"
        )
    steps = np.reshape(strengths, (-1, *(1 for _ in z.shape[1:])))
    return _decoded(source, z[:, None] + np.float32(steps) * vector, condition)


def _decoded(source, z, condition):
    """Images of codes `(N, num, *latent_shape)`, with a condition for each of the N, or one for all."""
    count, num = z.shape[:2]
    if np.ndim(condition) and len(condition) == count:
        condition = np.repeat(condition, num, axis=0)
    images = source.decode(z.reshape(-1, *z.shape[2:]), condition)
    return images.reshape(count, num, *images.shape[1:])
