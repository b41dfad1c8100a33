"""TensorFlow Serving itself as the engine of `vae-tf serve`: its command line, from the files in deploy/."""

import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from vae_tf.errors import invalid
from vae_tf.export.versions import versions

BINARY = "tensorflow_model_server"
IMAGE = "tensorflow/serving:2.20.0"  # the one of deploy/docker-compose.yml
DEPLOY = pathlib.Path(__file__).parent / "deploy"  # a link to deploy/, which is installed with this
STOP_SECONDS = 35  # its REST requests may take 30


def choose(engine):
    """`(engine, why)`: for "auto", TF Serving where its binary is on the PATH, else the embedded server.

    Raises:
        ValueError: the engine that was asked for is not there.
    """
    binaries = {"tensorflow": BINARY, "docker": "docker"}
    if engine == "auto":
        there = shutil.which(BINARY) is not None
        why = f"{BINARY} is {'' if there else 'not '}on the PATH"
        return ("tensorflow" if there else "embedded"), why
    if engine in binaries and shutil.which(binaries[engine]) is None:
        expected = f"an engine that is installed; {binaries[engine]} is not on the PATH"
        raise invalid("engine", expected, repr(engine), "--engine embedded needs nothing else.")
    return engine, "as asked"


def command(engine, path, config, host, rest_port, grpc_port, cors):
    """The words that start TF Serving for the models of the file `config`.

    Args:
        engine: "tensorflow" or "docker".
        path: the directory of versions.
        config: a directory that holds models.config, batching.config and monitoring.config.
    """
    ports = {"port": grpc_port, "rest_api_port": rest_port}
    where = str(config)
    start = [BINARY]
    if engine == "docker":
        ports, where = {"port": 8500, "rest_api_port": 8501}, "/config"
        start = ["docker", "run", "--rm", "--init", "--name", config.name]
        start += ["--entrypoint", BINARY]
        host = socket.gethostbyname(host)  # Docker wants a number
        start += ["-p", f"{host}:{rest_port}:8501", "-p", f"{host}:{grpc_port}:8500"]
        start += ["-v", f"{path.resolve()}:/models/served:ro", "-v", f"{config}:/config:ro", IMAGE]
    flags = {
        **ports,
        "model_config_file": f"{where}/models.config",
        "allow_version_labels_for_unavailable_models": "true",
        "enable_batching": "true",
        "batching_parameters_file": f"{where}/batching.config",
        "monitoring_config_file": f"{where}/monitoring.config",
        "rest_api_enable_cors_support": str(cors).lower(),
    }
    return [*start, *(f"--{name}={value}" for name, value in flags.items())]


def models_config(path, name, labels, base_path):
    """The text of a models.config: the newest version, or the newest and those with a label.

    Args:
        path: the directory of versions.
        base_path: where the server sees it.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add(name=name, base_path=str(base_path))
    model.model_platform = "tensorflow"
    if labels:
        newest = versions(path)[-1]
        model.model_version_policy.specific.versions.extend(sorted({newest, *labels.values()}))
    else:
        model.model_version_policy.latest.num_versions = 1
    model.version_labels.update(labels)
    return text_format.MessageToString(config)


def run(engine, path, name, labels, host, rest_port, grpc_port, cors):
    """Start TF Serving and stay until it ends; SIGTERM and Ctrl-C end it. Returns its exit status."""
    with tempfile.TemporaryDirectory(prefix="vae-tf-serve-") as folder:
        inside = "/models/served" if engine == "docker" else path.resolve()
        config = pathlib.Path(folder)
        for file in ("batching.config", "monitoring.config"):
            shutil.copy(DEPLOY / file, config / file)
        (config / "models.config").write_text(models_config(path, name, labels, inside))
        words = command(engine, path, config, host, rest_port, grpc_port, cors)
        print(" ".join(words), flush=True)
        killing = ["docker", "kill", config.name] if engine == "docker" else None
        return _wait(subprocess.Popen(words), killing)


def _wait(child, killing=None):
    """Its exit status, or 0 where a signal to this process ended it.

    Args:
        child: TF Serving, or the `docker` that runs it.
        killing: the words that end what the child runs, where to kill the child would not.
    """

    def kill():
        if killing:
            subprocess.run(killing, stdout=subprocess.DEVNULL, check=False)
        child.kill()

    def end(*_):
        if killer.ident is not None:  # the second signal
            kill()
        else:
            child.terminate()
            killer.start()

    # TF Serving ignores SIGTERM: github.com/tensorflow/serving/issues/1853
    killer = threading.Timer(STOP_SECONDS, kill)
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked = killer.ident is not None
        killer.cancel()
    return 0 if asked else status if status >= 0 else 128 - status
