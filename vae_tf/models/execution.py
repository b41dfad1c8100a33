"""Many training steps in one compiled loop, behind Keras's own `fit`.

Keras compiles one step and calls it from a loop outside the compiler, on one `tf.data` element a
batch. Here the loop is inside: the weights stay in place between steps, each step's own terms come
back, and for arrays the data set holds the rows of an execution, gathered at once.
"""

import itertools
import typing

import numpy as np
import tensorflow as tf

FIRST_STEPS = 200  # of training, each measured; later the last one of each execution
MOST_STEPS = 100  # in one execution: callbacks are called, and Ctrl-C is heard, in between


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


class Execution(typing.NamedTuple):
    """One execution's share of arrays: the rows of its full batches, and of a last, smaller one."""

    arrays: tuple
    full: typing.Any  # (steps, batch_size)
    rest: typing.Any  # (0 or 1, what is left over)


def executions(arrays, batch_size, steps_per_execution, seed=None, shuffle=True, first_epoch=0):
    """An endless `tf.data` set of `Execution`s. Epoch e has the order that `(seed, e)` draws.

    Args:
        arrays: a tuple of arrays with one row an image; they stay as they are, bytes as bytes.
        batch_size, steps_per_execution: images in a batch, batches in an execution.
        seed: fixes the order of every epoch; None draws one.
        shuffle: False keeps the order of the arrays.
        first_epoch: where to begin.
    """
    num, left = len(arrays[0]), len(arrays[0]) % batch_size
    steps = -(-num // batch_size)
    seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
    tensors = tuple(tf.convert_to_tensor(array) for array in arrays)

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and to look takes a while
    def epoch_rows(epoch):
        order = tf.range(num, dtype=tf.int32)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(order, seed=[seed, epoch])
        full, rest = tf.split(order, [num - left, left])
        full, rest = tf.reshape(full, (-1, batch_size)), tf.reshape(rest, (min(left, 1), left))

        def share(start):
            stop = start + steps_per_execution
            last = tf.cast(stop >= steps, tf.int64)
            return Execution(tensors, full[start:stop], rest[:last])

        return tf.data.Dataset.range(0, steps, steps_per_execution).map(share)

    options = tf.data.Options()
    options.autotune.enabled = False  # nothing to tune, and to stop its thread takes seconds
    options.experimental_optimization.apply_default_optimizations = False  # nor to rewrite
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(epoch_rows).prefetch(2).with_options(options)


def hold_back(variables, gradients):
    """Let no variable be updated before the first layer's gradient, the last to come, is there.

    Otherwise XLA copies each weight in each step, lest it be updated while backpropagation still
    reads it. What is added is zero, or NaN where that gradient is NaN. The optimizer's own variables
    do not wait: each gradient is taken into them while it is still in the processor's cache.
    """
    zero = tf.minimum(tf.abs(tf.reshape(gradients[0], [-1])[0]), 0.0)
    for variable in variables:
        variable.assign_add(tf.broadcast_to(tf.cast(zero, variable.dtype), variable.shape))


def make_loop_function(model):
    """Build the function that `fit` calls with an iterator: up to N steps, then the epoch's logs.

    It stops early at the end of the data, and when the optimizer has made `model.step_limit`
    steps. The terms of each step are left in `model.step_terms`.
    """
    most, width = model.steps_per_execution, sum(model.term_sizes.values())

    @tf.function(jit_compile=model.jit_compile, autograph=False, reduce_retracing=True)
    def run_steps(stacked, count):
        """`count` train steps on the first rows of `stacked`; the terms of each step."""
        images = tf.shape(tf.nest.flatten(stacked)[0])[1]
        noise = model.draw_ahead(most, images)

        def body(index, trace):
            first = model.optimizer.iterations < FIRST_STEPS
            measured = tf.logical_or(first, index == count - 1)
            drawn = {layer: numbers[index] for layer, numbers in noise.items()}
            with model.as_in_a_loop(measured, drawn):
                model.train_step(tf.nest.map_structure(lambda rows: rows[index], stacked))
            terms = [tf.reshape(model.step_terms[name], [-1]) for name in model.term_sizes]
            row = tf.concat([tf.cast(term, tf.float32) for term in terms], 0)
            return index + 1, tf.where(tf.range(most)[:, tf.newaxis] == index, row, trace)

        trace = tf.zeros((most, width))
        _, trace = tf.while_loop(lambda index, _: index < count, body, (0, trace))
        return {metric.name: metric.result() for metric in model.metrics}, trace

    def begin():
        """The steps that there is room for, the logs as they stand, and an empty trace."""
        left = model.step_limit - tf.cast(model.optimizer.iterations, tf.int64)
        logs = {metric.name: tf.convert_to_tensor(metric.result()) for metric in model.metrics}
        return tf.cast(tf.minimum(left, most), tf.int32), logs, tf.zeros((0, width))

    @tf.function
    def execute_rows(iterator):
        """An `Execution`: gather its full batches at once and run them, then the smaller one."""
        room, logs, trace = begin()
        arrays, *parts = iterator.get_next()
        for rows in parts:
            rows = rows[: room - len(trace)]
            count = len(rows)
            if count > 0 and rows.shape[1] > 0:
                rows = tf.pad(rows, [[0, most - count], [0, 0]])  # one compiled loop for any count
                batches = model.step_inputs(tuple(tf.gather(array, rows) for array in arrays))
                logs, terms = run_steps(batches, count)
                trace = tf.concat([trace, terms[:count]], 0)
        return logs, trace

    @tf.function
    def execute_batches(iterator):
        """Batches of a `tf.data` set: stack those of one size and run them, then the next size."""
        room, logs, trace = begin()
        batch = iterator.get_next_as_optional()
        while len(trace) < room and batch.has_value():
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(trace, tf.TensorShape([None, width]))]
            )
            batches, count, batch = _stack(
                iterator, batch, room - len(trace), most, model.step_inputs
            )
            logs, terms = run_steps(batches, count)
            trace = tf.concat([trace, terms[:count]], 0)
        return logs, trace

    def train_function(iterator):
        if model.skip_executions:
            return _skip(model, iterator)
        of_rows = isinstance(iterator.element_spec, Execution)
        logs, trace = (execute_rows if of_rows else execute_batches)(iterator)
        if len(trace) == 0:
            raise StopIteration
        model.step_terms = _by_name(model, trace.numpy())
        return logs

    return train_function


def _skip(model, iterator):
    """Pass over what an execution did before training was interrupted."""
    of_rows = isinstance(iterator.element_spec, Execution)
    for _ in range(1 if of_rows else model.steps_per_execution):
        next(iterator)
    model.skip_executions -= 1
    model.step_terms = _by_name(model, np.zeros((0, sum(model.term_sizes.values()))))
    return {metric.name: metric.result() for metric in model.metrics}


def make_eager_function(model):
    """The same for eager execution, in which each step is to be looked at."""

    def train_function(iterator):
        if model.skip_executions:
            return _skip(model, iterator)
        rows, logs, model.measured = [], None, True
        for batch in _batches(iterator, model.steps_per_execution):
            if model.optimizer.iterations >= model.step_limit:
                break
            logs = model.train_step(batch)
            rows.append([np.ravel(model.step_terms[name]) for name in model.term_sizes])
        if not rows:
            raise StopIteration
        model.step_terms = _by_name(model, np.stack([np.concatenate(row) for row in rows]))
        return logs

    return train_function


def _batches(iterator, most):
    """The batches of an `Execution`; or, where the elements are batches, up to `most` of them."""
    if isinstance(iterator.element_spec, Execution):
        for arrays, *parts in itertools.islice(iterator, 1):
            for rows in itertools.chain(*parts):
                yield tuple(tf.gather(array, rows) for array in arrays)
    else:
        yield from itertools.islice(iterator, most)


def with_running_means(model, train_function):
    """Keras's own function, for several devices, whose running means stand for a step's terms."""

    def run(iterator):
        model.measured = True
        logs = train_function(iterator)
        row = [np.full(size, logs.get(name, np.nan)) for name, size in model.term_sizes.items()]
        model.step_terms = _by_name(model, np.concatenate(row)[np.newaxis])
        return logs

    return run


def _by_name(model, trace):
    """The columns of `(steps, numbers)` as the dictionary that callbacks read."""
    ends = np.cumsum(list(model.term_sizes.values()))
    parts = zip(model.term_sizes.items(), np.split(trace, ends[:-1], axis=1), strict=True)
    return {name: part[:, 0] if size == 1 else part for (name, size), part in parts}


def _stack(iterator, batch, room, most, step_inputs):
    """Batches of the size of the first, up to `room`: stacked, counted, and the one after them."""

    def tensors(batch):
        return tf.nest.flatten(step_inputs(batch.get_value()))

    def size(batch):
        return tf.shape(tensors(batch)[0])[0]

    def fits(count, batch, *_):
        same = tf.cond(batch.has_value(), lambda: size(batch) == wanted, lambda: False)
        return tf.logical_and(count < room, same)

    def write(count, batch, *arrays):
        arrays = [a.write(count, t) for a, t in zip(arrays, tensors(batch), strict=True)]
        # Never ask for a batch that this execution does not use: the next one would lack it.
        batch = tf.cond(count + 1 < room, iterator.get_next_as_optional, lambda: batch)
        return (count + 1, batch, *arrays)

    first, wanted = step_inputs(batch.get_value()), size(batch)
    shapes = [t.shape for t in tf.nest.flatten(first)]
    arrays = [
        tf.TensorArray(t.dtype, 0, dynamic_size=True, infer_shape=False)
        for t in tf.nest.flatten(first)
    ]
    count, batch, *arrays = tf.while_loop(fits, write, (0, batch, *arrays))
    stacks = [tf.ensure_shape(a.stack(), [None, *s]) for a, s in zip(arrays, shapes, strict=True)]
    padded = [tf.pad(s, [[0, most - count]] + [[0, 0]] * (len(s.shape) - 1)) for s in stacks]
    return tf.nest.pack_sequence_as(first, padded), count, batch
