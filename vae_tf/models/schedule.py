"""The KL's weight β in the course of training."""

import keras
from keras import ops


class KLSchedule:
    """β rises from 0 to `beta_end` over `kl_warmup_steps`: a part of a model whose objective has a β.

    Both are weights, so that `KLWarmup` can set them and training saves them. What it sets replaces
    what the model was made with.
    """

    def add_schedule(self, beta=1.0, steps=0):
        self.beta_end = self.add_setting("beta_end", beta)
        self.kl_warmup_steps = self.add_setting("kl_warmup_steps", steps)

    def add_setting(self, name, value):
        """A number of the objective, a weight that is not trained."""
        return self.add_weight(
            name=name, initializer=keras.initializers.Constant(value), dtype="float32",
            trainable=False, autocast=False,
        )  # fmt: skip

    @property
    def step(self):
        """The number of the next step, from 1, as a float."""
        return ops.cast(self.optimizer.iterations, "float32") + 1

    @property
    def risen(self):
        """How much of the warm-up the next step has behind it, from 0 to 1."""
        return ops.minimum(1.0, self.step / ops.maximum(1.0, self.kl_warmup_steps))

    @property
    def beta(self):
        """The KL's weight β in the next step."""
        return self.beta_end * self.risen

    def settings(self):
        return {"beta": self.beta}
