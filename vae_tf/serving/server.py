"""The embedded server: TF Serving's REST and gRPC protocol, for a laptop, a notebook, and tests."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import pathlib
import socket
import threading
import time

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from vae_tf.errors import invalid
from vae_tf.export.versions import check_labels, check_versions
from vae_tf.serving import rest, rpc
from vae_tf.serving.metrics import Metrics
from vae_tf.serving.status import ServingError
from vae_tf.serving.versions import Versions

log = logging.getLogger("vae_tf.serving")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes on at once."""

    batch: int = 1024  # rows of a request
    request_bytes: int = 16 * 2**20
    requests: int = 64  # read, waiting or running; more are refused
    read_seconds: float = 30.0  # for a body to arrive
    drain_seconds: float = 30.0  # for requests to end, when the server stops


class Core:
    """What both protocols share: the versions, the limit on requests, and the threads that compute."""

    def __init__(self, versions, limits):
        self.versions, self.limits, self.metrics = versions, limits, Metrics(versions)
        self.stopped = threading.Event()
        self._admitted, self._lock = 0, threading.Lock()
        self.threads = None

    @property
    def ready(self):
        return bool(self.versions.available()) and not self.stopped.is_set()

    @contextlib.contextmanager
    def admitted(self, api):
        """Count a request in, or refuse it at once: nothing queues without bound."""
        start, code = time.perf_counter(), "OK"
        try:
            self._count(1)
            try:
                yield
            finally:
                self._count(-1)
        except ServingError as error:
            code = error.code
            raise
        except BaseException:
            code = "CANCELLED"
            raise
        finally:
            self.metrics.requests.labels(api, code).inc()
            self.metrics.seconds.labels(api).observe(time.perf_counter() - start)

    def _count(self, change):
        with self._lock:
            if self._admitted + change > self.limits.requests:
                message = f"The server has {self.limits.requests} requests already; try again."
                raise ServingError("RESOURCE_EXHAUSTED", message)
            self._admitted += change
            self.metrics.admitted.set(self._admitted)

    async def compute(self, function, *arguments):
        """Run `function` in one of as many threads as there are processors."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, function, *arguments)

    @contextlib.contextmanager
    def running(self):
        """With threads; a server that has stopped can be started again."""
        self.stopped.clear()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "vae-tf-rest") as self.threads:
            try:
                yield
            finally:
                self.stopped.set()


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
        poll_seconds: how often new versions are looked for.

    Attributes:
        rest_address, grpc_address: `host:port`, once it has started.

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
    ):
        self.path, self.host, self.ports = pathlib.Path(path), host, (rest_port, grpc_port)
        check_versions(self.path)
        limits = limits or Limits()
        self.core = Core(Versions(self.path, name, labels, limits.batch, poll_seconds), limits)
        self.cors = cors
        self._stop = self._thread = None

    async def run(self, started=lambda: None):
        """Serve until `stop` is called, then end what was begun."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        versions = self.core.versions
        versions.refresh()
        self._check_versions()
        watching = threading.Thread(target=versions.watch, args=[self.core.stopped], daemon=True)
        with self.core.running(), self._grpc() as stop_grpc:
            async with self._rest():
                watching.start()
                started()
                await self._stop.wait()
                self.core.stopped.set()
                stop_grpc()

    def stop(self):
        """Take no more requests, finish those there are, and end. From any thread."""
        if self._stop is None:
            return  # it has never been started
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    def _check_versions(self):
        available = self.core.versions.available()
        if not available:
            expected = (
                "a version that loads as a SavedModel; vae-tf verify-export says what is wrong"
            )
            raise invalid("path", expected, f"{str(self.path)!r}, where none does")
        check_labels(self.core.versions.labels, available)

    @contextlib.contextmanager
    def _grpc(self):
        limits = self.core.limits
        options = {"grpc.max_receive_message_length": limits.request_bytes, "grpc.so_reuseport": 0}
        server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(2 * os.cpu_count(), "vae-tf-grpc"),
            options=[*options.items()],
            maximum_concurrent_rpcs=limits.requests,
        )
        checks = _Health(experimental_non_blocking=False)
        checks.set("", health_pb2.HealthCheckResponse.SERVING)
        add = prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server
        add(rpc.PredictionService(self.core), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            rpc.ModelService(self.core), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        try:
            port = server.add_insecure_port(_joined(self.host, self.ports[1]))
        except RuntimeError as error:
            raise _taken("grpc_port", self.host, self.ports[1]) from error
        self.grpc_address = _joined(self.host, port)
        server.start()

        def stop():
            checks.enter_graceful_shutdown()
            return server.stop(limits.drain_seconds)

        try:
            yield stop
        finally:
            stop().wait()

    @contextlib.asynccontextmanager
    async def _rest(self):
        try:
            listener = _listen(self.host, self.ports[0])
        except OSError as error:
            raise _taken("rest_port", self.host, self.ports[0]) from error
        self.rest_address = _joined(self.host, listener.getsockname()[1])
        app = rest.build_app(self.core, self.cors)
        config = uvicorn.Config(
            app,
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(self.core.limits.drain_seconds),
        )
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            server.should_exit = True
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


class _Health(health.HealthServicer):
    def Watch(self, request, context):  # noqa: N802
        """Not offered, which clients take for health: a stream would keep the server from ending."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Ask by Check.")


class _Uvicorn(uvicorn.Server):
    def capture_signals(self):
        """Signals are the command's own business."""
        return contextlib.nullcontext()


def _listen(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # With its protocol named, asyncio answers without Nagle's delay of 40 ms.
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _joined(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _taken(argument, host, port):
    option = argument.replace("_", "-")
    hint = f"Give another by --{option} N; 0 takes a free one."
    return invalid(argument, "a port that can be listened on", _joined(host, port), hint)
