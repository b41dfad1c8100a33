"""Every limit of the embedded server, and what counts against them."""

import contextlib
import dataclasses
import threading

from vae_tf.serving.status import ServingError


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes on. With the defaults it stays under 2 GiB, of which TensorFlow takes 0.8, for
    models of images up to 64×64 in colour.

    Each limit holds for REST and gRPC alike.
    """

    batch: int = 1024  # rows of a request
    request_bytes: int = 16 * 2**20
    requests: int = 64  # from their headers to the last byte of their answers; more are refused
    answer_bytes: int = 64 * 2**20
    held_bytes: int = 128 * 2**20  # of all bodies, and of all answers that are not yet read
    connections: int = 256  # of each protocol
    header_bytes: int = 64 * 2**10  # all of an HTTP request that is not its body
    header_seconds: float = 10.0  # for the headers to arrive
    read_seconds: float = 30.0  # for a body to arrive
    write_seconds: float = 60.0  # for an answer to be read
    drain_seconds: float = 30.0  # for requests to end, when the server stops
    load_seconds: float = 120.0  # for a version to load and warm up


class Budget:
    """An amount that requests share.

    Attributes:
        left: of it.
    """

    def __init__(self, total):
        self._total = self.left = total
        self._changed = threading.Condition()

    def take(self, amount):
        """Take it at once.

        Raises:
            ServingError: there is not so much left.
        """
        with self._changed:
            if amount > self.left:
                message = f"The requests that the server has hold {self._total - self.left} bytes"
                raise ServingError("RESOURCE_EXHAUSTED", f"{message} already; try again.")
            self.left -= amount

    def give(self, amount):
        with self._changed:
            self.left += amount
            self._changed.notify_all()

    @contextlib.contextmanager
    def lent(self, amount):
        """Wait for it, and give it back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: amount <= self.left)
            self.left -= amount
        try:
            yield
        finally:
            self.give(amount)
