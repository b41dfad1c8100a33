"""`vae-tf serve`, with engines that only say how they were called; and `vae-tf generate` from a server."""

import contextlib
import inspect
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile

import pytest
import yaml
from google.protobuf import text_format
from helpers import REPOSITORY
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from vae_tf import VAE, cli, export_decoder, serving
from vae_tf.serving.server import EmbeddedServer, Limits

COMMAND = [str(pathlib.Path(sysconfig.get_path("scripts")) / "vae-tf")]
MODULE = [sys.executable, "-m", "vae_tf"]
COMPOSE = yaml.safe_load((REPOSITORY / "deploy/docker-compose.yml").read_text())
SERVING = COMPOSE["services"]["serving"]
SECONDS = 30  # until a test gives up

# Keeps its words and its configuration, and stays until SIGTERM, or for half a minute.
FAKE = """
import json, os, pathlib, shutil, signal, sys
signal.alarm(30)
here = pathlib.Path(os.environ["FAKE"])
words = sys.argv[1:]
if words[0] == "kill":
    (here / "killed").write_text(words[1])
    sys.exit()
mounted = [word.partition(":")[0] for word in words if word.endswith(":/config:ro")]
flag = "--model_config_file="
files = [word.removeprefix(flag) for word in words if word.startswith(flag)]
folder = (mounted or [os.path.dirname(files[0])])[0]
shutil.copytree(folder, here / "config")
stubborn = "FAKE_STUBBORN" in os.environ
signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: sys.exit(0))
signal.signal(signal.SIGINT, signal.SIG_IGN)
(here / "part").write_text(json.dumps({"words": words, "folder": folder, "pid": os.getpid()}))
(here / "part").rename(here / "called.json")
end = os.environ.get("FAKE_END")
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if end:
    sys.exit(int(end))
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """The only directory on the PATH; nothing is in it."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("FAKE_END", "0")
    monkeypatch.chdir(tmp_path)
    return path


def install(path, binary):
    script = path / binary
    script.write_text(f"#!{sys.executable} -SE\n{FAKE}")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def directory(name, *versions):
    """What an engine that loads nothing takes for models."""
    for version in versions:
        pathlib.Path(name, str(version)).mkdir(parents=True)
    return pathlib.Path(name)


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def called():
    return json.loads(pathlib.Path("called.json").read_text())


def flags(words):
    return dict(re.fullmatch(r"--(\w+)=(\S+)", word).groups() for word in words)


def model_config():
    text = pathlib.Path("config/models.config").read_text()
    [model] = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    return model


def serve(*words):
    return cli.main(["serve", *map(str, words)])


# TensorFlow Serving.


@pytest.fixture
def binary(path):
    """tensorflow_model_server, which ends at once with status 0."""
    install(path, "tensorflow_model_server")


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("engine", ["auto", "tensorflow"])
def test_tensorflow_serving_is_called_as_deploy_has_it(engine, capsys):
    models = directory("vae", 1, 3)
    assert serve(models, "--engine", engine) == 0
    folder = called()["folder"]
    found, theirs = flags(called()["words"]), flags(SERVING["command"])
    assert (found.pop("port"), found.pop("rest_api_port")) == ("8500", "8501")
    assert found.pop("rest_api_enable_cors_support") == "false"
    for there in ("rest_api_enable_cors_support", "model_config_file_poll_wait_seconds"):
        theirs.pop(there)
    assert found == {name: value.replace("/config", folder) for name, value in theirs.items()}
    for file in ("batching.config", "monitoring.config"):
        deployed = (REPOSITORY / "deploy" / file).read_bytes()
        assert pathlib.Path("config", file).read_bytes() == deployed
    model = model_config()
    assert (model.name, model.base_path) == ("vae", str(models.resolve()))
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1
    assert not model.version_labels
    assert not pathlib.Path(folder).exists()
    out = capsys.readouterr().out
    assert "'vae' with TensorFlow Serving" in out
    assert ("tensorflow_model_server is on the PATH" in out) == (engine == "auto")
    assert "REST  http://127.0.0.1:8501/v1/models/vae\n" in out
    assert "every interface" in out


@pytest.mark.usefixtures("binary")
def test_its_options(capsys):
    models = directory("modèle", 1, 2, 3)
    options = "--name digits --rest-port 0 --grpc-port 0 --label stable=1 --label canary=2 --cors"
    assert serve(models, *options.split()) == 0
    found, out = flags(called()["words"]), capsys.readouterr().out
    assert found["rest_api_enable_cors_support"] == "true"
    ports = found["rest_api_port"], found["port"]
    assert len({*ports, "0"}) == 3  # to TF Serving, 0 is none
    assert f"REST  http://127.0.0.1:{ports[0]}/v1/models/digits\n" in out
    assert f"gRPC  127.0.0.1:{ports[1]}\n" in out
    assert f"vae-tf generate http://127.0.0.1:{ports[0]} --model digits " in out
    model = model_config()
    assert (model.name, model.base_path) == ("digits", str(models.resolve()))
    assert list(model.model_version_policy.specific.versions) == [1, 2, 3]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


@pytest.mark.usefixtures("binary")
def test_its_failure_is_the_commands(monkeypatch):
    models = directory("m", 1)
    monkeypatch.setenv("FAKE_END", "3")
    assert serve(models) == 3
    shutil.rmtree("config")
    monkeypatch.setenv("FAKE_END", "kill")
    assert serve(models) == 128 + signal.SIGKILL  # as a shell has it
    assert not pathlib.Path(called()["folder"]).exists()


def test_docker_is_called_as_deploy_has_it(path, capsys):
    install(path, "docker")
    models = directory("m", 1)
    assert serve(models, "--engine", "docker", "--rest-port", "9001") == 0
    words, folder = called()["words"], called()["folder"]
    number = words.index(SERVING["image"])
    options, inside = words[1:number], flags(words[number + 1 :])
    published = [options[i + 1] for i, word in enumerate(options) if word == "-p"]
    assert sorted(published) == ["127.0.0.1:8500:8500", "127.0.0.1:9001:8501"]
    mounted = [options[i + 1] for i, word in enumerate(options) if word == "-v"]
    assert sorted(mounted) == sorted(
        [f"{models.resolve()}:/models/served:ro", f"{folder}:/config:ro"]
    )
    assert words[0] == "run"
    assert {"--rm", "--init"} <= {*options}
    assert options[options.index("--entrypoint") + 1] == "tensorflow_model_server"
    assert (inside["port"], inside["rest_api_port"]) == ("8500", "8501")
    for flag in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        assert inside[flag] == flags(SERVING["command"])[flag]
    assert model_config().base_path == "/models/served"
    out = capsys.readouterr().out
    assert "TensorFlow Serving in Docker" in out
    assert "REST  http://127.0.0.1:9001/" in out
    assert "every interface" not in out


@contextlib.contextmanager
def process(*words, **environment):
    """A process whose engine, if it calls one, stays."""
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_END": "", **environment},
    ) as started:
        watchdog = threading.Timer(SECONDS, started.kill)
        watchdog.start()
        try:
            yield started
        finally:
            watchdog.cancel()
            started.kill()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("command", "number"),
    [(COMMAND, signal.SIGTERM), (MODULE, signal.SIGINT)],
    ids=["vae-tf", "-m"],
)
def test_a_signal_ends_the_engine(command, number, path):
    install(path, "tensorflow_model_server")
    with process(*command, "serve", str(directory("m", 1))) as started:
        wait_for(pathlib.Path("called.json").exists)
        started.send_signal(number)
        out, err = started.communicate()
    assert (started.returncode, err) == (0, "")
    assert "with TensorFlow Serving: tensorflow_model_server is on the PATH." in out
    assert gone(called()["pid"])
    assert not pathlib.Path(called()["folder"]).exists()


IN_HASTE = [
    sys.executable,
    "-c",
    "import sys; from vae_tf import cli; from vae_tf.serving import engines\n"
    "engines.STOP_SECONDS = float(sys.argv.pop(1)); sys.exit(cli.main())",
]


@pytest.mark.parametrize(
    ("engine", "stop_seconds", "signals"),
    [("tensorflow", 0.5, 1), ("docker", 0.5, 1), ("tensorflow", 99, 3)],
)
def test_an_engine_that_ignores_signals_is_killed(engine, stop_seconds, signals, path):
    """After STOP_SECONDS, or at the second signal."""
    install(path, {"tensorflow": "tensorflow_model_server"}.get(engine, engine))
    words = [*IN_HASTE, str(stop_seconds), "serve", str(directory("m", 1)), "--engine", engine]
    with process(*words, FAKE_STUBBORN="") as started:
        wait_for(pathlib.Path("called.json").exists)
        start = time.monotonic()
        for _ in range(signals):
            started.terminate()
            time.sleep(0.1)
        _, err = started.communicate()
    assert (started.returncode, err) == (0, "")
    assert time.monotonic() - start < 5
    assert signals > 1 or time.monotonic() - start > stop_seconds
    wait_for(lambda: gone(called()["pid"]))
    assert not pathlib.Path(called()["folder"]).exists()
    if engine == "docker":  # which, killed, would leave its container
        words = called()["words"]
        assert pathlib.Path("killed").read_text() == words[words.index("--name") + 1]


# The embedded server.


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "m"
    model = VAE(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, 4, 4))
    export_decoder(model, path)
    return path


@pytest.fixture(scope="module")
def embedded(models):
    """`(what it printed, REST address, gRPC address)` of a `vae-tf serve` that finds no engine."""
    words = [*MODULE, "serve", str(models), "--rest-port", "0", "--grpc-port", "0"]
    with process(*words, "--name", "digits", PATH="") as started:
        lines = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(started.stdout.readline())
            assert lines[-1], started.stderr.read()
        text = "".join(lines)
        rest = re.search(r"REST  (http://127\.0\.0\.1:\d+)/v1/models/digits\n", text)[1]
        grpc = re.search(r"gRPC  (127\.0\.0\.1:\d+)\n", text)[1]
        yield text, rest, f"grpc://{grpc}"
        started.terminate()
        out, _ = started.communicate()
        assert (started.returncode, out) == (
            0,
            "Stopped; every request that had been taken on was answered.\n",
        )


def test_without_an_engine_the_embedded_server_serves_and_says_why(embedded, models):
    text, rest, _ = embedded
    assert text.startswith(
        f"Serving {models} as 'digits' with the embedded server: "
        "tensorflow_model_server is not on the PATH.\n"
    )
    [line] = re.findall(r"Next: vae-tf (.*)", text)
    assert shlex.split(line)[:2] == ["generate", rest]
    assert cli.main(shlex.split(line)) == 0
    assert pathlib.Path("grid.png").stat().st_size > 1000


LIGHT = [
    sys.executable,
    "-c",
    "import sys\n"
    "for name in ('tensorflow', 'keras', 'grpc', 'starlette'): sys.modules[name] = None\n"
    "from vae_tf import cli; sys.exit(cli.main())",
]


def test_a_server_and_its_saved_model_draw_one_picture(embedded, models):
    _, rest, grpc = embedded
    draw = ["--num", "9", "--seed", "4", "--model", "digits"]
    assert cli.main(["generate", str(models), *draw, "--out", "saved.png"]) == 0
    words = [*LIGHT, "generate", rest, *draw, "--out", "a.png"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a.png\n", "")
    assert cli.main(["generate", grpc, *draw, "--out", "b.png"]) == 0
    saved = pathlib.Path("saved.png").read_bytes()
    assert pathlib.Path("a.png").read_bytes() == saved
    assert pathlib.Path("b.png").read_bytes() == saved
    assert cli.main(["generate", rest, *draw, "--seed", "5", "--out", "c.png"]) == 0
    assert pathlib.Path("c.png").read_bytes() != saved


def test_a_server_that_refuses(embedded, capsys):
    assert cli.main(["generate", embedded[1], "--model", "nobody"]) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"vae-tf generate: error: NOT_FOUND: .*nobody.*\n", err)
    assert not pathlib.Path("generated.png").exists()


@contextlib.contextmanager
def port(listen):
    """A port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listen:
            taken.listen()
        yield taken.getsockname()[1]


def test_a_server_that_is_not_there(capsys):
    with port(listen=False) as number:
        start = time.monotonic()
        assert cli.main(["generate", f"http://127.0.0.1:{number}"]) == 1
    assert time.monotonic() - start < 6
    assert re.fullmatch(
        rf"vae-tf generate: error: UNAVAILABLE: http://127\.0\.0\.1:{number} cannot .*\n",
        capsys.readouterr().err,
    )
    assert not pathlib.Path("generated.png").exists()


# What cannot be used.


def refused(capfd, *words):
    """The message of a call that gives 2."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as error:  # by the parser, which says its usage too
        status = error.code
        parsed = False
    else:
        parsed = True
    err = capfd.readouterr().err
    assert status == 2, err
    assert "Traceback" not in err
    *before, last = err.splitlines()
    assert last.startswith(f"vae-tf {words[0]}: error: ")
    assert not (parsed and before), err
    return last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nowhere", "'path'.*directory that holds versions.*'nowhere'"),
        ("file", "'path'.*'file'"),
        ("empty", "'path'.*'empty'"),
        ("one/1", "'path'.*'one/1'.*This is one version: give 'one'"),
        ("m --engine tensorflow", "'engine'.*tensorflow_model_server is not.*--engine embedded"),
        ("m --engine docker", "'engine'.*docker is not on the PATH.*--engine embedded"),
        ("m --engine magic", "--engine.*'magic'"),
        ("m --name ''", "'name'.*not empty.*name=''"),
        ("m --rest-port -1", "'rest_port'.*rest_port=-1"),
        ("m --grpc-port -1", "'grpc_port'.*grpc_port=-1"),
        ("m --rest-port 65536", "'rest_port'.*65535.*rest_port=65536"),
        ("m --grpc-port 65536", "'grpc_port'.*65535.*grpc_port=65536"),
        ("m --rest-port x", "--rest-port.*'x'"),
        *[(f"m --{n} -1", f"'{n.replace('-', '_')}'.*-1") for n in ("max-batch", "max-requests")],
        ("m --max-request-mib 0", "'max_request_mib'.*0"),
        *[
            (f"m --label {bad}", "NAME=VERSION")
            for bad in ("stable", "=1", "stable=x", "stable=-1")
        ],
        ("m --label stable=9", r"'label'.*stable=9.*\[1, 2\]"),
    ],
)
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "none"])
def test_what_cannot_be_served(options, message, engine, path, capfd):
    if engine and "not on" not in message and "is not" not in message:
        install(path, "tensorflow_model_server")
    directory("m", 1, 2)
    directory("one", 1)
    pathlib.Path("one/1/saved_model.pb").write_text("")
    pathlib.Path("empty").mkdir()
    pathlib.Path("file").write_text("")
    assert re.search(message, refused(capfd, "serve", *shlex.split(options)))
    assert not pathlib.Path("called.json").exists()


def test_a_port_in_use(models, capfd):
    with port(listen=True) as number:
        message = refused(capfd, "serve", models, "--rest-port", number, "--grpc-port", 0)
    assert re.search(rf"'rest_port'.*127\.0\.0\.1:{number}.*--rest-port N", message)


@pytest.mark.slow
def test_a_port_in_use_in_a_shell(models):
    """gRPC's own library has nothing to say beside the message."""
    with (
        port(listen=True) as number,
        process(*COMMAND, "serve", str(models), "--grpc-port", str(number)) as started,
    ):
        _, err = started.communicate()
    assert started.returncode == 2, err
    *log, message = err.splitlines()
    assert len(log) == 1  # the version is available
    assert re.match(
        rf"vae-tf serve: error: .*'grpc_port'.*127\.0\.0\.1:{number}.*--grpc-port N", message
    )


def test_versions_that_do_not_load(capfd):
    pathlib.Path(directory("m", 1), "1", "saved_model.pb").write_bytes(b"\xff")
    words = ("serve", "m", "--rest-port", 0, "--grpc-port", 0)
    assert re.search("'path'.*verify-export.*'m'", refused(capfd, *words))


@pytest.mark.parametrize(
    "package", ["starlette", "uvicorn", "orjson", "prometheus_client", "grpc_health"]
)
def test_without_the_extra(package, models, monkeypatch, capfd):
    for name in [package, *sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    parts = "server rest rpc metrics codec core connection network visitors"
    for name in parts.split():  # which are imported anew
        monkeypatch.delitem(sys.modules, f"vae_tf.serving.{name}", raising=False)
        monkeypatch.delattr(serving, name, raising=False)
    monkeypatch.setattr("asyncio.run", pytest.fail)
    message = refused(capfd, "serve", models, "--engine", "embedded")
    assert re.search(rf"'engine'.*{package}.*not installed", message)
    assert 'pip install "vae_tf[serve]"' in message


@pytest.mark.parametrize("address", ["http://", "ftp://localhost:1", "grpc://localhost"])
def test_addresses_that_are_none(address, capfd):
    assert re.search("'address'.*http://host:port", refused(capfd, "generate", address))


# Help, and what is installed.


def help_on(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_on_serving_says_what_holds(capsys):
    text = help_on("serve", capsys)
    args = cli.build_parser().parse_args(["serve", "m"])
    server = {n: p.default for n, p in inspect.signature(EmbeddedServer).parameters.items()}
    limits = Limits()
    for option, value, default in (
        ("--name NAME", args.name, server["name"]),
        ("--host HOST", args.host, server["host"]),
        ("--rest-port N", args.rest_port, server["rest_port"]),
        ("--grpc-port N", args.grpc_port, server["grpc_port"]),
        ("--max-batch N", args.max_batch, limits.batch),
        ("--max-request-mib N", args.max_request_mib, limits.request_bytes // 2**20),
        ("--max-requests N", args.max_requests, limits.requests),
    ):
        assert value == default
        assert re.search(rf" {option} (?:(?! --).)*default: {default}\b", text), option
    for words in (
        "auto,tensorflow,docker,embedded",
        "NAME=VERSION",
        "--cors",
        "SIGTERM",
        "429",
        "--allow-host NAME",
    ):
        assert words in text


def test_help_on_generating_names_the_sources(capsys):
    text = help_on("generate", capsys)
    for words in ("http://localhost:8501", "grpc://localhost:8500", "SavedModel", "--model NAME"):
        assert words in text


@pytest.mark.slow
def test_the_wheel_holds_what_is_served(tmp_path):
    source = tmp_path / "source"
    for name in ("vae_tf", "deploy"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(source), "-w", "."]
    subprocess.run(words, check=True)
    [wheel] = pathlib.Path().glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        for file in ("deploy/batching.config", "deploy/monitoring.config", "explorer.html"):
            own = (REPOSITORY / "vae_tf" / "serving" / file).read_bytes()
            assert files.read(f"vae_tf/serving/{file}") == own
