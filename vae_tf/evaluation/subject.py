"""What is evaluated: a model, images, and what can be said of both before anything is computed.

NumPy and Keras are imported by what uses them, so that the command's help is quick.
"""

import dataclasses
import functools

GREY, BINARY = "grey values", "binary images"
_OUTSIDE = {"binary": GREY, "bytes": "values between bytes"}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, the images that it is measured on, and how. See `evaluate` for each.

    trained_on: `GREY` or `BINARY`, what a Bernoulli's model was trained on; None where it is not known.
    own: whether the images' training set is what the model was trained on.
    facts: what else is known of the model or the images, by name, for the head of the report.
    """

    model: object
    images: object
    split: str = "test"
    num_images: int | None = None
    num_samples: int | None = None
    batch_size: int = 20
    seed: int = 0
    trained_on: str | None = None
    own: bool = True
    facts: dict = dataclasses.field(default_factory=dict)

    @property
    def x(self):
        return getattr(self.images, f"x_{self.split}")[: self.num_images]

    @property
    def shown(self):
        """The images as pictures show them: parts joined with what is given of them."""
        joined = getattr(self.images, "joined", None)
        return self.x if joined is None else joined(self.x, self.labels)

    @property
    def labels(self):
        labels = getattr(self.images, f"y_{self.split}")
        return None if labels is None else labels[: self.num_images]

    @property
    def factors(self):
        """What is known of how the images were made, `(N, num_factors)`, or None."""
        factors = getattr(self.images, f"factors_{self.split}")
        return None if factors is None else factors[: self.num_images]

    @property
    def factor_names(self):
        count = 0 if self.factors is None else self.factors.shape[1]
        return self.images.factor_names or tuple(f"factor {k + 1}" for k in range(count))

    @property
    def condition(self):
        """Of a model that has one: the images' labels."""
        return None if self.model.condition is None else self.labels

    @property
    def train_condition(self):
        return None if self.model.condition is None else self.images.y_train

    @functools.cached_property  # it looks at every pixel
    def in_support(self):
        """Whether p(x|z) can give such images, so that its figures are log-likelihoods."""
        return self.model.likelihood.support.contains(self.x)

    @property
    def support(self):
        """The kind of values that p(x|z) is about: "binary", "bytes", "interval" or "real"."""
        return self.model.likelihood.support.kind

    @property
    def outside(self):
        """What the images are that p(x|z) cannot give; None of those that it can."""
        return None if self.in_support else _OUTSIDE[self.support]

    @functools.cached_property
    def _elbo(self):
        from vae_tf.evaluation.bound import estimator

        return estimator(self.model, seed=self.seed)

    @functools.cached_property
    def terms(self):
        """What `evaluation.elbo` finds on the images."""
        return self._elbo(self.x, self.condition)

    @property
    def other_split(self):
        return "train" if self.split == "test" else "test"

    @functools.cached_property
    def other_rows(self):
        """As many images of the other split, drawn by the seed: the first may be all of one kind."""
        import numpy as np

        count = len(getattr(self.images, f"x_{self.other_split}"))
        chosen = np.random.default_rng(self.seed).permutation(count)[: len(self.x)]
        return np.sort(chosen)

    @functools.cached_property
    def other_terms(self):
        """What `evaluation.elbo` finds on `other_rows`."""
        x, y = (getattr(self.images, f"{name}_{self.other_split}") for name in "xy")
        condition = None if self.model.condition is None else y[self.other_rows]
        return self._elbo(x[self.other_rows], condition)

    def described(self):
        """By name what the figures are of: the head of the report."""
        count, split = len(self.x), "training" if self.split == "train" else self.split
        facts = {
            "run": None,
            "model": described(self.model),
            "trained steps": _steps(self.model),
            "data": f"{self.images.name}, {self.split}, {count} images",
            "images": f"{self._size()}, {self._values()}",
        } | self.facts
        whole = len(getattr(self.images, f"x_{self.split}"))
        if count < whole:
            facts["data"] += f" (the first of {whole} {split} images)"
        return {name: value for name, value in facts.items() if value is not None}

    def _size(self):
        shape = self.x.shape[1:]
        return "×".join(map(str, shape)) if len(shape) > 1 else f"vectors of {shape[0]}"

    def _values(self):
        if not self.in_support:
            name = type(self.model.likelihood).__name__
            return f"{self.outside} under a {name}: what is shown is a loss, and no log-likelihood"
        if self.support == "binary":
            return "binary"
        return {"u": "bytes", "b": "binary"}.get(self.x.dtype.kind, "real numbers")

    @property
    def caveats(self):
        """What the figures cannot be compared with."""
        return [*self._of_the_condition, *self._of_the_values]

    @property
    def _of_the_condition(self):
        if self.model.condition is None:
            return []
        return [
            f"The model has a condition, '{self.model.condition.name}': its figures are of {self.of_what}, "
            "and not to be compared with those of p(x)."
        ]

    @property
    def of_what(self):
        """What log-likelihoods are of: p(x), or p(x|label) of a model with a condition."""
        return "p(x)" if self.model.condition is None else f"p(x|{self.model.condition.name})"

    @property
    def _of_the_values(self):
        """Of a Bernoulli's figures: trained on one kind of images, scored on another."""
        if self.support != "binary" or self.trained_on is None:
            return []
        scored = BINARY if self.in_support else GREY
        if scored == self.trained_on:
            return []
        return [
            f"Trained on {self.trained_on}, scored on {scored}: not to be compared with the figures of "
            f"models that were trained on {scored}."
        ]


def described(model):
    """A model's class, its own arguments, and its likelihood, in a line."""
    try:
        config = model.get_config()
    except NotImplementedError:  # Keras: a class whose arguments it cannot tell
        config = {}
    skipped = {"name", "dtype", "trainable", "likelihood"}
    parts = [
        f"{key} {value}"
        for key, value in config.items()
        if key not in skipped and value is not None and not isinstance(value, dict)
    ]
    return ", ".join([type(model).__name__, *parts, type(model.likelihood).__name__])


def _steps(model):
    """How many steps a model has made, where it was compiled."""
    return None if getattr(model, "optimizer", None) is None else model.steps_made
