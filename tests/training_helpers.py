"""What the tests of training share: a small VAE, callbacks that look or crash, and states."""

import keras
import numpy as np

from vae_tf import VAE


def small_vae(model_class=VAE, optimizer=None, **kwargs):
    """A compiled VAE of few weights; `kwargs` are the model's, or `compile`'s."""
    names = ("run_eagerly", "jit_compile", "steps_per_execution")
    compiled = {name: kwargs.pop(name) for name in names if name in kwargs}
    model = model_class(**{"latent_dim": 2, "hidden_units": (16,), "seed": 0, **kwargs})
    model.compile(optimizer, **compiled)
    return model


class Recorder(keras.callbacks.Callback):
    """Keeps the steps that a callback is given, an execution after the other."""

    def __init__(self):
        super().__init__()
        self.executions = []

    def on_steps_end(self, steps):
        self.executions.append(steps)

    def columns(self):
        """By name each term and each number of all steps."""
        found = [steps.terms | steps.numbers for steps in self.executions]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


class Crash(keras.callbacks.Callback):
    """Raises once the optimizer has made so many steps, as soon as an execution is over."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_made >= self.steps:
            raise RuntimeError("crash")


def each(look, when="on_train_batch_end"):
    """A callback, and a list of what `look(model)` gives before training and at each such moment."""
    found, hook = [], keras.callbacks.Callback()
    for name in ("on_train_begin", when):
        setattr(hook, name, lambda *args, **kwargs: found.append(look(hook.model)))
    return hook, found


def flat(weights):
    """All of the weights as one vector."""
    return np.concatenate([np.ravel(weight) for weight in weights])


def states(model):
    """By path every variable of a model, its optimizer's and its noise's among them."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{i} {v.path}": v.value.numpy() for i, v in enumerate(variables)}


def assert_same_state(one, other):
    """Every variable of two models is the same, bit for bit."""
    one, other = states(one), states(other)
    assert [value.shape for value in one.values()] == [value.shape for value in other.values()]
    for (name, value), twin in zip(one.items(), other.values(), strict=True):
        np.testing.assert_array_equal(value, twin, err_msg=name)
