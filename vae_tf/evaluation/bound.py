"""The evidence lower bound and its terms, as the model itself states them."""

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf.engine.loop import compiled
from vae_tf.errors import check_positive_int
from vae_tf.evaluation.estimates import ROWS, Estimate, at_rows, batches, check_seed, checked
from vae_tf.layers import PerImage, drawing

STRIDE = 2**16  # draws between those of one evaluation of the terms and the next


def elbo(model, x, num_samples=10, seed=0, batch_size=ROWS, condition=None):
    """The means over draws of z, and over images, of the model's loss and of each of its terms.

    For a VAE, ELBO = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)): the first term from draws, the second exact.

    Args:
        model: any model; its `terms` are what is averaged.
        x: images. Grey ones are accepted under a Bernoulli, and give no bound of a log-likelihood.
        num_samples: draws of z an image.
        seed: as for `log_likelihood`.
        batch_size: images at once.
        condition: one for each image, of a model that has conditions.

    Returns:
        A dictionary of `Estimate`s over the images, in nats: `elbo`, then each other term that is one
        number an image, by its name: `reconstruction_loss` and `kl_loss` of a VAE. The ELBO is
        −loss; of a model with the term `elbo_loss` it is −elbo_loss, and −loss, the bound that it is
        trained on, is `bound`. A model without `log_weights` states no likelihood: its `loss` is
        under that name.

    Example:
        >>> found = elbo(vae, x_test)
        >>> print(found["elbo"], found["kl_loss"])
    """
    return estimator(model, num_samples, seed, batch_size)(x, condition)


def estimator(model, num_samples=10, seed=0, batch_size=ROWS):
    """`elbo` as a function of images and conditions, compiled once for sets of one size."""
    num_samples = check_positive_int("num_samples", num_samples)
    batch_size = check_positive_int("batch_size", batch_size)
    run = _mean_terms(model, check_seed(seed), num_samples)

    def estimate(x, condition=None):
        x, conditions = checked(model, x, condition)
        parts = []
        for rows in batches(len(x), min(batch_size, ROWS, len(x))):
            batch = tf.nest.map_structure(tf.constant, (x[rows], rows, at_rows(conditions, rows)))
            terms = run(*batch)
            parts.append({name: terms[name].numpy()[: len(x) - rows[0]] for name in terms})
        terms = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: Estimate.over(values) for name, values in _bounds(model, terms).items()}

    return estimate


def _bounds(model, terms):
    """The terms with the losses that are bounds of log p(x) as these bounds."""
    if model.log_weights is None:
        return terms
    bound = -terms.pop("loss")
    if "elbo_loss" not in terms:
        return {"elbo": bound} | terms
    return {"elbo": -terms.pop("elbo_loss"), "bound": bound} | terms


def _mean_terms(model, seed, num_samples):
    """A compiled function of a batch: the mean over draws of each term that is `(batch,)`."""

    def run(x, numbers, conditions):
        x = model.to_floats(x)

        def draw(index):
            with drawing(PerImage(seed, numbers, first_sample=index * STRIDE)):
                terms = model.terms(x, *conditions)
            each = {name: term for name, term in terms.items() if len(term.shape) == 1}
            return {name: ops.cast(term, "float64") for name, term in each.items()}

        def body(index, sums):
            terms = draw(index)
            return index + 1, {name: sums[name] + terms[name] for name in sums}

        sums = tf.while_loop(lambda index, _: index < num_samples, body, (1, draw(0)))[1]
        return {name: total / num_samples for name, total in sums.items()}

    return compiled(run, jit_compile=model.suits_xla)
