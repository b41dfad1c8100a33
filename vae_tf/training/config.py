"""What a training run can be asked for: each field is an option of `vae-tf train`.

To add an option: a field here, the place that uses it, and a row of the README's table.
"""

import dataclasses
import functools

from vae_tf.data import ANY_VALUE, BINARIZE, HOLD_OUT
from vae_tf.errors import InvalidTypeError, check_non_negative, check_positive_int, invalid
from vae_tf.options import check_fields, integers, option

LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic")
NETWORKS = ("dense", "conv")
ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "selu", "sigmoid", "silu", "softplus", "tanh")
# Of Keras's, those that are known without importing it, which takes seconds.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Adam's settings; `decay`: to 0, a cosine; `warmup`: the part of the steps in which β rises.

    The initial weights are those that serve the schedule best on MNIST: without warm-up He's keep
    latent dimensions alive, with it Glorot's end lower. So it is with the output's bias: at the images'
    mean the default ends 0.35 nats lower, and the original 1.7 higher.
    """

    learning_rate: float
    beta_2: float = 0.999
    warmup: float = 0.0
    decay: bool = False
    kernel_initializer: str = "he_uniform"
    output_bias: str = "zeros"

    def optimizer(self, learning_rate, steps, clip_norm=None):
        """Adam from `learning_rate`, over `steps`, on gradients of norm `clip_norm` at most."""
        import keras

        if self.decay:
            learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        return keras.optimizers.Adam(learning_rate, beta_2=self.beta_2, global_clipnorm=clip_norm)


RECIPES = {
    "original": Recipe(1e-3),
    "default": Recipe(
        2e-3, 0.99, 0.3, True, kernel_initializer="glorot_uniform", output_bias="mean"
    ),
}


# Checks of single fields; those of several together are in `TrainConfig.__post_init__`.

_at_least_0 = functools.partial(check_positive_int, minimum=0)
_above_0 = functools.partial(check_non_negative, above=True)


def _fraction(name, value):
    if _above_0(name, value) >= 1:
        raise invalid(name, "a fraction below 1", f"{name}={value}")
    return value


def _seed(name, value):
    if _at_least_0(name, value) >= 2**32:
        raise invalid(name, "an integer below 2**32", f"{name}={value}")
    return value


def _widths(name, value):
    """Widths of layers as a tuple of positive integers; one alone may be given as it is."""
    values = (value,) if hasattr(value, "__index__") else value
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        expected = "a sequence of positive integers, such as (512, 384, 256)"
        raise invalid(name, expected, f"{name}={value!r}", kind=InvalidTypeError)
    return tuple(check_positive_int(name, width) for width in values)


def _filters(name, value):
    if not (filters := _widths(name, value)):
        raise invalid(name, "the filters of at least one layer", f"{name}={value!r}")
    return filters


def _name(name, value):
    from vae_tf.data.sources import check_name

    return check_name(name, value)


def _size(name, value):
    from vae_tf.data.sizes import check_size

    return check_size(name, value)


def _colour(name, value):
    from PIL import ImageColor

    try:
        ImageColor.getrgb(value)
    except (ValueError, AttributeError, TypeError) as error:
        expected = "a colour, such as white, black or #808080"
        raise invalid(name, expected, f"{name}={value!r}") from error
    return value


def _activation(name, value):
    if value in ACTIVATIONS:
        return value
    import keras

    try:
        keras.activations.get(value)
    except ValueError as error:
        raise invalid(name, "a Keras activation, such as relu", f"{name}={value!r}") from error
    return value


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `vae-tf train` takes; `vae-tf train --help` says what each field is.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> TrainConfig(latent_dim=2, steps=500).recipe
        'default'
    """

    dataset: str = option(
        "digits",
        "'digits' (8×8, no download) or an image data set of tensorflow-datasets, such as mnist",
        metavar="NAME",
        check=_name,
        group="source",
    )
    data: str | None = option(
        None, "your own images: a .npz or .npy file, or a folder", metavar="PATH", group="source"
    )
    resize: tuple[int, int] | None = option(
        None,
        "bring the images to N×N, or to a height and a width: scaled until they cover it, and cut to "
        "their centre",
        metavar="N|HxW",
        check=_size,
    )
    background: str | None = option(
        None,
        "the colour behind transparent image files, such as white or #808080; without it they are refused",
        metavar="COLOUR",
        check=_colour,
    )
    binarize: str = option(
        "none",
        "binary images from grey ones: drawn anew each time (dynamic), or once for all runs (fixed)",
        choices=BINARIZE,
    )
    likelihood: str = option(
        "bernoulli",
        "p(x|z): for binary images bernoulli, for grey values continuous_bernoulli or gaussian (one "
        "learned σ), for bytes, grey or in colour, discretized_logistic",
        choices=LIKELIHOODS,
    )
    latent_dim: int | None = option(
        None,
        "the size of the code z",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="10; 5 for digits",
    )
    network: str = option(
        "dense",
        "what the encoder and the decoder are made of: dense or convolutional layers",
        choices=NETWORKS,
    )
    hidden_units: tuple[int, ...] | None = option(
        None,
        "widths of the dense encoder, mirrored by the decoder; 'none' gives a linear model",
        parse=integers,
        metavar="N,N,...",
        check=_widths,
        default_text="512,384,256",
    )
    filters: tuple[int, ...] | None = option(
        None,
        "filters of the convolutional encoder, each layer of which halves the image, mirrored by the "
        "decoder",
        parse=integers,
        metavar="N,N,...",
        check=_filters,
        default_text="32,64,..., until 4 to 7 pixels are left",
    )
    activation: str = option(
        "relu", "activation of the hidden layers, any of Keras's", metavar="NAME", check=_activation
    )
    recipe: str = option(
        "default",
        "the optimizer's settings and the KL's warm-up, together",
        choices=tuple(RECIPES),
    )
    batch_size: int | None = option(
        None,
        "images in a step",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="100, or all where there are fewer",
    )
    epochs: int | None = option(
        None,
        "passes over the training images, instead of --steps",
        parse=int,
        metavar="N",
        check=check_positive_int,
        group="length",
    )
    steps: int | None = option(
        None,
        "gradient steps",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="10000, but no more than 200 epochs",
        group="length",
    )
    learning_rate: float | None = option(
        None,
        "Adam's learning rate",
        parse=float,
        metavar="X",
        check=_above_0,
        default_text="the recipe's",
    )
    clip_norm: float | None = option(
        None,
        "scale the gradients down to X where the norm of all together is above X",
        parse=float,
        metavar="X",
        check=_above_0,
    )
    kl_warmup: int | None = option(
        None,
        "raise the KL's weight β from 0 over so many steps",
        parse=int,
        metavar="STEPS",
        check=_at_least_0,
        default_text="the recipe's",
    )
    beta: float = option(1.0, "what β rises to", parse=float, metavar="X", check=check_non_negative)
    free_bits: float = option(
        0.0,
        "KL that each latent dimension has at no cost",
        parse=float,
        metavar="NATS",
        check=check_non_negative,
    )
    validation: float | None = option(
        None,
        "hold out a part of the training images, and watch it instead of the test images",
        parse=float,
        metavar="FRACTION",
        check=_fraction,
    )
    early_stopping: int | None = option(
        None,
        "stop when so many epochs in a row have not lowered the loss on held-out images (a tenth, where "
        "--validation does not say), and keep the best model",
        parse=int,
        metavar="EPOCHS",
        check=check_positive_int,
    )
    seed: int = option(
        0,
        "fixes weights, noise and order: the same seed gives the same run",
        parse=int,
        metavar="N",
        check=_seed,
    )
    checkpoint_every: int = option(
        1000,
        "steps between checkpoints, of which the last three are kept",
        parse=int,
        metavar="N",
        check=check_positive_int,
    )
    tensorboard: bool = option(
        False,
        "write the epochs' figures for TensorBoard, to RUN/tensorboard; it is installed by "
        'pip install "vae_tf[tensorboard]"',
    )
    run: str | None = option(
        None,
        "the run directory, which must not exist",
        metavar="DIR",
        default_text="runs/<data>_<recipe>_z<latent dim>",
    )

    def __post_init__(self):
        check_fields(self)
        if self.binarize != "none" and self.likelihood != "bernoulli":
            raise invalid("binarize", "'none' where the likelihood is not Bernoulli", self.binarize)
        if self.steps is not None and self.epochs is not None:
            received = f"steps={self.steps}, epochs={self.epochs}"
            raise invalid("steps", "either steps or epochs", received)
        for name, network in (("hidden_units", "dense"), ("filters", "conv")):
            if getattr(self, name) is not None and self.network != network:
                received = f"{name}={getattr(self, name)} with network={self.network!r}"
                raise invalid(name, f"it with network={network!r} alone", received)

    @property
    def value_range(self):
        """The least and the largest value of a pixel that the likelihood takes."""
        return ANY_VALUE if self.likelihood == "gaussian" else (0.0, 1.0)

    @property
    def code_size(self):
        """`latent_dim`, or where it is not given one of which the data leave no dimension unused."""
        digits = self.data is None and self.dataset == "digits"
        return self.latent_dim or (5 if digits else 10)

    @property
    def held_out(self):
        """The fraction of the training images to validate on; None: the test images are watched."""
        if self.validation is None and self.early_stopping:
            return HOLD_OUT
        return self.validation
