"""The client of a served model: TF Serving's, or the embedded server's. NumPy in, NumPy out.

Over REST it needs neither TensorFlow nor Keras.
"""

import concurrent.futures
import random
import time

import numpy as np

from vae_tf.errors import InvalidTypeError, check_non_negative, check_positive_int, invalid
from vae_tf.random import row_seeds
from vae_tf.serving.status import ServingError
from vae_tf.serving.transports import AT_ONCE, reading_answer, transport_of

RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")  # a request may be sent twice: it changes nothing
FIRST_WAIT, LONGEST_WAIT, ATTEMPTS = 0.1, 5.0, 6


class Client:
    """Ask a server of an exported model.

    Args:
        address: "http://host:8501", "https://..." or "grpc://host:8500".
        model: the model's name there.
        version, version_label: which version is asked; by default the newest.
        timeout: seconds that a call may take, all of its chunks and retries together.
        batch_size: rows of a request; more are sent in chunks. deploy/batching.config takes 64.

    Raises:
        ValueError: an argument makes no sense.
        ServingError: from every method, where the server refuses or cannot be reached; it has
            gRPC's `code` and the server's own words as `message`.

    Example:
        >>> client = Client("http://localhost:8501")
        >>> images = client.generate(64, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self, address, model="vae", version=None, version_label=None, timeout=30.0, batch_size=64
    ):
        if version is not None and version_label is not None:
            raise invalid("version_label", "None where there is a version", repr(version_label))
        if version is not None:
            check_positive_int("version", version)
        self.timeout = check_non_negative("timeout", timeout, above=True)
        self.batch_size = check_positive_int("batch_size", batch_size)
        self._transport = transport_of(address)(address, model, version, version_label)

    def generate(self, num=None, seed=None, *, seeds=None, **condition):
        """Images `(num, *image_shape)`: those that `Model.generate(num, seed)` draws.

        Args:
            num, seed: how many (1 by default), and a non-negative integer that fixes them.
            seeds: in their place, an int64 seed an image.
            condition: for a model with a condition, its value by its name, such as `label=3`: a
                number for all images, or an array with a row for each.
        """
        seeds = _seeds(num, seed, seeds)
        outputs = self.predict("generate", seed=seeds, **_condition_rows(condition, len(seeds)))
        with reading_answer(outputs):
            return outputs["images"]

    def generate_png(self, num=None, seed=None, *, seeds=None, **condition):
        """The same images as PNG files: a list of bytes."""
        seeds = _seeds(num, seed, seeds)
        condition = _condition_rows(condition, len(seeds))
        return list(self.predict("generate_png", seed=seeds, **condition))

    def decode(self, z, **condition):
        """The decoder's means for codes `(num, latent_dim)`: `(num, *image_shape)`.

        Args:
            z: codes, as the model's `decode` takes them, a row for each image.
            condition: as for `generate`.
        """
        z = np.asarray(z, "float32")
        if z.ndim < 2 or not np.isfinite(z).all():
            raise invalid("z", "finite numbers of shape (num, latent_dim)", f"shape {z.shape}")
        return self.predict("decode", z=z, **_condition_rows(condition, len(z)))

    def predict(self, signature, **inputs):
        """Any signature: arrays by name in; an array out, or several by name where it gives several."""
        inputs = {name: _served_dtype(np.asarray(a)) for name, a in inputs.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
        num = max(lengths.values(), default=0)
        if num == 0 or len(set(lengths.values())) > 1:
            raise invalid("inputs", "arrays of as many rows, one at least", str(lengths))
        deadline = time.monotonic() + self.timeout
        starts = range(0, num, self.batch_size)
        chunks = [{k: v[i : i + self.batch_size] for k, v in inputs.items()} for i in starts]
        return _joined(self._each(signature, chunks, deadline))

    def status(self):
        """The versions and their states: `{1: "AVAILABLE"}`."""
        deadline = time.monotonic() + self.timeout
        return self._with_retries(self._transport.status, deadline)

    def wait_until_ready(self, timeout=60.0):
        """Return when a version is available.

        Raises:
            ServingError: none is after `timeout` seconds.
        """
        deadline = time.monotonic() + check_non_negative("timeout", timeout)
        wait = FIRST_WAIT
        while True:
            left = max(deadline - time.monotonic(), 0.01)
            try:
                states = self._transport.status(min(left, self.timeout))
                if "AVAILABLE" in states.values():
                    return
                error = ServingError("UNAVAILABLE", f"No version is available: {states}.")
            except ServingError as raised:
                error = raised
            if time.monotonic() + wait > deadline:
                raise error
            time.sleep(wait)
            wait = min(2 * wait, 1.0)

    def close(self):
        """Give the connections back."""
        self._transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _each(self, signature, chunks, deadline):
        def ask(chunk):
            return self._with_retries(self._transport.predict, deadline, signature, chunk)

        if len(chunks) == 1:
            return [ask(chunks[0])]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(ask, chunk) for chunk in chunks]
            try:
                return [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def _with_retries(self, ask, deadline, *arguments):
        """Ask, and where that may help again, with growing random waits, until the deadline."""
        for attempt in range(ATTEMPTS):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServingError("DEADLINE_EXCEEDED", f"No answer within {self.timeout} s.")
            try:
                return ask(*arguments, left)
            except ServingError as error:
                wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait > deadline
                if error.code not in RETRIED or attempt == ATTEMPTS - 1 or late:
                    raise
                time.sleep(wait)


def _served_dtype(array):
    """Numbers in the types that every signature takes: float32 and int64."""
    return array.astype({"f": "float32", "i": "int64"}.get(array.dtype.kind, array.dtype))


def _seeds(num, seed, seeds):
    if seeds is None:
        return row_seeds(seed, check_positive_int("num", 1 if num is None else num))
    if num is not None or seed is not None:
        raise invalid("seeds", "None where there are num or seed", "both")
    return np.atleast_1d(_int64("seeds", seeds))


def _condition_rows(condition, num):
    """A value for each of `num` rows, where a number stands for all of them.

    By convention a condition that is called `label` is a class, an integer; another may be any number.
    """
    rows = {}
    for name, value in condition.items():
        value = _int64(name, value) if name == "label" else np.asarray(value)
        if value.dtype.kind not in "iufb":
            raise invalid(name, "numbers", f"{value.dtype}", kind=InvalidTypeError)
        value = value.astype("float32" if value.dtype.kind == "f" else "int64")
        rows[name] = value if value.ndim else np.full(num, value)
    return rows


def _int64(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise invalid(name, "integers", f"{values.dtype}", kind=InvalidTypeError)
    if values.max(initial=0) > np.iinfo("int64").max:
        raise invalid(name, "integers below 2**63", f"{values.max()}")
    return values.astype("int64")


def _joined(parts):
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)
