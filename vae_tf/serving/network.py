"""The sockets of the embedded server, and what uvicorn, asyncio and gRPC are told about them."""

import asyncio
import contextlib
import errno
import logging
import selectors
import socket

import uvicorn

from vae_tf.errors import invalid

log = logging.getLogger("vae_tf.serving")
BACKLOG = 2048  # connections that wait to be let in
GOING = 0.1  # seconds in which the requests that are on their way arrive


class HttpServer(uvicorn.Server):
    def capture_signals(self):
        """Signals are the command's own business."""
        return contextlib.nullcontext()

    def close_after_answers(self):
        """Answers that have not begun say that the connection closes."""
        for connection in self.server_state.connections:
            if connection.cycle is not None and not connection.cycle.response_started:
                connection.cycle.keep_alive = False

    async def end(self, listener):
        """Answer what still runs with an error, and whoever waits to be let in; then shut down."""
        tasks = {*self.server_state.tasks}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        await self._let_in(listener)
        for server in self.servers:
            server.close()  # whoever comes now finds nobody
        await asyncio.sleep(GOING)
        self.should_exit = True

    async def _let_in(self, listener):
        """Until nobody waits, nor did two turns of the loop ago: as many as a connection takes to be made."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(listener, selectors.EVENT_READ)
            turns = 0
            for _ in range(BACKLOG):
                turns = 0 if waiting.select(0) else turns + 1
                if turns == 3:
                    return
                await asyncio.sleep(0)


class OutOfSockets:
    """Handles a loop's exceptions: that there are no sockets is said once, and not once a second."""

    def __init__(self):
        self.said = False

    def __call__(self, loop, context):
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif not self.said:
            self.said = True
            log.error("out of sockets (%s): connections wait. ulimit -n sets how many.", error)


def grpc_options(limits, calls):
    """gRPC's own settings; those that the installed one does not know it passes over."""
    milliseconds = int(1000 * limits.header_seconds)
    return {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": limits.request_bytes,
        "grpc.max_concurrent_streams": calls,
        "grpc.max_allowed_incoming_connections": limits.connections,
        "grpc.server_handshake_timeout_ms": milliseconds,
        "grpc.max_connection_idle_ms": 300_000,
        "grpc.keepalive_time_ms": 30_000,  # is the client there?
        "grpc.keepalive_timeout_ms": milliseconds,
    }


def listen(host, port, limits):
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # With its protocol named, asyncio answers without Nagle's delay of 40 ms.
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # the last of an answer, which nobody reads
        milliseconds = int(1000 * limits.write_seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def joined(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def taken(argument, host, port):
    option = argument.replace("_", "-")
    hint = f"Give another by --{option} N; 0 takes a free one."
    return invalid(argument, "a port that can be listened on", joined(host, port), hint)
