"""What both protocols share: the versions, the limits, and the requests that the server has."""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time

import numpy as np

from vae_tf.serving.limits import Budget
from vae_tf.serving.metrics import Metrics
from vae_tf.serving.status import ServingError, invalid_argument

NUMBERS = 2**19  # of inputs and outputs that the model runs on at once
STOPPING = "The server is stopping; ask again."


class Core:
    """The server, whichever protocol it is asked by.

    Args:
        versions: the `Versions` that are served.
        limits: a `Limits`.
    """

    def __init__(self, versions, limits):
        self.versions, self.limits, self.metrics = versions, limits, Metrics(versions)
        self.stopped = threading.Event()  # no request is taken on
        # so that any request that is allowed fits, at least when it is alone
        most = limits.request_bytes + limits.answer_bytes
        self.held = Budget(max(limits.held_bytes, most))
        self.threads = None
        self._numbers = Budget(NUMBERS)
        self._places, self._lock = set(), threading.Lock()
        self._parsing = threading.Lock()
        self._expected = {}

    @property
    def ready(self):
        return bool(self.versions.available()) and not self.stopped.is_set()

    @property
    def admitted(self):
        """How many requests there are."""
        return len(self._places)

    def admit(self, api, ends=1):
        """A `Place` for a request, or refuse it at once: nothing queues without bound.

        Args:
            ends: how often `leave` is called before it has left.
        """
        place = Place(self, api, ends)
        with self._lock:
            stopping, full = self.stopped.is_set(), len(self._places) >= self.limits.requests
            if not stopping and not full:
                self._places.add(place)
                self.metrics.admitted.set(len(self._places))
                return place
        code = "UNAVAILABLE" if stopping else "RESOURCE_EXHAUSTED"
        self.metrics.count(api, code, 0)
        message = f"The server has {self.limits.requests} requests already; try again."
        raise ServingError(code, STOPPING if stopping else message)

    def leave(self, place):
        """A request has ended, or one of the two that answer it has: it gives back what it held."""
        with self._lock:
            place.ends -= 1
            if place.ends:
                return
            self._places.remove(place)
            self.metrics.admitted.set(len(self._places))
        self.held.give(place.held)

    def parse(self, read, *arguments):
        """Call `read`, one at a time: a message can take forty times its bytes while it is read.

        Python reads one at a time anyway, so that nobody waits longer for it.
        """
        with self._parsing:
            return read(*arguments)

    def predict(self, place, model, signature, arrays, outputs, write, number_bytes):
        """The answer, as bytes, for which the place holds room before the model runs.

        Args:
            place: the request's `Place`.
            model: a `Servable`.
            signature, arrays, outputs: as `Servable.predict` takes them.
            write: makes bytes of the arrays by name that it gives.
            number_bytes: what a number takes in them, at most.
        """
        rows = max((len(array) for array in arrays.values()), default=0)
        room = rows * number_bytes * model.answer_values(signature, outputs)
        most = self.limits.answer_bytes
        if room > most:
            message = f"The answer to {rows} rows would take {room} bytes; this server's limit is"
            hint = f"ask for {most * rows // room} rows at a time"
            raise invalid_argument(f"{message} {most}: {hint}.")
        place.hold(room)
        answer = write(self._run(model, signature, arrays, outputs, rows))
        place.hold(max(0, len(answer) - room))
        return answer

    def _run(self, model, signature, arrays, outputs, rows):
        """In parts whose numbers are few, which take turns: layers in between take many times as much."""
        each = max(1, model.values(signature))
        step = max(1, NUMBERS // each) if model.is_batched(signature) else max(1, rows)
        parts = []
        for start in range(0, max(1, rows), step):
            part = {name: array[start : start + step] for name, array in arrays.items()}
            with self._numbers.lent(min(NUMBERS, each * min(step, rows))):
                parts.append(model.predict(signature, part, outputs))
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def compute(self, function, *arguments):
        """Run `function` in one of as many threads as there are processors."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, function, *arguments)

    def expect(self, call, seconds):
        """Cancel a gRPC call if its client does not do its part in time."""
        self._expected[call] = time.monotonic() + seconds

    def expected(self, call):
        """It has."""
        self._expected.pop(call, None)

    def end_overdue(self):
        now = time.monotonic()
        for call, deadline in [*self._expected.items()]:
            if deadline < now:
                self.expected(call)
                call.cancel()

    async def drain(self):
        """Wait for the requests to end, as long as the limits say; gives how many have not."""
        end = time.monotonic() + self.limits.drain_seconds
        while self._places and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return len(self._places)

    @contextlib.contextmanager
    def running(self):
        """With threads; a server that has stopped can be started again."""
        self.stopped.clear()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "vae-tf-rest") as self.threads:
            try:
                yield
            finally:
                self.stopped.set()


class Place:
    """A request that was taken on, and what it holds."""

    def __init__(self, core, api, ends):
        self.ends, self.held, self._core = ends, 0, core
        self._api, self._start = api, time.perf_counter()

    def hold(self, size):
        """Hold so many bytes more, until the request ends.

        Raises:
            ServingError: the requests hold too much together.
        """
        self._core.held.take(size)
        self.held += size

    def leave(self):
        self._core.leave(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        code = error.code if isinstance(error, ServingError) else "CANCELLED" if error else "OK"
        self._core.metrics.count(self._api, code, time.perf_counter() - self._start)
        self.leave()
