"""The functions that Keras's `fit` calls for each execution: many steps in one compiled loop.

Keras compiles one step and calls it from a loop outside the compiler, on one `tf.data` element a
batch. Here the loop is inside: the weights stay in place between steps, each step's own terms come
back, and the images of an execution are gathered at once.
"""

import collections
import functools
import itertools

import numpy as np
import tensorflow as tf

from vae_tf.engine import replicas
from vae_tf.engine.step import Step, Steps

FIRST_STEPS = 200  # of training, whose norm is measured; later the last step of each execution


def make_train_function(model):
    """The function that `fit` calls with an iterator over the data; it gives the epoch's logs.

    Where `model.engine.feed` is set the images are arrays, and the iterator is left alone. It makes up to
    `model.steps_per_execution` steps, and fewer at the end of an epoch or at `model.engine.step_limit`.
    """
    several = model.distribute_strategy.num_replicas_in_sync > 1
    make = _make_replicated if several else _make_eager if model.run_eagerly else _make_loop
    run = make(model)

    def train_function(iterator):
        room = model.steps_per_execution - _skip(model, iterator)
        if model.engine.step_limit is not None:
            room = min(room, model.engine.step_limit - model.steps_made)
        if room <= 0:  # all of them were made before an interruption
            return metric_results(model)
        logs, rows = {}, []
        for batches in _batches(model, iterator, room):
            logs, trace = run(batches)
            rows.append(trace)
        if not rows:
            raise StopIteration
        model.engine.announce(_steps(model, np.concatenate(rows)))
        return {name: logs[name] for name in (*metric_results(model), *logs)}  # loss first

    return train_function


def _batches(model, iterator, room):
    """Up to `room` batches: tuples of tensors `(batches, rows, ...)`, for each size of a batch.

    Batches of a data set that is spread over several devices come one by one, as they are.
    """
    if room <= 0:
        return
    if model.engine.feed is not None:
        arrays, order = model.engine.feed
        for rows in order.next(room):
            yield tuple(tf.gather(array, rows) for array in arrays)
        return
    batches = itertools.islice(iterator, room)
    if isinstance(iterator, tf.distribute.DistributedIterator):
        yield from ([batch] for batch in batches)
        return
    batches = (tuple(map(tf.convert_to_tensor, model.step_inputs(batch))) for batch in batches)
    for _, same in itertools.groupby(batches, lambda batch: batch[0].shape):
        yield tuple(map(tf.stack, zip(*same, strict=True)))


def _skip(model, iterator):
    """Pass over the steps of this execution that were made before training was interrupted.

    Returns:
        How many it has less; all, where they were the last of the epoch.
    """
    count = min(model.engine.skipped_steps, model.steps_per_execution)
    model.engine.skipped_steps -= count
    if not count or model.engine.feed is None:
        collections.deque(itertools.islice(iterator, count), maxlen=0)
        return count
    order = model.engine.feed[1]
    order.next(count)
    at_the_end = order.step % order.steps_per_epoch == 0  # where it would go on with the next epoch
    return model.steps_per_execution if at_the_end else count


def _make_loop(model):
    """Steps in one loop, compiled by XLA where the model is to be."""
    most = model.steps_per_execution

    def run_steps(batches, count, extra):
        """`count` train steps on the first of `batches`; the logs, and each step's row."""

        def body(index, logs, trace):
            first = model.optimizer.iterations < FIRST_STEPS
            step = Step(tf.logical_or(first, index == count - 1), loop=(most, index))
            with step.current():
                results = model.train_step(tuple(part[index] for part in batches))
            step.finish()
            row = tf.where(tf.range(most)[:, tf.newaxis] == index, _row(model, step), trace)
            return index + 1, {name: tf.cast(results[name], tf.float32) for name in logs}, row

        start = {name: tf.zeros(()) for name in extra}, tf.zeros((most, model.engine.row_size))
        _, logs, trace = tf.while_loop(lambda index, *_: index < count, body, (0, *start))
        return metric_results(model) | logs, trace

    run_steps = compiled(run_steps, jit_compile=model.jit_compile)

    def run(batches):
        count, extra = len(batches[0]), _logs_of_its_own(model, batches)
        if count < most:  # one compiled loop for any count
            pad = [tf.zeros((most - count, *part.shape[1:]), part.dtype) for part in batches]
            batches = tuple(tf.concat(pair, 0) for pair in zip(batches, pad, strict=True))
        logs, trace = run_steps(batches, tf.constant(count), extra)
        return logs, trace.numpy()[:count]

    return run


def _logs_of_its_own(model, batches):
    """The names of what an overridden `train_step` logs beside the metrics; found by tracing it once."""
    if model.has_usual_train_step:
        return ()
    if model.engine.extra_logs is None:
        scratch = tf.function(model.train_step, autograph=False)
        specs = tuple(tf.TensorSpec(part.shape[1:], part.dtype) for part in batches)
        logs = scratch.get_concrete_function(specs).structured_outputs
        known = {metric.name for metric in model.metrics}
        model.engine.extra_logs = tuple(sorted(set(logs) - known))
    return model.engine.extra_logs


def _make_eager(model):
    """The same for eager execution, in which each step is to be looked at."""

    def run(batches):
        rows = []
        for batch in zip(*batches, strict=True):
            with (step := Step()).current():
                logs = model.train_step(batch)
            step.finish()
            rows.append(_row(model, step))
        return logs, np.stack(rows)

    return run


def _make_replicated(model):
    """Steps on several devices: each takes its share of a batch, and together they make one step."""
    strategy = model.distribute_strategy

    def step_on_replica(batch, whole):
        if whole:
            batch = tuple(map(replicas.share, batch))
        x, *_ = model.step_inputs(batch)
        with (step := Step(rows=tf.shape(x)[0])).current():
            logs = model.train_step(batch)
        return logs, _row(model, step), step

    def make_step(batch, whole):
        logs, row, steps = strategy.run(step_on_replica, (batch, whole))
        strategy.experimental_local_results(steps)[0].finish()
        logs = {name: strategy.reduce("MEAN", value, None) for name, value in logs.items()}
        return logs | metric_results(model), strategy.experimental_local_results(row)[0]

    if not model.run_eagerly:
        make_step = compiled(make_step, reduce_retracing=True)

    def run(batches):
        whole = isinstance(batches, tuple)
        parts = zip(*batches, strict=True) if whole else batches
        results = [make_step(part, whole) for part in parts]
        return results[-1][0], np.stack([row for _, row in results])

    return run


def compiled(function, **options):
    """A `tf.function` whose tracings TensorFlow counts apart from other models'.

    It counts them for each piece of code, and would warn of many where many models are trained.
    """
    return tf.function(functools.partial(function), autograph=False, **options)


def metric_results(model):
    """The running means as they stand."""
    return {metric.name: metric.result() for metric in model.metrics}


def _row(model, step):
    """What a step leaves for callbacks, as one vector."""
    parts = [tf.reshape(step.row[name], [-1]) for name in model.engine.row_sizes]
    return tf.concat([tf.cast(part, tf.float32) for part in parts], 0)


def _steps(model, trace):
    terms, numbers = model.engine.split(trace)
    return Steps(model.steps_made - len(trace) + 1, terms, numbers)
