"""What a trained model is worth: bounds and likelihoods with their errors, and what the code carries.

Every figure has a seed, and does not depend on how the work was cut into batches. All of it works on
any `vae_tf.Model` that has what it takes: `log_likelihood` its `log_weights`, `latent_statistics` a
normal posterior. `evaluate` computes every measure that applies.
"""

from vae_tf import lazy

_MODULE_OF = {
    "Estimate": "estimates",
    **dict.fromkeys(("FEW", "LogLikelihood", "log_likelihood"), "likelihood"),
    "elbo": "bound",
    **dict.fromkeys(("CodeUsage", "code_usage"), "discrete"),
    **dict.fromkeys(
        (
            "ACTIVE", "LatentStatistics", "codes", "draw_codes", "latent_statistics", "why_no_prior",
            "why_not_latent",
        ),
        "latent",
    ),
    **dict.fromkeys(("DCI", "dci", "mig", "mutual_information", "sap", "why_no_factors"), "disentanglement"),
    **dict.fromkeys(("neighbour_accuracy", "pixel_variance", "reconstruction_error"), "reconstruction"),
    **dict.fromkeys(("MEASURES", "Evaluation", "evaluate"), "measures"),
    "EvaluateConfig": "config",
}  # fmt: skip
__all__ = [*_MODULE_OF]
__getattr__, __dir__ = lazy.attach(__name__, _MODULE_OF)
