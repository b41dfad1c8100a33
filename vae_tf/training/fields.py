"""The fields of a `TrainConfig` that say what is trained, and on what.

A model's own options are here, and `needs` says which models take one. The constructor of the model
has an argument of the same name.
"""

import dataclasses
import functools

from vae_tf.data import BINARIZE, QUADRANTS
from vae_tf.errors import (
    InvalidTypeError,
    check_choice,
    check_non_negative,
    check_positive_int,
    invalid,
)
from vae_tf.options import integers, option

LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic")
NETWORKS = ("dense", "conv")
ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "selu", "sigmoid", "silu", "softplus", "tanh")
# Of Keras's, those that are known without importing it, which takes seconds.

MODELS = {  # by the name that `--model` has
    name.lower(): name
    for name in (
        "VAE", "BetaVAE", "ConditionalVAE", "IWAE", "HierarchicalVAE", "VQVAE",
        "Autoencoder", "DenoisingAutoencoder", "SparseAutoencoder", "ContractiveAutoencoder",
    )
}  # fmt: skip
_BETA, _CONDITIONAL, _IWAE, _HIERARCHICAL, _VQ, _PLAIN, _DENOISING, _SPARSE, _CONTRACTIVE = (
    {"model": (name,)} for name in [*MODELS][1:]
)


def _some(*needs):
    """The models of several `needs` together."""
    return {"model": tuple(name for each in needs for name in each["model"])}


_VAES = {"model": ("vae", "betavae", "conditionalvae", "iwae")}
_AUTOENCODERS = _some(_PLAIN, _DENOISING, _SPARSE, _CONTRACTIVE)
_VECTOR = _some(_VAES, _AUTOENCODERS)  # whose code is a vector
_KL = _some(_VAES, _HIERARCHICAL)  # whose KL has a weight

at_least_0 = functools.partial(check_positive_int, minimum=0)
above_0 = functools.partial(check_non_negative, above=True)


def widths(name, value):
    """Widths of layers as a tuple of positive integers; one alone may be given as it is."""
    values = (value,) if hasattr(value, "__index__") else value
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        expected = "a sequence of positive integers, such as (512, 384, 256)"
        raise invalid(name, expected, f"{name}={value!r}", kind=InvalidTypeError)
    return tuple(check_positive_int(name, width) for width in values)


def _filters(name, value):
    if not (filters := widths(name, value)):
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


_at_least_2 = functools.partial(check_positive_int, minimum=2)


@dataclasses.dataclass(frozen=True)
class DataFields:
    """Where the images are from, and what becomes of them."""

    dataset: str = option(
        "digits",
        "'digits' (8×8), 'sprites' (32×32, known factors), neither downloaded, or an image data set of "
        "tensorflow-datasets, such as mnist",
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


@dataclasses.dataclass(frozen=True)
class ModelFields(DataFields):
    """What the model is made of, and what it descends."""

    model: str = option(
        "vae",
        "what is trained; README.md has a table of the models",
        choices=tuple(MODELS),
    )
    likelihood: str = option(
        "bernoulli",
        "p(x|z): for binary images bernoulli, for grey values continuous_bernoulli or gaussian (one "
        "learned σ), for bytes, grey or in colour, discretized_logistic",
        choices=LIKELIHOODS,
        needs=_some(_KL, _VQ),
    )
    latent_dim: int | None = option(
        None,
        "the size of the code z",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="10; 5 for digits",
        needs=_VECTOR,
    )
    network: str = option(
        "dense",
        "what the encoder and the decoder are made of: dense or convolutional layers",
        choices=NETWORKS,
        needs=_VECTOR,
    )
    hidden_units: tuple[int, ...] | None = option(
        None,
        "widths of the dense encoder, mirrored by the decoder; 'none' gives a linear model",
        parse=integers,
        metavar="N,N,...",
        check=widths,
        default_text="512,384,256; 256,128 for hierarchicalvae",
        needs=_some(_VECTOR, _HIERARCHICAL),
    )
    filters: tuple[int, ...] | None = option(
        None,
        "filters of the convolutional encoder, each layer of which halves the image, mirrored by the "
        "decoder",
        parse=integers,
        metavar="N,N,...",
        check=_filters,
        default_text="32,64,..., until 4 to 7 pixels are left",
        needs=_some(_VECTOR, _VQ),
    )
    activation: str = option(
        "relu", "activation of the hidden layers, any of Keras's", metavar="NAME", check=_activation
    )
    kl_warmup: int | None = option(
        None,
        "raise the KL's weight β from 0 over so many steps",
        parse=int,
        metavar="STEPS",
        check=at_least_0,
        default_text="the recipe's; 0 for betavae",
        needs=_KL,
    )
    beta: float | None = option(
        None,
        "what β rises to",
        parse=float,
        metavar="X",
        check=check_non_negative,
        default_text="1; 4 for betavae",
        needs=_KL,
    )
    free_bits: float = option(
        0.0,
        "KL that each latent dimension has at no cost",
        parse=float,
        metavar="NATS",
        check=check_non_negative,
        needs=_VAES,
    )
    capacity: float | None = option(
        None,
        "hold the KL at so many nats, instead of a weight β",
        parse=float,
        metavar="NATS",
        check=check_non_negative,
        needs=_BETA,
    )
    capacity_steps: int | None = option(
        None,
        "steps in which the capacity rises from 0",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="all",
        needs=_BETA,
    )
    gamma: float = option(
        1000.0,
        "how strongly the KL is held at the capacity",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs=_BETA,
    )
    learned_prior: bool = option(
        False, "a network of the label gives p(z|y), in the place of N(0, I)", needs=_CONDITIONAL
    )
    quadrants: int | None = option(
        None,
        "predict the rest of an image from 1, 2 or 3 of its quadrants, in the place of labels, with "
        "--learned-prior",
        parse=int,
        metavar="1|2|3",
        check=lambda name, value: check_choice(name, check_positive_int(name, value), QUADRANTS),
        needs=_CONDITIONAL,
    )
    num_samples: int = option(
        5, "draws k of the bound", parse=int, metavar="K", check=check_positive_int, needs=_IWAE
    )
    doubly_reparameterized: bool = option(
        False, "the encoder's gradient of Tucker et al., which has less noise", needs=_IWAE
    )
    latent_dims: tuple[int, ...] | None = option(
        None,
        "sizes of the stochastic layers, from the image upward",
        parse=integers,
        metavar="N,N,...",
        check=widths,
        default_text="16,8",
        needs=_HIERARCHICAL,
    )
    inference: str = option(
        "ladder",
        "how the layers' posteriors are made: from the top down, or from the image up",
        choices=("ladder", "plain"),
        needs=_HIERARCHICAL,
    )
    num_embeddings: int = option(
        128, "codes in the codebook", parse=int, metavar="K", check=_at_least_2, needs=_VQ
    )
    embedding_dim: int = option(
        16,
        "the length of a code's vector",
        parse=int,
        metavar="N",
        check=check_positive_int,
        needs=_VQ,
    )
    commitment_cost: float = option(
        0.25,
        "weight of the distance from the encoder's vectors to their codes",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs=_VQ,
    )
    codebook: str = option(
        "ema",
        "how the codebook learns: by moving averages, or by a loss",
        choices=("ema", "loss"),
        needs=_VQ,
    )
    residual_blocks: int = option(
        2,
        "residual blocks of the encoder, and of the decoder",
        parse=int,
        metavar="N",
        check=at_least_0,
        needs=_VQ,
    )
    prior_steps: int | None = option(
        None,
        "gradient steps of the second phase, which trains the prior over the codes",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="as many as the first has",
        needs=_VQ,
    )
    prior_filters: int = option(
        64,
        "filters of the prior's convolutions",
        parse=int,
        metavar="N",
        check=check_positive_int,
        needs=_VQ,
    )
    prior_layers: int = option(
        6,
        "gated convolutions of the prior",
        parse=int,
        metavar="N",
        check=check_positive_int,
        needs=_VQ,
    )
    error: str = option(
        "cross_entropy",
        "what is made small: the cross-entropy of pixels in [0, 1], or the squared error of any",
        choices=("cross_entropy", "squared_error"),
        needs=_AUTOENCODERS,
    )
    code_activation: str | None = option(
        None,
        "activation of the code, any of Keras's",
        metavar="NAME",
        check=_activation,
        default_text="none; sigmoid for contractiveautoencoder and the kl penalty, relu for l1",
        needs=_AUTOENCODERS,
    )
    weight_decay: float = option(
        0.0,
        "add half of X times the squares of the weights to the loss",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs=_AUTOENCODERS,
    )
    corruption: str = option(
        "masking",
        "what is done to the images that the encoder is shown in training",
        choices=("masking", "gaussian", "salt_and_pepper"),
        needs=_DENOISING,
    )
    corruption_level: float = option(
        0.3,
        "how strong: the share of the pixels, or σ of gaussian",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs=_DENOISING,
    )
    penalty: str = option(
        "kl",
        "what an active code costs: KL(ρ ‖ mean activity), or the sum of the activations",
        choices=("kl", "l1"),
        needs=_SPARSE,
    )
    sparsity: float = option(
        0.05,
        "ρ, the activity that is wanted of a unit of the code",
        parse=float,
        metavar="X",
        check=above_0,
        needs=_SPARSE,
    )
    penalty_weight: float = option(
        0.1,
        "how much the penalty counts: of the code's activity, or of its slopes",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs=_some(_SPARSE, _CONTRACTIVE),
    )
    jacobian: str = option(
        "auto",
        "how the size of the slopes is found; auto: in closed form for one sigmoid layer, otherwise exact",
        choices=("auto", "closed_form", "exact", "projections"),
        needs=_CONTRACTIVE,
    )
    num_projections: int = option(
        1,
        "random directions of --jacobian projections",
        parse=int,
        metavar="K",
        check=check_positive_int,
        needs=_CONTRACTIVE,
    )
