"""What `vae-tf evaluate` can be asked for: each field is an option of the command."""

import dataclasses
import functools

from vae_tf.data import BINARIZE
from vae_tf.errors import check_positive_int
from vae_tf.evaluation.measures import NAMES, check_names
from vae_tf.options import argument, check_fields, names, option

_at_least_0 = functools.partial(check_positive_int, minimum=0)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What `vae-tf evaluate` takes; see `vae-tf evaluate --help` for each.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.
    """

    run: str = argument("a run directory", metavar="RUN")
    dataset: str | None = option(
        None, "other images, by name", metavar="NAME", default_text="the run's", group="source"
    )
    data: str | None = option(
        None,
        "other images: a .npz or .npy file, or a folder",
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
        default_text="as the run was trained",
    )
    measures: tuple[str, ...] | None = option(
        None,
        f"some of {', '.join(NAMES)}",
        parse=names,
        metavar="NAME,...",
        check=check_names,
        default_text="what applies",
    )
    num_samples: int | None = option(
        None,
        "importance samples an image for log p(x)",
        parse=int,
        metavar="K",
        check=check_positive_int,
        default_text="5000",
    )
    images: int | None = option(
        None,
        "only the first N images",
        parse=int,
        metavar="N",
        check=check_positive_int,
        default_text="all",
    )
    batch_size: int = option(
        20, "images at once; changes no figure", parse=int, metavar="N", check=check_positive_int
    )
    seed: int = option(0, "fixes every draw", parse=int, metavar="N", check=_at_least_0)
    out: str | None = option(
        None,
        "the report's directory, which must not exist",
        metavar="DIR",
        default_text="RUN/evaluation, then numbered",
    )

    def __post_init__(self):
        check_fields(self)
