"""The embedded server: TF Serving's REST and gRPC protocol, for a laptop, a notebook, and tests."""

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import pathlib
import threading

import grpc
import uvicorn

from vae_tf.errors import invalid
from vae_tf.export.operations import trust_hint
from vae_tf.export.versions import check_labels, check_versions
from vae_tf.serving import network, rest, rpc
from vae_tf.serving.connection import Connection
from vae_tf.serving.core import Core
from vae_tf.serving.limits import Limits
from vae_tf.serving.versions import Versions

log = logging.getLogger("vae_tf.serving")
OTHERS = 16  # gRPC calls that are no predictions, at once


class EmbeddedServer:
    """Serve the versions of an exported decoder over TF Serving's REST and gRPC protocols.

    Args:
        path: a directory of versions, as `export_decoder` writes it.
        name: of the model, in addresses.
        host: the address to listen on; the default is reached from this machine only.
        rest_port, grpc_port: 0 takes a free one.
        labels: version numbers by label.
        limits: a `Limits`.
        cors: whether pages from elsewhere may ask.
        allowed_hosts: names of hosts in whose name it may be asked, beside those of loopback; those of
            pages, too. Where it listens on another address than loopback any may, unless names are given.
        poll_seconds: how often new versions are looked for.
        trust_model: serve it whatever its operations are; see `vae_tf.export.operations`.

    Attributes:
        rest_address, grpc_address: `host:port`, once it has started.
        unanswered: how many requests had not ended when it did.

    Raises:
        ValueError: `path` has no version that loads, or a port is taken.

    Example:
        >>> with EmbeddedServer("saved_models/mnist_z10") as server:  # doctest: +SKIP
        ...     images = Client(f"http://{server.rest_address}").generate(4, seed=0)
    """

    def __init__(
        self,
        path,
        name="vae",
        host="127.0.0.1",
        rest_port=8501,
        grpc_port=8500,
        labels=None,
        limits=None,
        cors=False,
        poll_seconds=1.0,
        trust_model=False,
        allowed_hosts=(),
    ):
        self.path, self.host, self.ports = pathlib.Path(path), host, (rest_port, grpc_port)
        check_name(name)
        check_versions(self.path)
        limits = limits or Limits()
        self.core = Core(
            Versions(
                self.path,
                name,
                labels,
                limits.batch,
                poll_seconds,
                limits.load_seconds,
                trust_model,
            ),
            limits,
        )
        self.cors, self.allowed_hosts, self.unanswered = cors, allowed_hosts, 0
        self._stop = self._thread = None

    async def run(self, started=lambda: None):
        """Serve until `stop` is called, then end what was begun."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        versions = self.core.versions
        versions.refresh()
        self._check_versions()
        asyncio.get_running_loop().set_exception_handler(network.OutOfSockets())
        watching = threading.Thread(target=versions.watch, args=[self.core.stopped], daemon=True)
        with self.core.running(), self._grpc() as leave_grpc:
            async with self._rest() as leave_rest:
                watching.start()
                started()
                await self._until_stopped()
                self.core.stopped.set()
                leave_rest()
                await asyncio.sleep(network.GOING)
                leave_grpc()
                self.unanswered = await self.core.drain()

    async def _until_stopped(self):
        while not self._stop.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)
            self.core.end_overdue()

    def stop(self):
        """Refuse what comes with a status that clients retry, finish what was begun, and end.

        From any thread.
        """
        if self._stop is None:
            return  # it has never been started
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    def _check_versions(self):
        available = self.core.versions.available()
        if not available:
            known = self.core.versions.known.values()
            refused = [version.error for version in known if "refused" in version.error]
            expected = (
                "a version that loads as a SavedModel; vae-tf verify-export says what is wrong"
            )
            received = ". ".join([f"{str(self.path)!r}, where none does", *refused]).rstrip(".")
            raise invalid("path", expected, received, trust_hint() if refused else "")
        check_labels(self.core.versions.labels, available)

    @contextlib.contextmanager
    def _grpc(self):
        limits, services = self.core.limits, rpc.Services(self.core)
        calls = limits.requests + OTHERS
        server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(calls, "vae-tf-grpc"),
            handlers=[services],
            options=[*network.grpc_options(limits, calls).items()],
            maximum_concurrent_rpcs=calls,
        )
        try:
            port = server.add_insecure_port(network.joined(self.host, self.ports[1]))
        except RuntimeError as error:
            raise network.taken("grpc_port", self.host, self.ports[1]) from error
        self.grpc_address = network.joined(self.host, port)
        server.start()

        def leave():
            server.stop(limits.drain_seconds)  # tells the clients to go elsewhere
            services.going.set()

        try:
            yield leave
        finally:
            server.stop(None)

    @contextlib.asynccontextmanager
    async def _rest(self):
        try:
            listener = network.listen(self.host, self.ports[0], self.core.limits)
        except OSError as error:
            raise network.taken("rest_port", self.host, self.ports[0]) from error
        address, port = listener.getsockname()[:2]
        self.rest_address = network.joined(self.host, port)
        config = uvicorn.Config(
            rest.build_app(self.core, address, self.allowed_hosts, self.cors),
            http=functools.partial(Connection, core=self.core),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # a line for each request that is none would fill the log
            access_log=False,
            server_header=False,
            # Connections are taken one at a time: out of sockets, asyncio would log as many lines, each
            # of which would try as often again. The others wait in the kernel, as `listen` has it.
            backlog=1,
            timeout_graceful_shutdown=1,  # all has ended by then
        )
        server = network.HttpServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        listener.listen(network.BACKLOG)
        try:
            yield server.close_after_answers
        finally:
            await server.end(listener)
            await serving

    # In a thread of its own, for notebooks and tests.

    def start(self):
        """Serve in a thread of this process; returns when the server is ready."""
        ready, failure = threading.Event(), []

        def serve():
            try:
                asyncio.run(self.run(ready.set))
            except BaseException as error:  # it is raised where `start` was called
                failure.append(error)
            ready.set()

        self._thread = threading.Thread(target=serve, name="vae-tf-serve", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]
        return self

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


def check_name(name):
    """Raise if a model cannot be called so."""
    if not name:
        raise invalid("name", "a name, which is not empty", f"name={name!r}")
