"""vae_tf: variational autoencoders for Keras 3 and TensorFlow.

The map, in the order of the pipeline: data -> networks -> models -> training -> plots -> export.
"""

import importlib.metadata
import os
import pathlib
import sys

__version__ = "0.1.0"

# XLA vectorises for 256 bits unless told otherwise; 512 are faster where the processor has them, the
# same elsewhere, and change no result. Only for versions that were tried: XLA aborts on a flag that
# it does not know.
_flags = os.environ.get("XLA_FLAGS", "")
try:
    _tensorflow = importlib.metadata.version("tensorflow").split(".")[:2]
except importlib.metadata.PackageNotFoundError:  # a build under another name
    _tensorflow = []
if "prefer_vector_width" not in _flags and ["2", "20"] <= _tensorflow <= ["2", "21"]:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_cpu_prefer_vector_width=512".strip()

# The command, `vae-tf` or `python -m vae_tf`, imports what each of its parts needs: `--help` is quick.
_script = pathlib.Path((getattr(sys, "argv", None) or [""])[0]).name
_module = sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] if "-m" in sys.orig_argv else []
if _script not in ("vae-tf", "vae-tf.exe", "vae-tf-script.py") and _module != ["vae_tf"]:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"vae_tf trains and exports with TensorFlow, and Keras is set to '{keras.backend.backend()}'. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    from vae_tf.data import Images, check_images, load
    from vae_tf.layers import Binarize, Sampling
    from vae_tf.networks import dense_decoder, dense_encoder
    from vae_tf.likelihoods import Bernoulli, Gaussian
    from vae_tf.objectives import gaussian_kl, gaussian_log_prob
    from vae_tf.callbacks import FiniteGuard, FreeBits, KLWarmup, LatentMonitor, StepHistory
    from vae_tf.models.vae import VAE
    from vae_tf.checkpoints import Checkpoints
    from vae_tf.runs import load_run
    from vae_tf.training import TrainConfig, train
    from vae_tf.export import export_decoder, generate_from_saved_model
