"""Each measure's part of the report: from what was computed to JSON and to rows.

A function of the `Subject` and of the result, which gives `(entry, Section)`.
"""

import dataclasses
import math

from vae_tf import evaluation, plots
from vae_tf.evaluation.report import Section

OVER_IMAGES = "Nats per image, mean ± standard error over the images"


def elbo(subject, terms):
    bound, in_support = "elbo" in terms, subject.in_support
    entry = {name: dataclasses.asdict(value) for name, value in terms.items()}
    text = f"{OVER_IMAGES}; 10 draws of z an image."
    if not bound:
        text += " The model has no `log_weights`: its loss is no bound of log p(x)."
        first = ("loss (no bound of log p(x))", terms["loss"])
    elif not in_support:
        grey = subject.model.likelihood.support.kind == "binary"
        why = "grey values" if grey else "images that p(x|z) cannot give"
        first = (f"−loss ({why}: no bound of log p(x))", terms["elbo"])
    else:
        first = ("ELBO", terms["elbo"])
    rows = [first]
    rows += [(plots.term_label(k), v) for k, v in terms.items() if k not in ("elbo", "loss")]
    if bound and in_support and (bits := _bits_per_dimension(subject, terms["elbo"])):
        entry["bits_per_dimension"] = dataclasses.asdict(bits)
        rows.append(("bits per dimension, at most", _precise(bits)))
    title = "Evidence lower bound" if bound and in_support else "Loss"
    return entry | {"grey": not in_support}, Section(title, rows, text)


def likelihood(subject, result):
    count, sizes = len(result.per_image), result.effective_sample_size
    low, middle = result.size_percentiles
    rows = [(f"log p(x), K = {result.num_samples}", result.estimate)]
    rows += [(f"K = {k}", estimate) for k, estimate in result.curve.items()]
    rows += [("effective sample size, mean", f"{sizes.mean():.1f} of {result.num_samples}")]
    rows += [("median and 5th percentile", f"{middle:.1f} and {low:.1f}")]
    text = f"{OVER_IMAGES}. It rises with K towards log p(x)."
    if count < len(subject.x):
        text += f" Interrupted: of the first {count} of {len(subject.x)} images only."
    entry = {
        "num_samples": result.num_samples,
        "images": count,
        **dataclasses.asdict(result.estimate),
        "curve": {str(k): dataclasses.asdict(v) for k, v in result.curve.items()},
        "effective_sample_size": {"mean": float(sizes.mean()), "median": middle, "p5": low},
    }
    if bits := _bits_per_dimension(subject, result.estimate):
        entry["bits_per_dimension"] = dataclasses.asdict(bits)
        rows.insert(1, ("bits per dimension", _precise(bits)))
    figures = {
        "likelihood_curve": plots.likelihood_curve(result.curve),
        "extremes": plots.extremes(subject.x[:count], result.per_image),
    }
    return entry, Section("Log-likelihood", rows, text, figures)


def latent(subject, codes):
    found = evaluation.latent_statistics(*codes, subject.seed)
    kl = found.kl_per_dimension
    text = (
        "Nats. The mutual information is between z and which of these images it encodes, so it "
        "cannot exceed the logarithm of their number; with the KL of the aggregate posterior it adds "
        "up to the mean KL (Hoffman & Johnson 2016)."
    )
    draws = evaluation.draw_codes(*codes, subject.seed)
    figures = {
        "kl_per_dimension": plots.kl_per_dimension(kl, codes[0].var(axis=0) > evaluation.ACTIVE),
        "aggregate_posterior": plots.aggregate_posterior(draws, sorted((-kl).argsort()[:20])),
    }
    entry = dataclasses.asdict(found)
    entry = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in entry.items()}
    return entry, Section("What the code carries", _latent_rows(found), text, figures)


def _latent_rows(found):
    kl = found.kl_per_dimension
    spread = f"{found.aggregate_variance.min():.2f} to {found.aggregate_variance.max():.2f}"
    return [
        ("active units (Var_x E_q[z] > 0.01)", f"{found.active_units} of {len(kl)}"),
        ("KL per dimension, largest", f"{kl.max():.2f}"),
        ("KL per dimension, smallest", f"{kl.min():.3f}"),
        ("mutual information of z and the image", found.mutual_information),
        ("at most, for so many images", f"{found.log_num:.2f}"),
        ("KL(aggregate posterior ‖ prior)", found.aggregate_kl),
        ("mean of q(z), largest |.|", f"{abs(found.aggregate_mean).max():.3f} (prior: 0)"),
        ("variance of q(z), over dimensions", f"{spread} (prior: 1)"),
    ]


def reconstruction(subject, errors):
    mse = errors["mse"]
    rows = [("mean square error a pixel", f"{mse.mean:.5f} ± {mse.standard_error:.5f}")]
    names = {
        "cross_entropy": "cross-entropy, nats per image",
        "nll": "−log p(x|z), nats per image",
    }
    rows += [(names[key], errors[key]) for key in errors if key in names]
    entry = {key: dataclasses.asdict(value) for key, value in errors.items()}
    return entry, Section("Reconstruction", rows, "Through the code (z_mean), without noise.")


def neighbours(subject, accuracy):
    value = f"{100 * accuracy.mean:.2f} ± {100 * accuracy.standard_error:.2f} %"
    rows = [("accuracy of the nearest training code", value)]
    text = "One nearest neighbour, Euclidean, among the codes (z_mean) of the training images."
    return dataclasses.asdict(accuracy), Section("Labels from the codes", rows, text)


def _bits_per_dimension(subject, log_prob):
    """−log p(x)/(D log 2) for D pixels, where they are bytes; of other pixels it has no meaning."""
    if subject.model.likelihood.support.kind != "bytes":
        return None
    return log_prob.scaled(-1 / (math.prod(subject.model.image_shape) * math.log(2)))


def _precise(estimate):
    error = estimate.standard_error
    return f"{estimate.mean:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")
