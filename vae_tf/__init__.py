"""vae_tf: variational autoencoders for Keras 3 and TensorFlow.

The map, in the order of the pipeline: data -> networks -> models -> training -> evaluation -> plots -> export -> serving.
"""

import importlib
import sys

import wrapt

__version__ = "0.1.0"

# A name is imported when it is first asked for: the command is quick to start, and the client of a
# server, `vae_tf.serving.Client`, does without TensorFlow and Keras.
_MODULE_OF = {
    **dict.fromkeys(("Images", "check_images", "load"), "data"),
    **dict.fromkeys(("Binarize", "Noise", "Sampling"), "layers"),
    **dict.fromkeys(("AdditiveGaussian", "Masking", "SaltAndPepper"), "corruptions"),
    **dict.fromkeys(("conv_decoder", "conv_encoder", "dense_decoder", "dense_encoder"), "networks"),
    **dict.fromkeys(
        ("Bernoulli", "ContinuousBernoulli", "DiscretizedLogistic", "Gaussian"), "likelihoods"
    ),
    **dict.fromkeys(("gaussian_kl", "gaussian_log_prob"), "distributions"),
    **dict.fromkeys(("FiniteGuard", "FreeBits", "KLWarmup", "StepHistory"), "engine.callbacks"),
    "LatentMonitor": "engine.monitor",
    "Checkpoints": "engine.checkpoints",
    "Condition": "models.condition",
    "Model": "models.base",
    "VAE": "models.vae",
    "BetaVAE": "models.beta",
    "ConditionalVAE": "models.conditional",
    "IWAE": "models.iwae",
    "HierarchicalVAE": "models.hierarchical",
    "VQVAE": "models.vqvae",
    **dict.fromkeys(("Autoencoder", "DenoisingAutoencoder"), "models.autoencoder"),
    "SparseAutoencoder": "models.sparse",
    "ContractiveAutoencoder": "models.contractive",
    **dict.fromkeys(("pretrain_stack", "stacked_classifier"), "stacking"),
    "CodePrior": "models.code_prior",
    "VectorQuantizer": "quantizer",
    **dict.fromkeys(("TrainConfig", "load_run", "train"), "training"),
    **dict.fromkeys(("export_decoder", "generate_from_saved_model"), "export"),
}
_MODULES = (
    "distributions",
    "evaluation",
    "plots",
    "random",
    "serving",
)  # and those of the names above
__all__ = [*_MODULE_OF]

# What a model is made of, each of which imports Keras.
_PARTS = {
    "autoregressive",
    "corruptions",
    "distributions",
    "layers",
    "likelihoods",
    "networks",
    "engine",
    "models",
    "quantizer",
    "stacking",
}


@wrapt.when_imported("keras")  # at once, where it is imported already
def _register(_):
    """Let Keras know of the classes, so that saved models load after `import vae_tf` alone."""
    ours = [module for name, module in [*sys.modules.items()] if name.startswith("vae_tf.")]
    loading = [module.__name__ for module in ours if module.__spec__._initializing]
    if not any(name.split(".")[1] in _PARTS for name in loading):  # else they are half there
        for module in {name for name in _MODULE_OF.values() if name.startswith("models.")}:
            importlib.import_module(f"vae_tf.{module}")


def __getattr__(name):
    if name in _MODULE_OF:
        importlib.import_module("keras")
        module = importlib.import_module(f"vae_tf.{_MODULE_OF[name]}")
        return getattr(module, name)
    if name in (*_MODULES, *(path.partition(".")[0] for path in _MODULE_OF.values())):
        return importlib.import_module(f"vae_tf.{name}")
    raise AttributeError(f"module 'vae_tf' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_MODULE_OF, *_MODULES})
