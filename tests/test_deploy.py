"""The files in deploy/: the messages, schemas and names they must fit. Nothing is started but a shell."""

import copy
import http.server
import pathlib
import re
import subprocess
import threading

import kubernetes_validate
import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from helpers import REPOSITORY
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from vae_tf.export.warmup import WARMUP_BATCH_SIZES

DEPLOY = REPOSITORY / "deploy"
IMAGE = "tensorflow/serving:2.20.0"
REST_TIMEOUT = 30  # seconds; the default of --rest_api_timeout_in_ms

# tensorflow/serving, tensorflow_serving/model_servers/main.cc
FLAGS = set(
    re.findall(
        r"\w+",
        """port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
    rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models
    batching_parameters_file enable_per_model_batching_parameters model_config_file
    model_config_file_poll_wait_seconds model_name model_base_path num_load_threads
    num_unload_threads max_num_load_retries load_retry_interval_micros
    file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
    tensorflow_session_config_file tensorflow_intra_op_parallelism
    tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file
    per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads
    enable_model_warmup num_request_iterations_for_warmup version monitoring_config_file
    remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
    num_tflite_interpreters_per_pool enable_signature_method_name_check
    xla_cpu_compilation_enabled enable_profiler thread_pool_factory_config_file""",
    )
)

# Two messages that tensorflow-serving-api does not ship: name, number, type, repeated. From
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto and
# tensorflow_serving/config/monitoring_config.proto
INT64, STRING, BOOL = "google.protobuf.Int64Value", "google.protobuf.StringValue", "bool"
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, INT64, False),
        ("batch_timeout_micros", 2, INT64, False),
        ("max_enqueued_batches", 3, INT64, False),
        ("num_batch_threads", 4, INT64, False),
        ("thread_pool_name", 5, STRING, False),
        ("allowed_batch_sizes", 6, "int64", True),
        ("pad_variable_length_inputs", 7, BOOL, False),
    ],
    "PrometheusConfig": [("enable", 1, BOOL, False), ("path", 2, "string", False)],
    "MonitoringConfig": [("prometheus_config", 1, "tensorflow.serving.PrometheusConfig", False)],
}


def message(name):
    """An empty message of TF Serving's, from the table above."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="facts.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field, number, kind, repeated in fields:
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            entry = described.field.add(name=field, number=number, label=label)
            if "." in kind:
                entry.type, entry.type_name = field_type.TYPE_MESSAGE, f".{kind}"
            else:
                entry.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    return message_factory.GetMessageClass(descriptor)()


def load(path):
    return yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))


def flags(arguments):
    """Arguments `--name=value` as a dictionary."""
    pairs = [re.fullmatch(r"--(\w+)=(\S+)", argument).groups() for argument in arguments]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


COMPOSE = load("deploy/docker-compose.yml")
SERVING = COMPOSE["services"]["serving"]
MANIFESTS = {path.name: load(path) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}
DEPLOYMENT = MANIFESTS["deployment.yaml"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
KUSTOMIZATION = load("deploy/kustomization.yaml")
CONFIG_MAPS = {entry["name"]: entry["files"] for entry in KUSTOMIZATION["configMapGenerator"]}
[MODEL] = text_format.Parse(
    (DEPLOY / "models.config").read_text(encoding="utf-8"), ModelServerConfig()
).model_config_list.config


def parse_config(file, name):
    return text_format.Parse((DEPLOY / file).read_text(encoding="utf-8"), message(name))


def test_labels_name_versions_that_are_served_and_that_ship():
    served = set(MODEL.model_version_policy.specific.versions)
    assert MODEL.model_platform == "tensorflow"
    assert set(MODEL.version_labels) == {"stable", "canary"}
    assert set(MODEL.version_labels.values()) <= served
    source = SERVING["volumes"][0]["source"]
    [default] = re.fullmatch(r"\$\{MODEL_DIR:-(.+)\}", source).groups()
    for version in served:
        assert (DEPLOY / default / str(version) / "saved_model.pb").is_file()


def test_batches_have_the_sizes_of_the_warm_up():
    batching = parse_config("batching.config", "BatchingParameters")
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value
    assert sizes == list(WARMUP_BATCH_SIZES)
    assert batching.num_batch_threads.value >= 1
    assert batching.max_enqueued_batches.value >= 1
    assert batching.HasField("batch_timeout_micros")


def test_metrics_are_on_at_a_path():
    prometheus = parse_config("monitoring.config", "MonitoringConfig").prometheus_config
    assert prometheus.enable
    assert prometheus.path.startswith("/")


@pytest.mark.parametrize("text", ["max_batch_sizes { value: 64 }", "max_batch_size: 64"])
def test_an_unknown_field_and_a_bare_value_are_refused(text):
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, message("BatchingParameters"))


def test_flags_are_those_of_tf_serving_and_the_same_everywhere():
    compose, cluster = flags(SERVING["command"]), flags(CONTAINER["args"])
    assert set(compose) | set(cluster) <= FLAGS
    assert compose.items() <= cluster.items()
    for switch in (
        "enable_batching",  # or the server refuses to start with a file of batching parameters
        "allow_version_labels_for_unavailable_models",  # or it refuses the labels
        "rest_api_enable_cors_support",
    ):
        assert compose[switch] == "true"
    limit = CONTAINER["resources"]["limits"]["cpu"]
    assert cluster["tensorflow_session_parallelism"] == limit


@pytest.mark.parametrize(
    ("arguments", "present"),
    [
        (SERVING["command"], {path.name for path in DEPLOY.iterdir()}),
        (CONTAINER["args"], set().union(*CONFIG_MAPS.values())),
    ],
    ids=["compose", "kubernetes"],
)
def test_every_file_a_flag_names_is_mounted(arguments, present):
    named = [value for name, value in flags(arguments).items() if name.endswith("_file")]
    assert len(named) == 3
    for path in map(pathlib.PurePosixPath, named):
        assert str(path.parent) == "/config"
        assert path.name in present


def test_the_model_is_mounted_read_only_where_the_configuration_looks():
    assert SERVING["volumes"][0]["target"] == MODEL.base_path
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert mounts["models"]["mountPath"] == MODEL.base_path
    assert mounts["models"]["readOnly"]
    assert mounts["config"]["mountPath"] == "/config"


def test_compose_pins_mounts_and_binds():
    for service in COMPOSE["services"].values():
        assert re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+(-\w+)?", service["image"])
        for mount in service["volumes"]:
            source = re.sub(r"\$\{\w+:-(.+)\}", r"\1", mount["source"])
            assert (DEPLOY / source).exists()
            assert mount["read_only"]
        for port in service["ports"]:
            assert re.fullmatch(r"\$\{BIND:-127\.0\.0\.1\}:\d+:\d+", port)
    published = [port.split(":")[-1] for port in SERVING["ports"]]
    assert sorted(published) == sorted(str(port["containerPort"]) for port in CONTAINER["ports"])


def test_one_image_everywhere():
    assert SERVING["image"] == CONTAINER["image"] == IMAGE
    [loader] = MANIFESTS["loader.yaml"]["spec"]["containers"]
    assert loader["image"] == IMAGE
    workflow = load(".github/workflows/serving-contract.yml")
    commands = [step.get("run", "") for step in workflow["jobs"]["tf-serving"]["steps"]]
    [up] = [command for command in commands if " up " in command]
    assert "--file deploy/docker-compose.yml" in up
    assert "docker run" not in "".join(commands)


def test_probes_ask_for_the_model_and_the_label_there_are():
    ready = f"/v1/models/{MODEL.name}/labels/stable/metadata"
    assert f"GET {ready} HTTP/1.1" in SERVING["healthcheck"]["test"][-1]
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == ready
    for probe in ("startupProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["path"] == f"/v1/models/{MODEL.name}"


@pytest.fixture
def answer():
    """Starts a server on a free port that answers everything with one status; gives the port."""
    servers = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def health(port):
    """Exit status of the health check of docker-compose.yml, at another port."""
    kind, *command = SERVING["healthcheck"]["test"]
    assert kind == "CMD"
    command[-1] = command[-1].replace("127.0.0.1/8501", f"127.0.0.1/{port}").replace("$$", "$")
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


def test_the_health_check_tells_answers_apart(answer):
    healthy, missing = answer(200), answer(404)
    assert health(healthy) == 0
    assert health(missing) == 1
    assert health(1) == 1  # nobody listens


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schema(name, version):
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def broken(change):
    manifest = copy.deepcopy(DEPLOYMENT)
    change(manifest["spec"], manifest["spec"]["template"]["spec"]["containers"][0])
    return manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda spec, container: container.update(readynessProbe=container.pop("readinessProbe")),
        lambda spec, container: container["ports"][0].update(containerPort="8501"),
        lambda spec, container: spec.pop("selector"),
    ],
    ids=["misspelt", "wrong type", "missing"],
)
def test_the_schema_refuses_a_broken_manifest(change):
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken(change), "1.30", strict=True)


def test_kustomization_names_every_file_once():
    outside = {"kubernetes/loader.yaml"}  # applied by hand
    manifests = {f"kubernetes/{name}" for name in MANIFESTS} - outside
    assert sorted(KUSTOMIZATION["resources"]) == sorted(manifests)
    files = [file for files in CONFIG_MAPS.values() for file in files]
    assert sorted(files) == sorted(path.name for path in DEPLOY.glob("*.config"))


def test_only_the_file_that_is_read_again_keeps_its_name():
    kept = [
        entry["files"]
        for entry in KUSTOMIZATION["configMapGenerator"]
        if entry.get("options", {}).get("disableNameSuffixHash")
    ]
    assert kept == [["models.config"]]


def test_manifests_name_each_other():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    service = MANIFESTS["service.yaml"]["spec"]
    assert labels.items() >= DEPLOYMENT["spec"]["selector"]["matchLabels"].items()
    assert labels.items() >= service["selector"].items()
    budget = MANIFESTS["disruption-budget.yaml"]["spec"]
    assert labels.items() >= budget["selector"]["matchLabels"].items()

    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"rest": 8501, "grpc": 8500}
    for port in service["ports"]:
        assert (port["name"], port["port"]) == (port["targetPort"], ports[port["targetPort"]])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == "rest"

    target = MANIFESTS["autoscaler.yaml"]["spec"]["scaleTargetRef"]
    assert target["name"] == DEPLOYMENT["metadata"]["name"]
    assert (target["apiVersion"], target["kind"]) == (DEPLOYMENT["apiVersion"], DEPLOYMENT["kind"])
    assert "replicas" not in DEPLOYMENT["spec"]  # they are the autoscaler's

    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert set(volumes) == {mount["name"] for mount in CONTAINER["volumeMounts"]}
    claim = MANIFESTS["volume-claim.yaml"]["metadata"]["name"]
    [loaded] = MANIFESTS["loader.yaml"]["spec"]["volumes"]
    for volume in (volumes["models"], loaded):
        assert volume["persistentVolumeClaim"]["claimName"] == claim
    sources = volumes["config"]["projected"]["sources"]
    assert {source["configMap"]["name"] for source in sources} == set(CONFIG_MAPS)


def test_a_pod_that_ends_outlives_its_requests():
    command, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert REST_TIMEOUT < int(seconds) < POD["terminationGracePeriodSeconds"]
    arguments = flags(CONTAINER["args"])["grpc_channel_arguments"]
    [age] = re.fullmatch(r"grpc\.max_connection_age_ms=(\d+)", arguments).groups()
    assert int(age) < 1000 * int(seconds)
