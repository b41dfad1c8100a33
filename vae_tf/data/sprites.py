"""Sprites: white shapes on black whose factors are known, after dSprites; drawn here, not downloaded.

Every combination of five factors is one image of 32×32 binary pixels (bytes 0 and 255):

    shape     square, ellipse, heart
    size      4 values; half the square's side is 4.25 to 6.5 pixels, and the others' areas are near the square's
    rotation  6 values, 0° to 75°
    x, y      13 values each, a pixel apart

A square looks the same after 90°, an ellipse after 180°. dSprites turns all shapes by 360°, so that different
factors there give the same image, and no code can tell them apart. Here all turn by less than 90°: each
combination gives an image of its own.
"""

import numpy as np

from vae_tf.data.images import split

SIDE = 32
SHAPES = ("square", "ellipse", "heart")
SIZES = np.linspace(4.25, 6.5, 4)
ROTATIONS = np.arange(6) * np.pi / 12
POSITIONS = np.arange(-6, 7)  # of the centre, from the image's
NAMES = ("shape", "size", "rotation", "x", "y")
CATEGORICAL = (0,)
TEST = 0.2  # of the images


def load_sprites():
    """`Images` of all 12,168 sprites, a fifth of them to test on, with their factors.

    `factors_train` and `factors_test` are integers `(N, 5)`, the number of each factor's value; the labels are
    the shapes'.

    Source: Matthey et al. (2017), "dSprites: disentanglement testing sprites dataset", whose factors these are.
    """
    factors = np.indices([len(v) for v in (SHAPES, SIZES, ROTATIONS, POSITIONS, POSITIONS)])
    factors = factors.reshape(len(NAMES), -1).T
    factors = np.random.default_rng(0).permutation(factors)  # the first few are of all kinds
    return split("sprites", draw(factors), factors[:, 0], TEST, factors, NAMES, CATEGORICAL)


def draw(factors):
    """Sprites `(N, 32, 32, 1)`, bytes 0 and 255, by the numbers of their factors' values `(N, 5)`.

    x counts from left to right, y from top to bottom, and rotation is counterclockwise.

    Example:
        >>> heart = draw(np.array([[2, 3, 0, 6, 6]]))
    """
    images = np.zeros((len(factors), SIDE, SIDE, 1), np.uint8)
    pixels = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    for row, (shape, size, rotation, x, y) in enumerate(factors):
        across = (pixels - POSITIONS[x])[None, :]
        up = (POSITIONS[y] - pixels)[:, None]
        cos, sin = np.cos(ROTATIONS[rotation]), np.sin(ROTATIONS[rotation])
        u = (cos * across + sin * up) / SIZES[size]
        v = (cos * up - sin * across) / SIZES[size]
        images[row, ..., 0] = 255 * INSIDE[SHAPES[shape]](u, v)
    return images


def _heart(u, v):
    """The sextic (u² + v² − 1)³ = u²v³, scaled into the square's height."""
    u, v = 0.95 * u, 0.95 * v + 0.1
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


INSIDE = {
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 1,
    "ellipse": lambda u, v: (u / 1.4) ** 2 + (v / 0.8) ** 2 <= 1,
    "heart": _heart,
}  # of a shape at the origin whose size is 1
