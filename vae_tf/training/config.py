"""What a training run can be asked for: each field is an option of `vae-tf train`.

To add an option: a field here or in `fields.py`, the place that uses it, and a row of the README's table.
"""

import dataclasses

from vae_tf.data import ANY_VALUE, HOLD_OUT
from vae_tf.errors import as_typed, check_positive_int, invalid
from vae_tf.options import check_fields, option
from vae_tf.training.fields import ModelFields, above_0, at_least_0


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


# Options that a model's constructor does not take: callbacks do, or the second phase.
_OF_TRAINING = {
    "quadrants",
    "kl_warmup",
    "beta",
    "free_bits",
    "prior_steps",
    "prior_filters",
    "prior_layers",
}


def _fraction(name, value):
    if above_0(name, value) >= 1:
        raise invalid(name, "a fraction below 1", f"{name}={value}")
    return value


def _seed(name, value):
    if at_least_0(name, value) >= 2**32:
        raise invalid(name, "an integer below 2**32", f"{name}={value}")
    return value


@dataclasses.dataclass(frozen=True)
class TrainConfig(ModelFields):
    """What `vae-tf train` takes; `vae-tf train --help` says what each field is.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> TrainConfig(latent_dim=2, steps=500).recipe
        'default'
    """

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
        check=above_0,
        default_text="the recipe's",
    )
    clip_norm: float | None = option(
        None,
        "scale the gradients down to X where the norm of all together is above X",
        parse=float,
        metavar="X",
        check=above_0,
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
        default_text="runs/<data>_<model>_<recipe>_z<latent dim>",
    )

    def __post_init__(self):
        check_fields(self)
        if self.binarize != "none" and self.likelihood != "bernoulli":
            raise invalid("binarize", "'none' where the likelihood is not Bernoulli", self.binarize)
        if self.binarize != "none" and self.error == "squared_error":
            raise invalid("binarize", "'none' with the squared error", self.binarize)
        if self.steps is not None and self.epochs is not None:
            received = f"steps={self.steps}, epochs={self.epochs}"
            raise invalid("steps", "either steps or epochs", received)
        self._check_network()
        self._check_capacity()

    def _check_capacity(self):
        """A KL that is held at a capacity has no weight; one that is not has nothing else."""
        held = self.capacity is not None
        for name in ("beta", "kl_warmup") if held else ("gamma", "capacity_steps"):
            value = getattr(self, name)
            if value not in (None, type(self).__dataclass_fields__[name].default):
                expected = f"none with {as_typed('capacity', self.capacity)}"
                expected = expected if held else "it with a capacity alone"
                raise invalid(name, expected, as_typed(name, value))

    def _check_network(self):
        """Dense networks have no filters, and convolutional ones no hidden units."""
        if self.model == "vqvae":
            return  # it is convolutional always
        for name, network in (
            ("hidden_units", "dense"),
            ("quadrants", "dense"),
            ("filters", "conv"),
        ):
            if getattr(self, name) is not None and self.network != network:
                received = f"{name}={getattr(self, name)} with network={self.network!r}"
                raise invalid(name, f"it with network={network!r} alone", received)

    @property
    def value_range(self):
        """The least and the largest value of a pixel that the likelihood takes."""
        any_value = self.likelihood == "gaussian" or self.error == "squared_error"
        return ANY_VALUE if any_value else (0.0, 1.0)

    @property
    def of_the_model(self):
        """The arguments of the model's constructor, by name, as far as they are given."""
        fields = dataclasses.fields(type(self))
        taken = [
            f.name for f in fields if self.model in (f.metadata["needs"] or {}).get("model", ())
        ]
        names = {"activation", *taken} - _OF_TRAINING
        given = {name: getattr(self, name) for name in names}
        if "latent_dim" in given:
            given["latent_dim"] = self.code_size
        if self.model == "betavae":
            given["beta"] = self.beta
        return {name: value for name, value in given.items() if value is not None}

    @property
    def of_the_prior(self):
        """The arguments of the prior that a second phase trains."""
        return {"filters": self.prior_filters, "num_layers": self.prior_layers, "seed": self.seed}

    @property
    def final_beta(self):
        """What β rises to."""
        default = 4.0 if self.model == "betavae" and self.capacity is None else 1.0
        return default if self.beta is None else self.beta

    @property
    def code_name(self):
        """The code's size for the name of a run: z10, z16-8 of two layers, k128 of a codebook."""
        if self.model == "vqvae":
            return f"k{self.num_embeddings}"
        if self.model == "hierarchicalvae":
            return f"z{'-'.join(map(str, self.latent_dims or (16, 8)))}"
        return f"z{self.code_size}"

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
