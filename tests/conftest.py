"""What holds for every test: TensorFlow is quiet, and tensorflow-datasets finds the data at hand."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_AT_HAND = pathlib.Path(__file__).resolve().parents[2] / "shared" / "tensorflow_datasets"
if _AT_HAND.is_dir():  # tensorflow-datasets reads the variable once, when it is imported
    os.environ.setdefault("TFDS_DATA_DIR", str(_AT_HAND))


@pytest.fixture(autouse=True, scope="module")
def without_xla(request):
    """XLA takes seconds to compile a model: tests that are not marked `xla` train without it."""
    from vae_tf.engine.trainer import Trainer

    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("xla") is None:
            patch.setattr(Trainer, "suits_xla", False)
        yield
