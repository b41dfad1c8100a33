"""Every figure, each a function that returns a matplotlib `Figure`; `draw` writes a run's pictures.

Images are arrays `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)`, uint8 or floats in [0, 1]; what is
below or above is shown as black or white.
"""

from vae_tf import lazy

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "image_grid": "tiles",
        **dict.fromkeys(("classes", "completions", "extremes", "generated", "reconstruct"), "grids"),
        **dict.fromkeys(("likelihood_curve", "term_label", "train_process"), "curves"),
        **dict.fromkeys(
            (
                "aggregate_posterior", "encodings", "kl_per_dimension", "latent_plane",
                "prior_quantiles", "project",
            ),
            "codes",
        ),
        "factor_information": "factors",
        **dict.fromkeys(("code_maps", "code_usage"), "maps"),
        "traversal": "traversals",
        **dict.fromkeys(("held_out_areas", "roc_curves", "score_histograms"), "detection"),
        **dict.fromkeys(("clustered", "nearest_to_centres"), "clusters"),
        **dict.fromkeys(("most_anomalous", "retrieved"), "marked"),
        **dict.fromkeys(("at_rates", "rate_distortion"), "rates"),
        "image_rows": "grids",
        **dict.fromkeys(("PICTURES", "draw", "figures", "parts_of"), "pictures"),
    },
)  # fmt: skip
