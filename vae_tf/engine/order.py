"""The order of the images in training: which rows each step takes."""

import itertools
import math

import numpy as np
import tensorflow as tf

MOST_STEPS = 100  # in one execution: callbacks are called, and Ctrl-C is answered, in between


def choose_steps(steps, exact=False):
    """A number of steps up to `MOST_STEPS` for one execution of an epoch of `steps`.

    One that divides the epoch. Where only a small one does, a larger is taken, and the epoch's last
    execution is shorter, unless the epoch is a count of steps, which must come out `exact`ly. None
    stands for an unknown number.
    """
    if steps is None:
        return MOST_STEPS
    most = min(steps, MOST_STEPS)
    divisor = max(n for n in range(1, most + 1) if steps % n == 0)
    return divisor if exact or 10 * divisor >= most else most


class Order:
    """The rows of each execution, without end: the images in a new order each time round.

    Args:
        num: how many images.
        batch_size: images in a step; the last step of a time round takes what is left.
        seed: with the number of the time round, fixes its order.
        shuffle: False keeps the images as they are.
        steps_per_epoch: steps that an execution does not go beyond; by default a time round.
        first_step: where to begin.
    """

    def __init__(self, num, batch_size, seed, shuffle=True, steps_per_epoch=None, first_step=0):
        self.num, self.batch_size, self.seed, self.shuffle = num, batch_size, seed, shuffle
        self.steps_round = math.ceil(num / batch_size)
        self.steps_per_epoch = steps_per_epoch or self.steps_round
        self.step, self._round, self._rows = first_step, None, None

    def next(self, most):
        """Advance by an execution of up to `most` steps.

        Returns:
            A list of integer arrays `(steps, rows)`, in each of which the batches are of one size.
        """
        left = self.steps_per_epoch - self.step % self.steps_per_epoch
        steps = range(self.step, self.step + min(most, left))
        self.step = steps.stop
        batches = map(self._batch, steps)
        return [np.stack(list(same)) for _, same in itertools.groupby(batches, len)]

    def _batch(self, step):
        number, batch = divmod(step, self.steps_round)
        if number != self._round:
            self._round, rows = number, tf.range(self.num)
            if self.shuffle:
                seed = [self.seed, number]
                rows = tf.random.experimental.stateless_shuffle(rows, seed=seed)
            self._rows = rows.numpy()
        return self._rows[batch * self.batch_size : (batch + 1) * self.batch_size]
