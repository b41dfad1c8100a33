"""The client of a served model: TF Serving's, or the embedded server's. NumPy in, NumPy out.

Over REST it needs neither TensorFlow nor Keras.
"""

import random
import re
import time

import numpy as np

from vae_tf.data.checks import check_images
from vae_tf.errors import check_non_negative, check_positive_int, invalid
from vae_tf.serving import answers, rows
from vae_tf.serving.batches import in_batches
from vae_tf.serving.status import ServingError
from vae_tf.serving.transports import transport_of

RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")  # a request may be sent twice: it changes nothing
FIRST_WAIT, LONGEST_WAIT, ATTEMPTS = 0.1, 5.0, 6
_OF_ENCODER = ("encode", "reconstruct", "score")
_NO_ENCODER = "A model is exported with its encoder by: vae-tf export RUN --with-encoder."


class Client:
    """Ask a server of an exported model.

    Args:
        address: "http://host:8501", "https://..." or "grpc://host:8500".
        model: the model's name there.
        version, version_label: which version is asked; by default the newest.
        timeout: seconds that a call may take, all of its requests and retries together.
        batch_size: rows of a request; more are sent in several. deploy/batching.config takes 64.
        answer_bytes: the most that is read of the answer to a request.

    Raises:
        ValueError, TypeError: an argument makes no sense, or what it asks for does not fit in the
            memory that is free.
        ServingError: from every method, where the server refuses, cannot be reached, or answers with
            something else than it should; it has gRPC's `code` and the server's own words as
            `message`.

    Example:
        >>> client = Client("http://localhost:8501")
        >>> images = client.generate(64, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        address,
        model="vae",
        version=None,
        version_label=None,
        timeout=30.0,
        batch_size=64,
        answer_bytes=answers.ANSWER_BYTES,
    ):
        if version is not None and version_label is not None:
            raise invalid("version_label", "None where there is a version", repr(version_label))
        if version is not None:
            check_positive_int("version", version)
        self.timeout = check_non_negative("timeout", timeout, above=True)
        self.batch_size = check_positive_int("batch_size", batch_size)
        most = check_positive_int("answer_bytes", answer_bytes)
        self._transport = transport_of(address)(address, model, version, version_label, most)

    def generate(self, num=None, seed=None, *, seeds=None, **condition):
        """Images `(num, *image_shape)`: those that `Model.generate(num, seed)` draws.

        Args:
            num, seed: how many (1 by default), and a non-negative integer that fixes them. The first
                is the image of `seed` on the server's page; the seeds of the others follow from it.
            seeds: in their place, an int64 seed an image.
            condition: for a model with a condition, its value by its name, such as `label=3`: a
                number for all images, or an array with a row for each.
        """
        return self._drawn("generate", num, seed, seeds, condition)["images"]

    def generate_png(self, num=None, seed=None, *, seeds=None, **condition):
        """The same images as PNG files: a list of bytes."""
        return list(self._drawn("generate_png", num, seed, seeds, condition)["png_bytes"])

    def decode(self, z, **condition):
        """The decoder's means for codes `(num, latent_dim)`: `(num, *image_shape)`.

        Args:
            z: codes, as the model's `decode` takes them, a row for each image.
            condition: as for `generate`.
        """
        z = np.asarray(z, "float32")
        if z.ndim < 2 or not z.size or not np.isfinite(z).all():
            raise invalid("z", "finite numbers of shape (num, latent_dim)", f"shape {z.shape}")
        return self._call("decode", "z", {"z": z}, condition)["probabilities"]

    def encode(self, images, **condition):
        """The codes of images, as `VAE.encode` gives them: `(z_mean, z_log_var)`.

        For a model whose posterior is not Gaussian the code z alone. A server has this, `reconstruct`
        and `score` of a model that was exported with its encoder (`vae-tf export --with-encoder`).

        Args:
            images: `(num, *image_shape)`: bytes (uint8), booleans, or floats in [0, 1]. (Other
                values, which a Gaussian likelihood takes, are sent by `predict`.)
            condition: as for `generate`.
        """
        images = rows.Floats(check_images(images, "images"))
        outputs = self._call("encode", "images", {"images": images}, condition)
        return outputs["z"] if "z" in outputs else (outputs["z_mean"], outputs["z_log_var"])

    def reconstruct(self, images, **condition):
        """Images to their reconstructions without noise, as those of `Model.reconstruct`.

        Args:
            images, condition: as for `encode`.
        """
        images = check_images(images, "images")
        columns, shape = {"images": rows.Floats(images)}, images.shape[1:]
        return self._call("reconstruct", "images", columns, condition, shape)["images"]

    def score(self, images, seed=None, *, seeds=None, **condition):
        """The ELBO of each image in nats, `(num,)`, at one draw of z.

        Args:
            images, condition: as for `encode`.
            seed: a non-negative integer that fixes the draws. None draws one.
            seeds: in its place, an int64 seed an image.
        """
        images = rows.Floats(check_images(images, "images"))
        num = len(images)
        seeds = rows.seed_column(num if seeds is None else None, seed, seeds)
        if len(seeds) != num:
            raise invalid("seeds", f"one for each of {num} images", f"{len(seeds)} seeds")
        columns = {"images": images, "seed": seeds}
        return self._call("score", "images", columns, condition)["elbo"]

    def predict(self, signature, **inputs):
        """Any signature: arrays by name in; an array out, or several by name where it gives several.

        The outputs have as many rows as the inputs. Their values are not checked.
        """
        inputs = {name: rows.served_dtype(np.asarray(a)) for name, a in inputs.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
        if set(lengths.values()) in (set(), {0}) or len(set(lengths.values())) > 1:
            raise invalid("inputs", "arrays of as many rows, one at least", str(lengths))
        outputs = self._batches(signature, "inputs", inputs, answers.some)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

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

    def _drawn(self, signature, num, seed, seeds, condition):
        argument = "num" if seeds is None else "seeds"
        seeds = rows.seed_column(num, seed, seeds)
        return self._call(signature, argument, {"seed": seeds}, condition)

    def _call(self, signature, argument, columns, condition, row_shape=None):
        """The outputs of a signature of `answers.OUTPUTS`, checked."""
        num = len(next(iter(columns.values())))
        columns = columns | rows.condition_columns(condition, num)

        def check(outputs):
            outputs = answers.named(signature, outputs)
            answers.check_values(outputs, row_shape)
            return outputs

        try:
            return self._batches(signature, argument, columns, check)
        except ServingError as error:
            missing = re.search(rf"[Ss]ignature.*\b{signature}\b.*not found", error.message)
            if not missing or signature not in _OF_ENCODER:
                raise
            message = f"{error.message.rstrip('.')}. {_NO_ENCODER}"
            raise ServingError(error.code, message) from error

    def _batches(self, signature, argument, columns, check):
        """The outputs, by name, for inputs whose rows are taken by slices: arrays, or like them."""
        deadline = time.monotonic() + self.timeout

        def ask(part, like):
            outputs = self._with_retries(self._transport.predict, deadline, signature, part)
            with answers.reading(self._transport.address):
                outputs = check(outputs)
                answers.check_like(outputs, like or {})
            return outputs

        return in_batches(ask, columns, self.batch_size, argument)

    def _with_retries(self, ask, deadline, *arguments):
        """Ask, and where that may help again, with growing random waits, until the deadline."""
        for attempt in range(ATTEMPTS):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            try:
                answer = ask(*arguments, left)
            except ServingError as error:
                if error.code == "DEADLINE_EXCEEDED" and time.monotonic() >= deadline:
                    raise self._late() from error
                wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
                late = time.monotonic() + wait > deadline
                if error.code not in RETRIED or attempt == ATTEMPTS - 1 or late:
                    raise
                time.sleep(wait)
            else:
                if time.monotonic() > deadline:  # it took too long to read
                    raise self._late()
                return answer

    def _late(self):
        words = (
            f"No answer within {self.timeout} s, the client's timeout for all requests of a call."
        )
        return ServingError("DEADLINE_EXCEEDED", words)
