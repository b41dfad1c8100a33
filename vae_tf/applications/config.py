"""What the commands of the applications can be asked for: each field is an option.

A class for each command, all with the fields of `SourceConfig`. Nothing here imports NumPy or Keras,
so that the command's help is quick.
"""

import argparse
import dataclasses
import functools

from vae_tf.data import BINARIZE
from vae_tf.errors import as_typed, check_choice, check_non_negative, check_positive_int, invalid
from vae_tf.options import argument, check_fields, integers, names, option
from vae_tf.training.config import TrainConfig

at_least_0 = functools.partial(check_positive_int, minimum=0)
CORRUPTIONS = ("masking", "gaussian", "salt_and_pepper")


def floats(text):
    """'0.1,0.5' to a tuple of numbers: what `parse` may be."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        words = f"expected numbers such as 0.1,0.5. Received: {text!r}"
        raise argparse.ArgumentTypeError(words) from None


def some_of(*choices):
    """A check of a tuple: each of its parts is one of the choices."""
    return lambda name, values: tuple(check_choice(name, value, choices) for value in values)


def _indices(name, values):
    return tuple(at_least_0(name, value) for value in values)


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Which model, which images, and where the report goes.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.
    """

    source: str = argument(
        "a run directory, a SavedModel, a directory of its versions, or a server: http://localhost:8501",
        metavar="RUN_OR_SAVED_MODEL_OR_URL",
    )
    dataset: str | None = option(
        None, "images by name", metavar="NAME", default_text="the run's", group="source"
    )
    data: str | None = option(
        None,
        "your own images: a .npz or .npy file, or a folder",
        metavar="PATH",
        default_text="the run's",
        group="source",
    )
    split: str = option("test", "which of the images", choices=("test", "train"), metavar="NAME")
    binarize: str | None = option(
        None,
        "'dynamic' draws binary images by the seed, 'fixed' takes the one draw of all runs, 'none' "
        "keeps them",
        choices=BINARIZE,
        metavar="HOW",
        default_text="as the run was trained; none of others",
    )
    images: int | None = option(
        None,
        "only the first N images",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="all",
    )
    seed: int = option(0, "fixes every draw", parse=int, metavar="N", check=at_least_0)
    out: str | None = option(
        None,
        "the report's directory, which must not exist",
        metavar="DIR",
        default_text="RUN/<command>, or ./<command>, then numbered",
    )
    model: str = option("vae", "the model's name on a server", metavar="NAME")
    trust_model: bool = option(
        False, "run a SavedModel with operations that vae-tf verify-export refuses"
    )

    def __post_init__(self):
        check_fields(self)


def _labels(text):
    return tuple(part.strip() for part in text.split(","))


def _rate(name, value):
    if not 0 < value < 1:
        raise invalid(name, "a number above 0 and below 1", as_typed(name, value))
    return value


SCORES = ("reconstruction_error", "negative_elbo", "reconstruction_probability", "nll")


def _scores(name, value):
    if unknown := set(value) - set(SCORES):
        raise invalid(name, f"some of {', '.join(SCORES)}", ", ".join(sorted(unknown)) or "none")
    return tuple(dict.fromkeys(value))


@dataclasses.dataclass(frozen=True)
class AnomalyConfig(SourceConfig):
    """What `vae-tf anomaly` takes."""

    anomalous: tuple[str, ...] | None = option(
        None, "images with these labels are the anomalies", parse=_labels, metavar="LABEL,..."
    )
    anomalies: str | None = option(
        None,
        "a folder, .npz or .npy file of anomalies, beside normal images",
        metavar="PATH",
    )
    false_alarms: float | None = option(
        None,
        "choose a threshold above which at most this share of normal images is, on half of them, and "
        "keep it with the SavedModel or the run",
        parse=float,
        metavar="RATE",
        check=_rate,
    )
    threshold: str | None = option(
        None,
        "the SavedModel, the run or the anomaly.json whose threshold flags images",
        metavar="PATH",
        default_text="the model's own",
    )
    scores: tuple[str, ...] | None = option(
        None,
        f"some of {', '.join(SCORES)}; the threshold is of the first",
        parse=names,
        metavar="NAME,...",
        check=_scores,
        default_text="what the model gives",
    )
    num_samples: int | None = option(
        None,
        "draws of z an image",
        parse=int,
        metavar="K",
        check=check_positive_int,
        default_text="10; 100 for nll",
    )


@dataclasses.dataclass(frozen=True)
class DenoiseConfig(SourceConfig):
    """What `vae-tf denoise` takes."""

    corruption: tuple[str, ...] = option(
        CORRUPTIONS,
        f"some of {', '.join(CORRUPTIONS)}",
        parse=names,
        metavar="NAME,...",
        check=some_of(*CORRUPTIONS),
        default_text="all",
    )
    level: tuple[float, ...] = option(
        (0.5,),
        "how strong: the share of the pixels, or gaussian's standard deviation",
        parse=floats,
        metavar="X,...",
        default_text="0.5",
    )


@dataclasses.dataclass(frozen=True)
class InpaintConfig(SourceConfig):
    """What `vae-tf inpaint` takes."""

    images: int | None = option(
        100, "the first N images", parse=int, metavar="N", check=check_positive_int
    )
    mask: str = option(
        "left",
        "what is missing: left, right, top, bottom, centre, random:0.5, or a .npy file of booleans",
        metavar="MASK",
    )
    num: int | None = option(
        None,
        "completions of an image",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="5; 1 of a model without noise",
    )
    steps: int = option(
        100, "steps of each completion's chain", parse=int, metavar="N", check=check_positive_int
    )


@dataclasses.dataclass(frozen=True)
class ClusterConfig(SourceConfig):
    """What `vae-tf cluster` takes."""

    num_clusters: int | None = option(
        None,
        "how many",
        parse=int,
        metavar="N",
        check=functools.partial(check_positive_int, minimum=2),
        default_text="as many as there are labels",
    )
    method: tuple[str, ...] = option(
        ("kmeans", "mixture"),
        "kmeans, mixture (of Gaussians), or both",
        parse=names,
        metavar="NAME,...",
        check=some_of("kmeans", "mixture"),
        default_text="both",
    )
    covariance: str = option(
        "full",
        "of the mixture: 'diag' or 'spherical' for long codes",
        choices=("full", "tied", "diag", "spherical"),
        metavar="KIND",
    )
    projection: str = option(
        "pca",
        'the picture\'s plane: principal components, or UMAP (pip install "vae_tf[umap]")',
        choices=("pca", "umap"),
    )


@dataclasses.dataclass(frozen=True)
class VariationsConfig(SourceConfig):
    """What `vae-tf variations` takes."""

    kind: str = option(
        "around",
        "around images, along paths between them, or with what tells two labels apart added",
        choices=("around", "path", "attribute"),
    )
    index: tuple[int, ...] | None = option(
        None,
        "the numbers of the images, from 0; a path goes from each to the next",
        parse=integers,
        metavar="N,...",
        check=_indices,
        default_text="the first 6 that fit",
    )
    num: int = option(
        8,
        "images of a walk",
        parse=int,
        metavar="N",
        check=functools.partial(check_positive_int, minimum=2),
    )
    scale: float = option(
        1.0,
        "of the noise: z = mean + scale * sigma * noise",
        parse=float,
        metavar="X",
        check=check_non_negative,
        needs={"kind": ("around",)},
    )
    from_label: str | None = option(
        None, "images without the attribute", metavar="LABEL", needs={"kind": ("attribute",)}
    )
    to_label: str | None = option(
        None, "images that have it", metavar="LABEL", needs={"kind": ("attribute",)}
    )
    strengths: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
        "how many times the attribute is added",
        parse=floats,
        metavar="X,...",
        default_text="0 to 1.5",
        needs={"kind": ("attribute",)},
    )


@dataclasses.dataclass(frozen=True)
class CompressConfig(SourceConfig):
    """What `vae-tf compress` takes."""


@dataclasses.dataclass(frozen=True)
class HeldOutConfig(TrainConfig):
    """What `vae-tf held-out` takes: the options of `train`, with which each model is trained, and its own."""

    run: str | None = option(
        None,
        "the directory of the results and the runs; where it is there, it is gone on with",
        metavar="DIR",
        default_text="runs/<data>_held_out",
    )
    labels: tuple[str, ...] | None = option(
        None,
        "which labels to hold out, one at a time",
        parse=_labels,
        metavar="LABEL,...",
        default_text="all",
    )
    components: int = option(
        20, "of PCA, beside the models", parse=int, metavar="N", check=check_positive_int
    )
    images: int | None = option(
        None,
        "score only the first N test images",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="all",
    )
    score_samples: int | None = option(
        None,
        "draws of z an image, of the scores",
        parse=int,
        metavar="K",
        check=check_positive_int,
        default_text="10; 100 for nll",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model == "conditionalvae":
            hint = "A label that it has not seen is no condition for it."
            raise invalid("model", "one without a condition", repr(self.model), hint)

    def training(self):
        """The `TrainConfig` of every model."""
        names = [field.name for field in dataclasses.fields(TrainConfig)]
        return TrainConfig(**{name: getattr(self, name) for name in names} | {"run": None})


@dataclasses.dataclass(frozen=True)
class RetrieveConfig(SourceConfig):
    """What `vae-tf retrieve` takes."""

    k: int = option(
        100, "how many come back for each image", parse=int, metavar="K", check=check_positive_int
    )
    approximate: bool = option(
        False,
        "search an approximate index too (HNSW), and say what it misses; faiss is installed by "
        'pip install "vae_tf[retrieve]"',
    )
    metric: str = option(
        "euclidean",
        "the distance, of codes and of raw pixels: euclidean, or cosine, of which the length does not matter",
        choices=("euclidean", "cosine"),
    )
    index: str | None = option(
        None, "keep the index in this file, or use it where it is there", metavar="FILE"
    )
