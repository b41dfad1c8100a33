"""Directories of versions: what is a version, and which of them is served."""

import json
import logging
import shutil

import hostile_models
import numpy as np
import pytest
import tensorflow as tf
import urllib3

from vae_tf import export_decoder
from vae_tf.export.versions import check_versions, next_version, versions
from vae_tf.serving.engines import models_config
from vae_tf.serving.server import EmbeddedServer, Limits
from vae_tf.serving.versions import Versions

ODD = ("2" * 30, str(2**63), "007", "٣", "-1", "1.0", "1_0", " 8", ".unfinished-9")


def test_what_is_a_version(tmp_path):
    for name in (*ODD, "3", "12", "0"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a stray file")
    (tmp_path / "13").write_text("another")
    assert versions(tmp_path) == [0, 3, 12]
    assert next_version(tmp_path) == 14  # 13 has the name of a file
    assert "specific" not in models_config(tmp_path, "vae", {}, "/m")
    assert "versions: 12" in models_config(tmp_path, "vae", {"stable": 3}, "/m")


def test_what_is_none(tmp_path):
    for name in ODD:
        (tmp_path / name).mkdir()
    (tmp_path / "1").write_text("")
    with pytest.raises(ValueError, match="'path'"):
        check_versions(tmp_path)
    with pytest.raises(ValueError, match=f"'version'.*at most {2**63 - 1}"):
        export_decoder(None, tmp_path, version=2**63)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Paths of SavedModels by what they are: three good ones and three bad ones."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "broken").mkdir()
    (folder / "broken" / "saved_model.pb").write_bytes(b"\xff" * 9)
    hostile_models.save(folder / "endless", hostile_models.endless)
    for factor in (1, 2, 3):
        hostile_models.save(folder / f"times {factor}", lambda z, factor=factor: factor * z)

    def refused(z):
        return z + tf.random.normal(tf.shape(z))

    hostile_models.save(folder / "refused", refused)
    return folder


@pytest.fixture
def put(saved, tmp_path):
    """Makes a version of a SavedModel: `put(2, "broken")`."""
    (tmp_path / "models").mkdir()

    def put(number, what):
        shutil.copytree(saved / what, tmp_path / "aside")
        (tmp_path / "aside").rename(tmp_path / "models" / str(number))

    put.directory = tmp_path / "models"
    return put


def factor(followed):
    """By which the version that answers multiplies."""
    with followed.use("vae") as version:
        found = version.model.predict("decode", {"z": np.ones((1, 2), np.float32)})
    return found["probabilities"][0, 0] / 2


def test_stray_names_block_no_version(put):
    put(1, "times 1")
    followed = Versions(put.directory, "vae")
    followed.refresh()
    for name in ODD:
        (put.directory / name).mkdir()
    (put.directory / "99").write_text("")
    followed.refresh()
    assert factor(followed) == 1
    put(2, "times 2")
    followed.refresh()
    assert factor(followed) == 2
    assert [(v.number, v.state) for v in followed.status("vae")] == [(2, 30), (1, 50)]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("broken", "version 3 could not be loaded"),
        ("refused", "version 3 could not be loaded: RandomStandardNormal has state"),
        ("endless", "version 3 could not be loaded: its process had not ended after 2 seconds"),
    ],
)
def test_the_newest_version_that_loads_is_served(bad, words, put, caplog):
    """At the start, and when another comes; and the log says so, once."""
    caplog.set_level(logging.INFO, "vae_tf.serving")
    put(1, "times 1")
    put(2, "times 2")
    put(3, bad)
    followed = Versions(put.directory, "vae", load_seconds=2)
    for _ in range(2):
        followed.refresh()
    assert factor(followed) == 2
    assert followed.available() == [2]
    assert 1 not in followed.known
    assert [record.message for record in caplog.records].count(
        "version 2 is served in the place of version 3"
    ) == 1
    assert sum(record.message.startswith(words) for record in caplog.records) == 1
    put(4, "times 3")
    followed.refresh()
    assert (factor(followed), followed.available()) == (3, [4])
    assert followed.known[3].error.startswith("Version 3 ")
    assert "/" not in followed.known[3].error


def test_the_server_starts_with_an_older_version(put):
    put(1, "times 1")
    put(2, "broken")
    (put.directory / str(2**70)).mkdir()
    with EmbeddedServer(put.directory, rest_port=0, grpc_port=0) as server:
        url = f"http://{server.rest_address}/v1/models/vae"
        with urllib3.PoolManager() as pool:
            status = pool.request("GET", url)
            body = json.dumps({"instances": [[1, 1]]})
            answer = pool.request("POST", f"{url}:predict", body=body)
    entries = json.loads(status.data)["model_version_status"]
    assert [(e["version"], e["state"]) for e in entries] == [("2", "END"), ("1", "AVAILABLE")]
    assert json.loads(answer.data) == {"predictions": [[2, 2]]}


def test_a_server_refuses_what_the_check_refuses_unless_it_is_trusted(put):
    put(7, "refused")
    where = {"rest_port": 0, "grpc_port": 0, "limits": Limits(load_seconds=9)}
    words = r"'path'.*Version 7 is refused: RandomStandardNormal has state.*trust_model=True"
    with pytest.raises(ValueError, match=words):
        EmbeddedServer(put.directory, **where).start()
    with EmbeddedServer(put.directory, trust_model=True, **where) as server:
        assert server.core.versions.available() == [7]


def test_a_labelled_version_is_not_replaced(put):
    put(1, "times 1")
    put(2, "broken")
    with pytest.raises(ValueError, match=r"'label'.*stable=2, where there are \[1\]"):
        EmbeddedServer(put.directory, rest_port=0, grpc_port=0, labels={"stable": 2}).start()
