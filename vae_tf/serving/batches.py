"""Many rows in requests of bounded size: some of them at once, their answers in arrays made once."""

import concurrent.futures
import threading

import numpy as np

from vae_tf import memory

AT_ONCE = 4  # requests of one client that are under way together
_HINT = "Ask for fewer at a time, and store each part before the next."


def in_batches(ask, columns, batch_size, argument):
    """The outputs for all rows of some inputs, as arrays by name.

    The first request goes alone: its answer tells what all will take, before that is allocated.

    Args:
        ask: `ask(inputs, like)` gives the outputs of a request, by name and of the types and shapes
            of `like`, if that is not None. Called by several threads.
        columns: the inputs by name, each of as many rows, which are taken by slices.
        argument: the caller's argument that says how many rows there are, for the message.

    Raises:
        ValueError: there is not as much memory.
    """
    num = len(next(iter(columns.values())))
    parts = _parts(columns, num, batch_size)
    rows, given = next(parts)
    first = ask(given, None)
    if rows.stop == num:
        return {name: np.require(array, requirements="W") for name, array in first.items()}
    arrays = _allocated(first, rows.stop, num, argument)

    def write(rows, outputs):
        for name, array in arrays.items():
            array[rows] = outputs[name]

    write(rows, first)
    _each(lambda rows, given: write(rows, ask(given, first)), parts)
    return arrays


def _parts(columns, num, batch_size):
    for start in range(0, num, batch_size):
        rows = slice(start, min(start + batch_size, num))
        yield rows, {name: column[rows] for name, column in columns.items()}


def _allocated(first, rows, num, argument):
    size = num * sum(map(_bytes, first.values())) // rows
    memory.check_fits(argument, size, f"{num} rows", _HINT)
    return {name: np.empty((num, *a.shape[1:]), a.dtype) for name, a in first.items()}


def _bytes(array):
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == object else 0)


def _each(work, parts):
    """Do `work` on all the parts, `AT_ONCE` of them together, until one fails."""
    stopped, lock = threading.Event(), threading.Lock()

    def run():
        while not stopped.is_set():
            with lock:
                part = next(parts, None)
            if part is None:
                return
            work(*part)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            runs = [pool.submit(run) for _ in range(AT_ONCE)]
            for each in concurrent.futures.as_completed(runs):
                each.result()
        finally:
            stopped.set()
