"""The measures of a model: one table, which `evaluate` goes through.

To add one: an estimator in a file of this folder, its part of the report in `sections.py`, a row here,
and a row of the README. Nothing here imports NumPy or Keras, so that the command's help is quick.
"""

import dataclasses
import functools
from collections.abc import Callable

from vae_tf import evaluation, plots
from vae_tf.errors import check_choice, check_positive_int, invalid
from vae_tf.evaluation import sections
from vae_tf.evaluation.report import Section, write
from vae_tf.evaluation.subject import Subject


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why a measure does not apply: a sentence for the report, and the parts of the error."""

    why: str
    expected: str
    received: str
    hint: str = ""
    argument: str = "measures"

    @property
    def error(self):
        return invalid(self.argument, self.expected, self.received, self.hint)


@dataclasses.dataclass(frozen=True)
class Measure:
    """A row of the table.

    name, title: its name for `--measures`, and the heading of its part of the report.
    missing: a function of a `Subject`: None, or what is `Missing`.
    compute: a function of a `Subject` and of `progress(done, total)`.
    section: from the `Subject` and what was computed to the part of `metrics.json` and a `Section`.
    """

    name: str
    title: str
    missing: Callable
    compute: Callable
    section: Callable


def _likelihood_missing(subject):
    model = subject.model
    if model.log_weights is None:
        name = type(model).__name__
        expected = "a model with `log_weights`, for 'likelihood'"
        return Missing(f"{name} has no `log_weights`, so no log p(x).", expected, name)
    conditions = () if subject.condition is None else (subject.condition,)
    if model.prior is not None and (why := evaluation.why_no_prior(model, conditions)):
        return Missing(f"{why}.", "a model with a prior, for 'likelihood'", why)
    if subject.in_support:
        return None
    if model.likelihood.support.kind == "binary":
        return Missing(
            "the images have grey values, on which a Bernoulli's figure is no log-likelihood. On binary "
            "draws of them it is (--binarize dynamic or fixed, vae_tf.data.binarize); a model with the "
            "likelihood continuous_bernoulli has one of grey values.",
            "binary images for a log-likelihood: on grey values a Bernoulli's figure is none",
            "grey values",
            "Give --binarize dynamic or fixed, or train with --likelihood continuous_bernoulli; or "
            "leave out --num-samples and the measure 'likelihood'.",
            argument="binarize",
        )
    name = type(model.likelihood).__name__
    expected = f"images that p(x|z), a {name}, can give"
    return Missing(f"{name} cannot give such images.", expected, "others", argument="data")


def _gap_missing(subject):
    if not subject.own:
        return Missing(
            "the images are others than the run's, whose training images would be needed.",
            "the run's own images, for 'gap'",
            "other images",
        )
    labels = getattr(subject.images, f"y_{subject.other_split}")
    if subject.model.condition is not None and labels is None:
        why = f"the {subject.other_split} images have no labels, the model's condition"
        return Missing(f"{why}.", "labels of both splits, for 'gap'", why)
    return None


def _latent_missing(subject):
    why = evaluation.why_not_latent(subject.model, subject.x, subject.condition)
    expected = "a model with a normal posterior of a vector and the prior N(0, I), for 'latent'"
    return why and Missing(f"{why}.", expected, why)


def _codes_missing(subject):
    if subject.model.codes is not None:
        return None
    name = type(subject.model).__name__
    expected = "a model with discrete codes (`codes`), for 'codes'"
    return Missing(f"the codes of a {name} are not discrete.", expected, name)


def _reconstruction(subject, progress):
    errors = evaluation.reconstruction_error(subject.model, subject.x, condition=subject.condition)
    variance = evaluation.pixel_variance(subject.model, subject.images.x_train)
    return errors | ({"mse_over_variance": errors["mse"].scaled(1 / variance)} if variance else {})


def _neighbours_missing(subject):
    images = subject.images
    if subject.split == "train" and len(subject.x) < 2:
        found = "a single training image"
    elif subject.labels is None or images.y_train is None:
        found = "images without labels"
    elif subject.labels.ndim > 1:
        found = f"vectors of {subject.labels.shape[1]} numbers, the model's condition"
    else:
        return None
    expected = "labels of the training images and of those evaluated, for 'neighbours'"
    hint = "Leave it out, or give data with labels."
    return Missing(f"it needs {expected.partition(',')[0]}.", expected, found, hint)


def _neighbours(subject, progress):
    model, images = subject.model, subject.images
    z_train = model.code(images.x_train, condition=subject.train_condition)
    if subject.split == "train":
        z = z_train = z_train[: subject.num_images]
        return evaluation.neighbour_accuracy(z_train, subject.labels, z, subject.labels)
    z = model.code(subject.x, condition=subject.condition)
    return evaluation.neighbour_accuracy(z_train, images.y_train, z, subject.labels)


def _disentanglement_missing(subject):
    why = evaluation.why_no_factors(subject.factors, subject.factor_names)
    if why is None:
        condition = None if subject.condition is None else subject.condition[:1]
        shape = subject.model.code(subject.x[:1], condition=condition).shape[1:]
        if len(shape) != 1 or shape[0] < 2:
            why = f"the code is no vector of two dimensions or more, but of shape {shape}"
    expected = "a vector as the code, and 100 images of known factors, for 'disentanglement'"
    return why and Missing(f"{why}.", expected, why)


def _disentanglement(subject, progress):
    codes = subject.model.code(subject.x, condition=subject.condition)
    factors, categorical = subject.factors, subject.images.categorical
    return {
        "information": evaluation.mutual_information(codes, factors),
        "mig": evaluation.mig(codes, factors),
        "sap": evaluation.sap(codes, factors, categorical, subject.seed),
        "dci": evaluation.dci(codes, factors, subject.seed),
    }


MEASURES = (
    Measure(
        "elbo",
        "Evidence lower bound",
        lambda s: None,
        lambda s, progress: s.terms,
        sections.elbo,
    ),
    Measure(
        "gap",
        "Training images against test images",
        _gap_missing,
        lambda s, progress: {s.split: s.terms, s.other_split: s.other_terms},
        sections.gap,
    ),
    Measure(
        "likelihood",
        "Log-likelihood",
        _likelihood_missing,
        lambda s, progress: evaluation.log_likelihood(
            s.model, s.x, s.num_samples or 5000, s.seed, s.batch_size, progress=progress, condition=s.condition
        ),
        sections.likelihood,
    ),
    Measure(
        "latent",
        "What the code carries",
        _latent_missing,
        lambda s, progress: evaluation.codes(s.model, s.x, condition=s.condition),
        sections.latent,
    ),
    Measure(
        "reconstruction",
        "Reconstruction",
        lambda s: None,
        _reconstruction,
        sections.reconstruction,
    ),
    Measure(
        "codes",
        "Discrete codes",
        _codes_missing,
        lambda s, progress: evaluation.code_usage(s.model, s.x),
        sections.codes,
    ),
    Measure(
        "neighbours",
        "Labels from the codes",
        _neighbours_missing,
        _neighbours,
        sections.neighbours,
    ),
    Measure(
        "disentanglement",
        "One dimension, one factor",
        _disentanglement_missing,
        _disentanglement,
        sections.disentanglement,
    ),
)  # fmt: skip
NAMES = tuple(measure.name for measure in MEASURES)


def check_names(argument, names):
    """Return names of measures as a tuple, or raise if one of them is not in the table."""
    unknown = set(names) - set(NAMES)
    if unknown:
        raise invalid(argument, f"some of {', '.join(NAMES)}", ", ".join(sorted(unknown)))
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. metrics: a dictionary by measure; sections: of the report."""

    metrics: dict
    sections: list

    def write(self, directory, title="Evaluation"):
        """Write `report.md`, `report.html`, `metrics.json` and the pictures into a new directory."""
        return write(directory, title, self.sections, self.metrics)


def evaluate(
    model,
    images,
    split="test",
    measures=None,
    num_images=None,
    num_samples=None,
    batch_size=20,
    seed=0,
    progress=None,
):
    """Every measure of a model that applies to it and to its images.

    Args:
        model: any `vae_tf.Model`, trained. Where it has a condition, the images' labels are that.
        images: `vae_tf.Images`; labels are needed by some measures only.
        split: which of them, "test" or "train".
        measures: names from `MEASURES`; by default all that apply.
        num_images: only the first so many; by default all.
        num_samples: importance samples an image for log p(x), by default 5000.
        batch_size: images at once for log p(x); changes no figure.
        seed: a non-negative integer that fixes every draw.
        progress: called with a measure's name, what is done and of how much.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: an argument makes no sense, or a measure was asked for that does not apply.

    Example:
        >>> found = evaluate(vae, images, measures=["elbo", "latent"])
        >>> found.write("report")
    """
    check_choice("split", split, ("test", "train"))
    for name, value in {"num_images": num_images, "num_samples": num_samples}.items():
        value is None or check_positive_int(name, value)
    subject = Subject(model, images, split, num_images, num_samples, batch_size, seed)
    return run(subject, check_measures(subject, measures), progress)


def check_measures(subject, asked=None):
    """The rows of the table to go through: those asked for by name, or all.

    Raises:
        ValueError: one that was asked for does not apply.
    """
    condition = subject.model.condition
    if condition is not None:
        if subject.labels is None:
            raise invalid("data", "images with labels, the model's condition", "no labels")
        condition.checked(subject.labels, "data")
    names = NAMES if asked is None else check_names("measures", asked)
    for measure in MEASURES:
        named = asked is not None or (measure.name == "likelihood" and subject.num_samples)
        if named and measure.name in names and (missing := measure.missing(subject)):
            raise missing.error
    return [measure for measure in MEASURES if measure.name in names]


def run(subject, measures, progress=None):
    """The `Evaluation` of a `Subject` by rows of the table; one that does not apply says why."""
    say = progress or (lambda *_: None)
    about = subject.described()
    metrics, parts = {"settings": about}, [sections.about(subject, about)]
    for measure in measures:
        missing = measure.missing(subject)
        if missing:
            parts.append(Section(measure.title, text=f"Not computed: {missing.why}"))
            continue
        say(measure.name, 0, 1)
        result = measure.compute(subject, functools.partial(say, measure.name))
        entry, section = measure.section(subject, result)
        metrics[measure.name] = entry | ({"caveats": section.caveats} if section.caveats else {})
        parts.append(section)
    say("pictures", 0, 1)
    figures = plots.figures(
        subject.model, subject.x, subject.labels, seed=subject.seed, split=subject.split,
        parts=plots.parts_of(subject.images),
    )  # fmt: skip
    return Evaluation(metrics, [*parts, Section("Pictures", figures=figures)])
