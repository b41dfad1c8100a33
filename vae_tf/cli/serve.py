"""`vae-tf serve`: which engine, and the embedded server's life until a signal."""

import asyncio
import logging
import os
import pathlib
import shlex
import signal
import socket
import sys
import urllib.parse

from vae_tf.cli.quiet import import_tensorflow
from vae_tf.errors import check_non_negative, check_positive_int, invalid


def run_serve(args):
    from vae_tf.export import versions
    from vae_tf.serving import engines

    if not args.name:
        raise invalid("name", "a name, which is not empty", "name=''")
    path = pathlib.Path(args.saved_model)
    versions.check_labels(dict(args.label), versions.check_versions(path))
    for name in ("max_batch", "max_request_mib", "max_requests"):
        check_positive_int(name, getattr(args, name))
    check_non_negative("load_timeout", args.load_timeout, above=True)
    for name in ("rest_port", "grpc_port"):
        if check_positive_int(name, getattr(args, name), minimum=0) > 65535:
            raise invalid(name, "a port, which is at most 65535", f"{name}={getattr(args, name)}")
    engine, why = engines.choose(args.engine)
    words = {"embedded": "the embedded server", "docker": "TensorFlow Serving in Docker"}
    print(f"Serving {path} as {args.name!r} with {words.get(engine, 'TensorFlow Serving')}: {why}.")
    if engine == "embedded":
        return _embedded(args)
    rest_port, grpc_port = (port or _free_port() for port in (args.rest_port, args.grpc_port))
    _say_addresses(args.host, rest_port, f"{args.host}:{grpc_port}", args.name)
    if engine == "tensorflow":
        print("It listens on every interface of this machine.", flush=True)
    where = (args.host, rest_port, grpc_port)
    return engines.run(engine, path, args.name, dict(args.label), *where, args.cors)


def _free_port():
    """TF Serving takes 0 for none at all."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def _embedded(args):
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # of its C library: the errors are raised, too
    # Requests run side by side: one that took every processor would only be in the others' way.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, os.cpu_count() // 2)))
    import_tensorflow()
    try:
        from vae_tf.serving.server import EmbeddedServer, Limits
    except ModuleNotFoundError as error:
        what = (
            f"an engine that is there; the embedded one needs {error.name}, which is not installed"
        )
        hint = 'pip install "vae_tf[serve]" installs it.'
        raise invalid("engine", what, args.engine, hint) from error
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("vae_tf.serving").setLevel("INFO")
    limits = Limits(
        args.max_batch,
        args.max_request_mib * 2**20,
        args.max_requests,
        load_seconds=args.load_timeout,
    )
    ports = (args.rest_port, args.grpc_port)
    server = EmbeddedServer(
        args.saved_model,
        args.name,
        args.host,
        *ports,
        dict(args.label),
        limits,
        args.cors,
        trust_model=args.trust_model,
        allowed_hosts=args.allow_host,
    )
    asyncio.run(_until_signalled(server, args.name))
    left, seconds = server.unanswered, limits.drain_seconds
    count = "1 request was" if left == 1 else f"{left} requests were"
    late = f"{count} not answered within {seconds:g} seconds."
    print("Stopped;", late if left else "every request that had been taken on was answered.")
    _end_at_once_if_left_behind()
    return 0


def _end_at_once_if_left_behind():
    """TensorFlow, taken down beneath a model that still computes, would crash."""
    from vae_tf.serving import servable

    if servable.left_behind():
        sys.stdout.flush()
        os._exit(0)


async def _until_signalled(server, name):
    loop = asyncio.get_running_loop()

    def stop():
        print("Stopping ...", file=sys.stderr, flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # the next one ends it at once
        server.stop()

    def started():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        host, _, port = server.rest_address.rpartition(":")
        print(f"  page  http://{host}:{port}/")
        _say_addresses(host, port, server.grpc_address, name)

    await server.run(started)


def _say_addresses(host, rest_port, grpc_address, name):
    print(f"  REST  http://{host}:{rest_port}/v1/models/{urllib.parse.quote(name, safe='')}")
    print(f"  gRPC  {grpc_address}")
    which = "" if name == "vae" else f" --model {shlex.quote(name)}"
    print(f"Next: vae-tf generate http://{host}:{rest_port}{which} --num 64 --out grid.png")
    print("Ctrl-C stops it.", flush=True)
