"""Scores of how anomalous images are, one an image, the higher the more anomalous: one table.

To add one: a function and a row.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vae_tf.applications.detection import check_finite
from vae_tf.applications.sources import source_of
from vae_tf.errors import InvalidTypeError, InvalidValueError, check_positive_int, invalid
from vae_tf.evaluation.estimates import ROWS, check_seed
from vae_tf.random import child_seeds


@dataclasses.dataclass(frozen=True)
class Asked:
    """Images, and how they are scored: what a score's function takes."""

    source: object
    x: np.ndarray
    condition: object = None
    num_samples: int | None = None
    seed: int = 0
    progress: Callable | None = None

    def tell(self, pass_number, passes):
        """`progress` for one of several passes over the images."""
        if self.progress is None:
            return None
        num = len(self.x)
        return lambda done, _: self.progress(pass_number * num + done, passes * num)


@dataclasses.dataclass(frozen=True)
class Score:
    """A row of the table.

    name, title: its name in calls and files, and in pictures.
    needs: what a `Source` must have for it; needed: all that it takes, in words.
    num_samples: draws of z an image where they are not given; None of a score without noise.
    compute: a function of an `Asked`.
    check: of a source and images; raises what `needs` does not tell.
    """

    name: str
    title: str
    needs: str
    needed: str
    num_samples: int | None
    compute: Callable
    check: Callable = lambda source, x: None


def _reconstruction_error(asked):
    made = asked.source.reconstruct(asked.x, asked.condition, asked.tell(0, 1))
    parts = [slice(start, start + ROWS) for start in range(0, len(asked.x), ROWS)]
    return np.concatenate([squares(asked.x[rows], made[rows]) for rows in parts])


def squares(x, made):
    """The mean square a pixel between images and floats, of which white is 1: `(N,)`."""
    white = 255 if x.dtype == np.uint8 else 1
    difference = x.astype(np.float64) / white - made
    return np.square(difference).reshape(len(x), -1).mean(axis=1)


def _negative_elbo(asked):
    seeds = child_seeds(asked.seed, asked.num_samples)
    total = np.zeros(len(asked.x))
    for number, seed in enumerate(seeds):
        tell = asked.tell(number, len(seeds))
        total -= asked.source.score(asked.x, seed, asked.condition, tell)
    return total / len(seeds)


def _reconstruction_probability(asked):
    source, x = asked.source, asked.source.checked(asked.x)
    given = source.model.condition_rows(asked.condition, len(x))
    z_mean, z_log_var = source.posterior(x, asked.condition)
    random, total = np.random.default_rng(asked.seed), np.zeros(len(x))
    for number in range(asked.num_samples):
        z = z_mean + np.exp(z_log_var / 2) * random.standard_normal(z_mean.shape, np.float32)
        tell = asked.tell(number, asked.num_samples)
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            total[rows] -= _log_prob(source.model, z[rows], x[rows], [c[rows] for c in given])
            tell and tell(min(start + ROWS, len(x)), len(x))
    return total / asked.num_samples


def _log_prob(model, z, x, given):
    """log p(x|z) in nats, NumPy `(N,)`."""
    from keras import ops

    parameters = model.decode(*map(ops.convert_to_tensor, (z, *given)))
    floats = model.to_floats(ops.convert_to_tensor(x))
    return ops.convert_to_numpy(model.likelihood.log_prob(parameters, floats)).astype(np.float64)


def _nll(asked):
    from vae_tf.evaluation import log_likelihood

    found = log_likelihood(
        asked.source.model, asked.x, asked.num_samples, asked.seed, curve=(), progress=asked.progress,
        condition=asked.condition,
    ).per_image  # fmt: skip
    if len(found) < len(asked.x):  # it gives what it has at Ctrl-C
        raise KeyboardInterrupt
    return -found


def _check_posterior(source, x):
    if not source.has("posterior"):
        raise _lacking(source, "reconstruction_probability")


def _check_weights(source, x):
    from vae_tf.evaluation.likelihood import check_support

    if source.model.log_weights is None:
        raise _lacking(source, "nll")
    check_support(source.model, source.checked(x))


_RUN = "the model itself, a run's or a vae_tf.Model"
SCORES = (
    Score(
        "reconstruction_error", "mean square error a pixel", "reconstruct",
        "a model that was exported with its encoder", None, _reconstruction_error,
    ),
    Score(
        "negative_elbo", "−ELBO, nats", "score",
        "a model with a bound of log p(x), exported with its encoder", 10, _negative_elbo,
    ),
    Score(
        "reconstruction_probability", "−E log p(x|z), nats", "model", f"{_RUN}, whose q(z|x) is a normal",
        10, _reconstruction_probability, _check_posterior,
    ),
    Score(
        "nll", "−log p(x), nats", "model", f"{_RUN}, with weights of p(x), and images that p(x|z) can give",
        100, _nll, _check_weights,
    ),
)  # fmt: skip
BY_NAME = {score.name: score for score in SCORES}


def anomaly_scores(
    source, x, names=None, num_samples=None, seed=0, condition=None, progress=None
):  # fmt: skip
    """How anomalous images are, by each of several scores.

    - `reconstruction_error`: the mean square a pixel, (1/D) Σ_d (x_d − x̂_d)², between an image and its
      reconstruction without noise. Every model has it, and PCA.
    - `negative_elbo`: −ELBO in nats, the mean over draws of z.
    - `reconstruction_probability`: −E_q(z|x)[log p(x|z)] in nats, the mean over draws of z (An & Cho
      2015; there with the opposite sign). It needs the model itself, and a normal q(z|x).
    - `nll`: −log p(x) in nats, importance weighted (`evaluation.log_likelihood`). It needs the model itself
      and images that p(x|z) can give.

    Args:
        source: what `source_of` takes. A SavedModel or a server gives the first two.
        x: images.
        names: of the scores wanted; by default all that this source gives of these images.
        num_samples: draws of z an image; by default 10, of `nll` 100.
        seed: fixes them.
        condition: one for each image, of a model that has a condition.
        progress: `progress(name, done, total)`.

    Returns:
        A dictionary from names to arrays `(N,)`.

    Raises:
        ValueError, TypeError: the source has not what a score needs, the images are none for it, or a
            score is not finite.

    Example:
        >>> anomaly_scores(vae, x_test)["reconstruction_error"].argmax()

    Source: An & Cho (2015), "Variational autoencoder based anomaly detection using reconstruction
    probability"; Burda, Grosse & Salakhutdinov (2016), equation 8, for `nll`.
    """
    source, seed = source_of(source), check_seed(seed)
    x = np.asarray(x)
    if num_samples is not None:
        check_positive_int("num_samples", num_samples)
    if names is None:
        names = available(source, x)
    names = check_names("names", names)
    for name in names:
        check_score(source, name, x)
    found = {}
    for name in names:
        tell = None if progress is None else _named(progress, name)
        draws = num_samples or BY_NAME[name].num_samples
        asked = Asked(source, x, condition, draws, seed, tell)
        found[name] = check_finite(name, BY_NAME[name].compute(asked))
    return found


def _named(progress, name):
    return lambda done, total: progress(name, done, total)


def check_names(argument, names):
    """Return names of scores as a tuple, or raise if one of them is none."""
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown or not names:
        raise invalid(argument, f"some of {', '.join(BY_NAME)}", ", ".join(unknown) or "none")
    return tuple(dict.fromkeys(names))


def check_score(source, name, x):
    """Raise if a source cannot give a score of images; the message says what would."""
    score = BY_NAME[name]
    if not source.has(score.needs):
        raise _lacking(source, name)
    score.check(source, x)


def _lacking(source, name):
    hint = "The score 'reconstruction_error' is one that every model has."
    if source.model is None and BY_NAME[name].needs != "model":
        hint = "A model is exported with its encoder by: vae-tf export RUN --with-encoder."
    expected = f"{BY_NAME[name].needed}, for '{name}'"
    return invalid("source", expected, source.name, hint, kind=InvalidTypeError)


def available(source, x):
    """The names of the scores that a source gives of images."""
    return tuple(name for name in BY_NAME if _gives(source, name, x))


def _gives(source, name, x):
    try:
        check_score(source, name, x)
    except (InvalidTypeError, InvalidValueError):
        return False
    return True
