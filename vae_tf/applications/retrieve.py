"""Retrieve: the images whose codes are nearest to an image's, exactly or approximately, and how often they are alike."""

import pathlib
import time

import numpy as np

from vae_tf.applications.command import Result
from vae_tf.applications.index import Index, faiss_module
from vae_tf.errors import as_typed, check_new_path, invalid
from vae_tf.evaluation.estimates import Estimate
from vae_tf.evaluation.report import Section
from vae_tf.plots.marked import retrieved

ROWS, COLUMNS = 10, 12  # of the picture
CHECKED = 8  # images whose codes tell whether an index is of this model and these images


# How good it is.


def average_precisions(rows, labels, query_labels):
    """The average precision at K of each query: how far in front among K the images of its own label are.

        AP@K = 1/min(K, R) Σ_{i=1..K} P(i) rel(i),

    with rel(i) = 1 where the i-th that came back has the query's label and else 0, P(i) = (1/i) Σ_{j≤i} rel(j),
    and R the number of images with that label in the index. 1: all that came back are right, or all that there
    are came first. Their mean over the queries is the mean average precision, mAP@K.

    Args:
        rows: what came back, numbers in the index, `(num, K)`.
        labels: of the index, `(N,)`.
        query_labels: `(num,)`.

    Returns:
        `(num,)`; NaN for a query of whose label none is in the index.

    Raises:
        ValueError: there are no labels, or they are not as many, or no query has its label in the index.

    Example:
        >>> average_precisions([[0, 1, 2]], ["a", "b", "a"], ["a"])  # (1/1 + 2/3) / 2
        array([0.83333333])
    """
    rows = np.asarray(rows)
    for name, values in {"labels": labels, "query_labels": query_labels}.items():
        if values is None:
            hint = "Without labels it is not known which images are alike."
            raise invalid(name, "the images' labels", "none", hint)
    labels, query_labels = np.asarray(labels), np.asarray(query_labels)
    if len(query_labels) != len(rows):
        raise invalid("query_labels", f"one for each of {len(rows)} queries", len(query_labels))
    if rows.max() >= len(labels):
        expected = f"a label for each image of the index, which has more than {rows.max()}"
        raise invalid("labels", expected, f"{len(labels)} labels")
    known, counts = np.unique(labels, return_counts=True)
    number = dict(zip(known.tolist(), counts.tolist(), strict=True))
    relevant = np.array([number.get(label, 0) for label in query_labels.tolist()])
    if not relevant.any():
        raise invalid("query_labels", "labels that are in the index", "none of them is")
    right = labels[rows] == query_labels[:, None]
    precision = np.cumsum(right, axis=1) / np.arange(1, rows.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        return (precision * right).sum(axis=1) / np.minimum(relevant, rows.shape[1])


def mean_average_precision(rows, labels, query_labels):
    """The mean of `average_precisions` over the queries that have one, an `Estimate` over queries."""
    found = average_precisions(rows, labels, query_labels)
    return Estimate.over(found[~np.isnan(found)])


def recall(rows, exact):
    """The share of the exact nearest that an approximate index found, `(num, K)` each: an `Estimate`."""
    rows, exact = np.asarray(rows), np.asarray(exact)
    if rows.shape != exact.shape:
        raise invalid("rows", f"as many as the exact ones, {exact.shape}", f"{rows.shape}")
    return Estimate.over(
        [len(np.intersect1d(*pair)) / len(pair[1]) for pair in zip(rows, exact, strict=True)]
    )


# The command.


def check(task):
    """Raise what can be known before anything is encoded."""
    config = task.config
    task.source.needs("encode", "retrieve")
    if config.approximate:
        faiss_module()
    x, y = _gallery(task)
    if config.k > len(x):
        expected = f"at most the {len(x)} images that are searched"
        raise invalid("k", expected, as_typed("k", config.k))
    if task.source.condition is not None and y is None:
        raise invalid("data", "images with labels, the model's condition", "no labels")
    if config.index is not None:
        check_new_path("index", config.index)


def _gallery(task):
    """The images that are searched, and their labels: those of the other part of the data."""
    other = "train" if task.config.split == "test" else "test"
    return getattr(task.images, f"x_{other}"), getattr(task.images, f"y_{other}")


def run(task, progress):
    """Search the other part's images for the nearest to each image, by codes and by raw pixels; a `Result`."""
    config, (x, y) = task.config, _gallery(task)
    index = _index(task, x, y, progress)
    queries = task.source.encode(task.x, task.condition, lambda *done: progress("queries", *done))
    pixels = Index(_pixels(x), metric=index.metric), _pixels(task.x)
    kinds = {"code": (Index(index.codes, metric=index.metric), queries), "raw pixels": pixels}
    if index.approximate:
        kinds["code, approximate"] = (index, queries)
    found, methods = {}, {}
    for name, kind in kinds.items():
        progress(f"search, {name}", 0, 1)
        found[name], methods[name] = _searched(*kind, config.k, y, task.y)
    if index.approximate:
        methods["code, approximate"]["recall"] = recall(found["code, approximate"], found["code"])
    figures = {
        f"retrieved_{name.replace(', ', '_').replace(' ', '_')}": _picture(task, x, y, each, name)
        for name, each in found.items()
    }
    told = "The model is told each image's label: its codes know of it."
    caveats = [] if task.source.condition is None else [told]
    counts = {"searched": len(x), "queries": len(task.x), "k": config.k}
    rows = [("images searched", len(x)), ("queries", len(task.x)), *_rows(methods, config.k)]
    return Result(
        counts | {"metric": index.metric, "methods": _plain(methods)},
        [Section("Retrieval", rows, figures=figures, caveats=caveats)],
    )


def _searched(index, codes, k, labels, query_labels):
    """`(rows, facts)`: what came back, and what there is to say of it, by name."""
    start = time.perf_counter()
    rows, _ = index.query(codes, k)
    facts = {"numbers": index.codes.shape[1], "seconds": round(time.perf_counter() - start, 3)}
    if labels is not None and query_labels is not None:
        facts["map"] = mean_average_precision(rows, labels, query_labels)
    return rows, facts


def _rows(methods, k):
    rows = []
    for name, facts in methods.items():
        if "map" in facts:
            rows.append((f"mAP@{k}, {name}", _shown(facts["map"])))
        if "recall" in facts:
            rows.append((f"recall@{k}, {name}", _shown(facts["recall"])))
        size = "{numbers}, {seconds:g}".format(**facts)
        rows.append((f"{name}: numbers an image, seconds to search", size))
    if not any("map" in facts for facts in methods.values()):
        rows.append((f"mAP@{k}", "not computed: the images have no labels"))
    return rows


def _plain(methods):
    """For `metrics.json`: an estimate's mean, and of mAP its error."""
    plain = {}
    for name, facts in methods.items():
        plain[name] = {key: getattr(value, "mean", value) for key, value in facts.items()}
        if "map" in facts:
            plain[name]["standard_error"] = facts["map"].standard_error
    return plain


def _shown(estimate):
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}"


def _pixels(x):
    """Images as codes: floats in [0, 1], flattened."""
    return x.reshape(len(x), -1).astype("float32") / (255 if x.dtype == np.uint8 else 1)


def _index(task, x, y, progress):
    """The index of the images that are searched: made, or read where it was kept."""
    config = task.config
    condition = None if task.source.condition is None else y
    if config.index is None or not pathlib.Path(config.index).exists():
        index = Index.of_images(
            task.source, x, y, config.approximate, config.metric, condition,
            lambda *done: progress("index", *done),
        )  # fmt: skip
        if config.index is not None:
            index.save(config.index)
        return index
    index = Index.load(config.index)
    _check_index(task, index, x, condition)
    return index


def _check_index(task, index, x, condition):
    """Raise unless an index that was kept is of these images, of this model and of the kind that is wanted."""
    config = task.config
    if len(index) != len(x):
        received = f"{config.index!r}, of {len(index)}"
        raise invalid("index", f"an index of the {len(x)} images of {task.images.name}", received)
    if (index.approximate, index.metric) != (config.approximate, config.metric):
        kind = "approximate" if index.approximate else "exact"
        expected = "an index of the kind that is asked for by --approximate and --metric"
        raise invalid("index", expected, f"{config.index!r}, an {kind} one, {index.metric}")
    told = None if condition is None else condition[:CHECKED]
    first = Index(task.source.encode(x[:CHECKED], told), metric=index.metric).codes
    codes = index.codes[:CHECKED]
    if first.shape != codes.shape or not np.allclose(first, codes, rtol=1e-3, atol=1e-3):
        received = f"{config.index!r}, whose codes are others"
        raise invalid("index", f"an index of this model and of {task.images.name}", received)


def _picture(task, x, y, rows, name):
    """Queries of all labels as far as there is room, and what came back."""
    chosen = np.arange(min(ROWS, len(task.x)))
    if task.y is not None:
        first = np.unique(task.y, return_index=True)[1]
        rest = np.setdiff1d(np.arange(len(task.y)), first)
        chosen = np.append(first, rest)[:ROWS]
    rows = rows[chosen, :COLUMNS]
    known = y is not None and task.y is not None
    right = y[rows] == task.y[chosen][:, None] if known else None
    labels = None if task.y is None else task.y[chosen]
    colours = " (green: the query's label, red: another)" if known else ""
    return retrieved(task.x[chosen], x[rows], right, labels, f"Nearest by {name}{colours}")
