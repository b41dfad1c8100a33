"""Images, from four sources, checked and kept as bytes: digits, sprites | TFDS by name | .npz, .npy | folder.

`load` gives an `Images`: arrays `(N, H, W, C)`, which a model's `fit` takes as they are.
"""

from vae_tf import lazy

EMBEDDED = ("digits", "sprites")  # that come with the installation
CHANNELS = (1, 3, 4)  # of pictures: grey, RGB, RGB with alpha
QUADRANTS = (1, 2, 3)  # of an image, that are given where the rest is predicted
BINARIZE = ("none", "dynamic", "fixed")  # what `--binarize` takes
FIXED_SEED = 0  # of `--binarize fixed`: one draw for all runs
ANY_VALUE = (-float("inf"), float("inf"))  # the range of a Gaussian's pixels
HOLD_OUT = 0.1  # of a user's own images, where they come without a test set

_MODULE_OF = {
    "Images": "images",
    "binarize": "images",
    "hold_out": "images",
    "class_names": "labels",
    "num_classes": "labels",
    "numbered": "labels",
    "check_images": "checks",
    "some": "checks",
    "load": "sources",
    "comes_split": "every",
    "load_every": "every",
    "with_quadrants": "quadrants",
}
__all__ = [
    "ANY_VALUE",
    "BINARIZE",
    "CHANNELS",
    "EMBEDDED",
    "FIXED_SEED",
    "HOLD_OUT",
    "QUADRANTS",
    *_MODULE_OF,
]
__getattr__, __dir__ = lazy.attach(__name__, _MODULE_OF)
