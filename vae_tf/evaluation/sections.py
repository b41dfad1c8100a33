"""Each measure's part of the report: from what was computed to JSON and to rows.

A function of the `Subject` and of the result, which gives `(entry, Section)`.
"""

import dataclasses
import math

from vae_tf import evaluation, plots
from vae_tf.evaluation.report import Section

OVER_IMAGES = "Nats per image, mean ± standard error over the images"
BOUND = "bound that it is trained on"
NO_BITS = (
    " p(x|z) is a density: its bits per dimension would depend on the width that a pixel's value "
    "stands for, and are not given."
)


def about(subject, described):
    """The head of the report: what it is of."""
    return Section("What was evaluated", list(described.items()), caveats=subject.caveats)


def elbo(subject, terms):
    title, label = _bound_labels(subject, terms)
    entry = {name: dataclasses.asdict(value) for name, value in terms.items()}
    text = f"{OVER_IMAGES}; 10 draws of z an image."
    if "loss" in terms:
        text += " The model has no `log_weights`: its loss is no bound of log p(x)."
    rows = [(label, terms["elbo" if "elbo" in terms else "loss"])]
    if "bound" in terms:
        rows.append((BOUND if subject.in_support else "−loss", terms["bound"]))
        text += " The bound is of log p(x), too; a model that is trained on one of k draws uses k for it."
    named = ("elbo", "loss", "bound")
    rows += [(plots.term_label(k), v) for k, v in terms.items() if k not in named]
    if label == "ELBO" and (bits := _bits_per_dimension(subject, terms["elbo"])):
        entry["bits_per_dimension"] = dataclasses.asdict(bits)
        rows.append(("bits per dimension, at most", _precise(bits)))
    entry["grey"] = not subject.in_support
    return entry, Section(title, rows, text, caveats=subject.caveats)


def _bound_labels(subject, terms):
    """What the objective is on such images: the heading of its section, and the name of its row."""
    if "loss" in terms:
        return "Loss", "loss (no bound of log p(x))"
    if subject.in_support:
        return "Evidence lower bound", "ELBO"
    values, loss = subject.outside, "−elbo_loss" if "bound" in terms else "−loss"
    return f"Loss on {values}", f"{loss} ({values}: no bound of log p(x))"


def gap(subject, terms):
    """Of the bound, or of the loss, on images that were trained on and on others."""
    name = "elbo" if "elbo" in terms["test"] else "loss"
    label = _bound_labels(subject, terms["test"])[1].partition(" (")[0]
    train, test = terms["train"][name], terms["test"][name]
    better = train.mean - test.mean if name == "elbo" else test.mean - train.mean
    found = evaluation.Estimate(better, math.hypot(train.standard_error, test.standard_error))
    counts = {subject.split: len(subject.x), subject.other_split: len(subject.other_rows)}
    rows = [(f"{label}, {counts['train']} training images", train)]
    rows += [(f"{label}, {counts['test']} test images", test), ("gap", found)]
    other = "training" if subject.other_split == "train" else "test"
    text = (
        "How much better the model does on images of its training set: what it has learned of those "
        f"alone. The images of the {other} set are drawn by the seed. Nats per image; the "
        "error of the gap is that of two independent means."
    )
    entry = {"train": train, "test": test, "gap": found}
    entry = {key: dataclasses.asdict(value) for key, value in entry.items()}
    return entry | {"images": counts}, Section("Training images against test images", rows, text)


def likelihood(subject, result):
    count, entry = len(result.per_image), _likelihood_entry(result)
    rows = [(f"log {subject.of_what}, K = {result.num_samples}", result.estimate)]
    rows += [("error of the draws alone", f"{result.sampling_error:.3f}")]
    if bits := _bits_per_dimension(subject, result.estimate):
        entry["bits_per_dimension"] = dataclasses.asdict(bits)
        rows.append(("bits per dimension", _precise(bits)))
    rows += [(f"K = {k}", _below(result, k)) for k in result.gaps]
    sizes = entry["effective_sample_size"]
    rows += [("effective sample size, mean", f"{sizes['mean']:.1f} of {result.num_samples}")]
    rows += [("effective sample size, median", f"{sizes['median']:.1f}")]
    rows += [("effective sample size, 5th percentile", f"{sizes['p5']:.1f}")]
    text = (
        f"{OVER_IMAGES}; it holds the error of the draws, which are each image's own. The estimate rises "
        "with K towards log p(x); the error of a difference, and of the curve's bars, is over each "
        "image's own difference. The effective sample size is (Σ w)² / Σ w² of an image's weights; its "
        "mean, median and percentile are over the images."
    )
    if subject.support not in ("binary", "bytes"):
        text += NO_BITS
    caveats = [*subject.caveats, *_few_draws(result), *_two_bounds(subject, result)]
    if count < len(subject.x):
        caveats.append(f"Interrupted: of the first {count} of {len(subject.x)} images only.")
    figures = {
        "likelihood_curve": plots.likelihood_curve(result.curve, result.gaps),
        "extremes": plots.extremes(subject.shown[:count], result.per_image),
    }
    return entry, Section("Log-likelihood", rows, text, figures, caveats)


def _likelihood_entry(result):
    low, middle = result.size_percentiles
    mean = float(result.effective_sample_size.mean())
    return {
        "num_samples": result.num_samples,
        "images": len(result.per_image),
        **dataclasses.asdict(result.estimate),
        "sampling_error": result.sampling_error,
        "curve": {str(k): dataclasses.asdict(v) for k, v in result.curve.items()},
        "gaps": {str(k): dataclasses.asdict(v) for k, v in result.gaps.items()},
        "effective_sample_size": {"mean": mean, "median": middle, "p5": low},
        "images_below_10_effective_samples": result.few,
    }


def _below(result, k):
    return f"{result.curve[k].mean:.2f}, which is {_precise(result.gaps[k])} below"


def _few_draws(result):
    if not result.few:
        return []
    count = len(result.per_image)
    return [
        f"{100 * result.few / count:.1f} % of the images ({result.few} of {count}) have an effective "
        f"sample size below {evaluation.FEW}: their log p(x) is likely too low, by more than the error says. More "
        "draws (--num-samples) show how far it rises."
    ]


def _two_bounds(subject, result):
    """The mean of log w is the ELBO. Where the model's terms say another, one of the two is wrong."""
    if len(result.per_image) < len(subject.x):
        return []
    elbo, drawn = subject.terms["elbo"], result.curve[1].mean
    if abs(drawn - elbo.mean) < max(
        0.1, 3 * elbo.standard_error
    ):  # the same images: far wider than it is
        return []
    return [
        f"The mean of the log-weights, {drawn:.2f}, is not the ELBO of the model's terms, {elbo.mean:.2f}: its "
        "`log_weights` or its `terms` are wrong, or rounded, and so is this figure."
    ]


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
    rows = [("mean square error a pixel", _precise(errors["mse"], 5))]
    names = {
        "cross_entropy": "cross-entropy, nats per image",
        "nll": "−log p(x|z), nats per image",
    }
    if "mse_over_variance" in errors:
        over = _precise(errors["mse_over_variance"], 5)
        rows.append(("÷ the variance of the training pixels", over))
    rows += [(names[key], errors[key]) for key in errors if key in names]
    entry = {key: dataclasses.asdict(value) for key, value in errors.items()}
    return entry, Section("Reconstruction", rows, "Through the code, without noise.")


def codes(subject, found):
    num = len(found.shares)
    rows = [
        ("codes that are used", f"{found.used} of {num}"),
        ("perplexity of their use", f"{found.perplexity:.1f}"),
        ("log₂ K, bits a code", f"{math.log2(num):.2f}"),
    ]
    entry = {"num_codes": num, "used": found.used, "perplexity": found.perplexity}
    text = "The perplexity is K where all codes are used alike. "
    if found.bits_per_code is None:
        text += "The model has no prior over its codes yet, so there are no bits a code."
    else:
        rows.append(("−log₂ p of its prior, bits a code", _precise(found.bits_per_code, 3)))
        entry["bits_per_code"] = dataclasses.asdict(found.bits_per_code)
        text += "What the prior knows of the maps brings the bits of a code down from log₂ K."
    return entry, Section("Discrete codes", rows, text)


def neighbours(subject, accuracy):
    rows = [("accuracy of the nearest training code", f"{accuracy.scaled(100)} %")]
    text = (
        "One nearest neighbour, Euclidean, among the codes of the training images, without noise."
    )
    if subject.model.condition is not None:
        text += " The model is told the label: what its code carries of it is what it need not."
    return dataclasses.asdict(accuracy), Section("Labels from the codes", rows, text)


def disentanglement(subject, found):
    names, information, dci = subject.factor_names, found["information"], found["dci"]
    rows = [
        ("MIG, mutual information gap", f"{found['mig']:.3f}"),
        ("SAP, separated attribute predictability", f"{found['sap']:.3f}"),
        ("DCI, disentanglement", f"{dci.disentanglement:.3f}"),
        ("DCI, completeness", f"{dci.completeness:.3f}"),
        ("DCI, informativeness", f"{dci.informativeness:.3f}"),
    ]
    rows += [
        (f"{name}, most in", _most(shares))
        for name, shares in zip(names, information.T, strict=True)
    ]
    text = (
        "Of the codes without noise; 1 is best. MIG: how much more of a factor's entropy the best dimension knows "
        "than the second best, the mean over the factors (Chen et al. 2018; codes in 20 bins); SAP: the same of how "
        "well one dimension predicts it (Kumar et al. 2018); DCI: whether a forest uses a dimension for one "
        "factor alone, one dimension alone for a factor, and how often it is right on images that it was not "
        "fitted to (Eastwood & Williams 2018)."
    )
    entry = {
        "mig": found["mig"],
        "sap": found["sap"],
        "dci": dataclasses.asdict(dci) | {"importances": dci.importances.tolist()},
        "factors": list(names),
        "information": information.tolist(),
    }
    figures = {"factor_information": plots.factor_information(information, names)}
    return entry, Section("One dimension, one factor", rows, text, figures)


def _most(shares):
    """The two dimensions that know most of a factor, and how much of its entropy."""
    first, second = (-shares).argsort()[:2]
    return f"z{first + 1}, {shares[first]:.0%} of its entropy; then z{second + 1}, {shares[second]:.0%}"


def _bits_per_dimension(subject, log_prob):
    """−log p(x)/(D log 2) for D pixels that are binary or bytes; a density has none."""
    if subject.support not in ("binary", "bytes"):
        return None
    return log_prob.scaled(-1 / (math.prod(subject.model.image_shape) * math.log(2)))


def _precise(estimate, digits=3):
    error = estimate.standard_error
    return f"{estimate.mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")
