"""What models are used for: functions that take a model, a run, a SavedModel or a server, and arrays.

Each is a command of `vae-tf` too.
"""

from vae_tf import lazy

_MODULE_OF = {
    **dict.fromkeys(("Source", "source_of"), "sources"),
    "anomaly_scores": "scores",
    "flag": "anomaly",
    **dict.fromkeys(("auroc", "average_precision", "choose_threshold"), "detection"),
    **dict.fromkeys(("Threshold", "load_threshold", "save_threshold"), "thresholds"),
    "held_out_experiment": "held_out",
    "Index": "index",
    **dict.fromkeys(("denoise", "psnr", "ssim"), "denoising"),
    "inpaint": "inpainting",
    **dict.fromkeys(("cluster", "cluster_codes"), "clustering"),
    **dict.fromkeys(("around", "attribute_vector", "path", "with_attribute"), "walks"),
    **dict.fromkeys(("compress", "decompress"), "lossless"),
    "rate_distortion": "rates",
    **dict.fromkeys(("average_precisions", "mean_average_precision", "recall"), "retrieve"),
}
__all__ = [*_MODULE_OF]
__getattr__, __dir__ = lazy.attach(__name__, _MODULE_OF)
