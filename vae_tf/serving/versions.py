"""The versions of a model: loaded as they appear, and unloaded when their last request is answered."""

import contextlib
import dataclasses
import logging
import threading

from vae_tf.export.versions import versions as exported_versions
from vae_tf.serving import servable
from vae_tf.serving.status import ServingError, invalid_argument

log = logging.getLogger("vae_tf.serving")

# The states of TF Serving, by its numbers (`GetModelStatus`).
LOADING, AVAILABLE, UNLOADING, END = 20, 30, 40, 50


@dataclasses.dataclass
class Version:
    """One version: its state, its model while it has one, and the requests that use it."""

    number: int
    state: int = LOADING
    model: servable.Servable | None = None
    error: str = ""
    requests: int = 0
    stamp: int = 0  # of the files that failed to load: others are tried again


class Versions:
    """The versions of one model in a directory: the newest that loads is served, and those with a label.

    Requests may come from any thread; one thread refreshes.

    Args:
        directory: holds a directory a version, named by its number.
        name: of the model, in addresses and messages.
        labels: version numbers by label.
        max_batch: rows that a request may have.
        poll_seconds: how often the directory is looked at.
        load_seconds, trust_model: for `servable.load`.
    """

    def __init__(
        self,
        directory,
        name,
        labels=None,
        max_batch=1024,
        poll_seconds=1.0,
        load_seconds=120.0,
        trust_model=False,
    ):
        self.directory, self.name, self.labels = directory, name, dict(labels or {})
        self.max_batch, self.poll_seconds = max_batch, poll_seconds
        self.load_seconds, self.trust_model = load_seconds, trust_model
        self.known, self._said = {}, None
        self._changed = threading.Condition()  # guards states and counts of requests

    @contextlib.contextmanager
    def use(self, name, version=None, label=None):
        """The version that a request is for, kept until the request is answered."""
        with self._changed:
            chosen = self.find(name, version, label)
            chosen.requests += 1
        try:
            yield chosen
        finally:
            with self._changed:
                chosen.requests -= 1
                self._changed.notify_all()

    def find(self, name, version=None, label=None):
        """The version asked for; by default the newest that is available.

        Raises:
            ServingError: there is no such model, version or label.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        if name != self.name:
            raise ServingError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if label is not None:
            if label not in self.labels:
                message = f"Unrecognized servable version label: {label}"
                raise invalid_argument(message)
            version = self.labels[label]
        available = self.available()
        if version is None and available:
            return self.known[available[-1]]
        if version not in available:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {wanted}")
        return self.known[version]

    def status(self, name, version=None, label=None):
        """The versions that are or were there, for `GetModelStatus`.

        Raises:
            ServingError: there is no such model, version or label.
        """
        if name != self.name or not self.known:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        if label is not None:
            version = self.find(name, label=label).number
        if version is None:
            return [self.known[number] for number in sorted(self.known, reverse=True)]
        if version not in self.known:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {name}")
        return [self.known[version]]

    def available(self):
        """The numbers of the versions that answer, in ascending order."""
        known = [*self.known.items()]
        return sorted(number for number, version in known if version.state == AVAILABLE)

    def watch(self, stopped):
        """Follow the directory until the event `stopped` is set."""
        while not stopped.wait(self.poll_seconds):
            try:
                self.refresh()
            except OSError as error:
                log.error("the versions cannot be read: %s", error)

    def refresh(self):
        """Load what is wanted and is not there; then unload what is no longer wanted."""
        present = exported_versions(self.directory)
        for number in sorted({*self.labels.values()}.intersection(present)):
            self._ensure(number)
        newest = next((number for number in reversed(present) if self._ensure(number)), None)
        if newest is None:
            return  # nothing to take the place of what answers now
        self._say(newest, present[-1])
        for number in self.available():
            if number not in (newest, *self.labels.values()) or number not in present:
                self._drain(self.known[number])

    def _ensure(self, number):
        """Whether a version answers, after loading it where that was not tried yet."""
        if self._to_load(number):
            self._load(number)
        return number in self.available()

    def _say(self, newest, last):
        """Once, that an older version is served than the last that is there."""
        if newest < last and (newest, last) != self._said:
            log.warning("version %d is served in the place of version %d", newest, last)
        self._said = (newest, last)

    def _to_load(self, number):
        known = self.known.get(number)
        gone = known is None or known.state == END
        return gone and (known is None or not known.error or known.stamp != self._stamp(number))

    def _stamp(self, number):
        path = self.directory / str(number)
        try:
            return max(file.stat().st_ctime_ns for file in (path, *path.rglob("*")))
        except OSError:
            return 0

    def _load(self, number):
        self.known[number] = version = Version(number, stamp=self._stamp(number))
        try:
            version.model = servable.load(
                self.directory / str(number), self.max_batch, self.trust_model, self.load_seconds
            )
        except Exception as error:  # whatever a file can hold: the others are served on
            version.state, version.error = END, f"Version {number} could not be loaded."
            if isinstance(error, servable.RefusedError):
                version.error = f"Version {number} is refused: {error}."
            log.error("version %d could not be loaded: %s", number, error)
            return
        version.state = AVAILABLE
        log.info("version %d is available", number)

    def _drain(self, version):
        with self._changed:
            version.state = UNLOADING
            self._changed.wait_for(lambda: not version.requests)
            version.model, version.state = None, END
        log.info("version %d is unloaded", version.number)
