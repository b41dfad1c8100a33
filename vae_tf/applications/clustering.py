"""Cluster: groups of images that lie together in the space of codes."""

import dataclasses

import numpy as np

from vae_tf.applications.command import Result
from vae_tf.applications.sources import source_of
from vae_tf.errors import check_choice, check_positive_int, invalid
from vae_tf.evaluation.report import Section
from vae_tf.plots.clusters import clustered, nearest_to_centres
from vae_tf.plots.codes import project

METHODS = {"kmeans": "k-means", "mixture": "a Gaussian mixture"}
ASKED = 5000  # codes that the silhouette is of: it compares each with each
NEAREST = 10  # images in a row of the picture
RESTARTS = 10  # of k-means, of which the best is kept


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Groups of codes.

    Attributes:
        codes: `(N, D)`, maps of codes as one long vector each.
        numbers: the cluster of each, `(N,)`, from 0 on.
        centres: `(num_clusters, D)`.
        fitted: scikit-learn's `KMeans` or `GaussianMixture`, whose `predict` takes new codes.
    """

    codes: np.ndarray
    numbers: np.ndarray
    centres: np.ndarray
    fitted: object

    def silhouette(self, seed=0):
        """How much nearer codes are to their own cluster than to the next: from −1 to 1.

        Of at most 5,000 codes, which the seed draws. NaN where all are in one cluster.

        Source: Rousseeuw (1987), "Silhouettes".
        """
        from sklearn.metrics import silhouette_score

        chosen = np.random.default_rng(seed).permutation(len(self.codes))[:ASKED]
        codes, numbers = self.codes[chosen], self.numbers[chosen]
        if not 1 < len(np.unique(numbers)) < len(numbers):
            return float("nan")
        return float(silhouette_score(codes, numbers))

    def agreement(self, labels):
        """How well the clusters agree with labels: 1 where they are the same groups, about 0 by chance.

        Returns:
            `{"adjusted_rand": ..., "normalized_mutual_information": ...}`.

        Raises:
            ValueError: there are no labels, or not one for each code.

        Source: Hubert & Arabie (1985), "Comparing partitions", for the adjusted Rand index.
        """
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        labels = check_labels(labels, len(self.codes))
        return {
            "adjusted_rand": float(adjusted_rand_score(labels, self.numbers)),
            "normalized_mutual_information": float(
                normalized_mutual_info_score(labels, self.numbers)
            ),
        }

    def nearest(self, count=NEAREST):
        """The numbers of the images whose codes are nearest to each centre, `(num_clusters, count)`."""
        square = (self.codes**2).sum(1) - 2 * self.centres @ self.codes.T
        return np.argsort(square, axis=1, kind="stable")[:, :count]


def cluster(
    source, x, num_clusters, method="kmeans", covariance="full", seed=0, condition=None, progress=None
):  # fmt: skip
    """Find groups among the codes of images.

    Args:
        source: whatever `source_of` takes that can encode.
        x: images `(N, *image_shape)`.
        num_clusters: how many groups; the number of labels, where they are known.
        method: "kmeans" or "mixture", of Gaussians.
        covariance: of the mixture: "full", "tied", "diag" or "spherical", as scikit-learn has them. Of
            codes with hundreds of numbers "full" has too many parameters.
        seed: fixes where the search begins.
        condition: one for each image, of a model that has conditions.
        progress: called with how many images are encoded, and of how many.

    Returns:
        `Clusters`.

    Raises:
        ValueError, TypeError: an argument makes no sense, or the source cannot encode.

    Example:
        >>> found = cluster("runs/digits_default_z5", x_test, 10)  # doctest: +SKIP
        >>> found.agreement(y_test)["adjusted_rand"]  # doctest: +SKIP
    """
    source = source_of(source)
    source.needs("encode", "cluster")
    check_choice("method", method, METHODS)
    check_num_clusters(num_clusters, len(x))
    return cluster_codes(
        source.encode(x, condition, progress), num_clusters, method, covariance, seed
    )


def cluster_codes(z, num_clusters, method="kmeans", covariance="full", seed=0):
    """The same for codes `(N, ...)`."""
    codes = np.reshape(z, (len(z), -1)).astype(np.float64)
    if method == "kmeans":
        from sklearn.cluster import KMeans

        fitted = KMeans(num_clusters, n_init=RESTARTS, random_state=_word(seed))
        return Clusters(codes, fitted.fit_predict(codes), fitted.cluster_centers_, fitted)
    from sklearn.mixture import GaussianMixture

    fitted = GaussianMixture(
        num_clusters, covariance_type=covariance, max_iter=1000, random_state=_word(seed)
    )
    return Clusters(codes, fitted.fit_predict(codes), fitted.means_, fitted)


def check_num_clusters(num_clusters, count):
    """Return how many clusters, of which none can be without an image; the labels' number is the user's."""
    if num_clusters is None:
        hint = "There are no labels, whose number it would be."
        raise invalid("num_clusters", "how many groups to find", "None", hint)
    if check_positive_int("num_clusters", num_clusters, minimum=2) > count:
        raise invalid("num_clusters", f"no more than the {count} images", num_clusters)
    return num_clusters


def check_labels(labels, count):
    """Labels of images, one for each; or what is wrong with them."""
    if labels is None:
        hint = "Without them there are clusters and their silhouette."
        raise invalid("labels", "a label of each image, to compare the clusters with", "None", hint)
    if np.shape(labels) != (count,):
        raise invalid("labels", f"one for each of {count} images", f"shape {np.shape(labels)}")
    return np.asarray(labels)


def projected(codes, projection="pca", seed=0):
    """Codes on a plane, `(N, 2)`, and the names of its axes: principal components, or UMAP.

    Source: McInnes, Healy & Melville (2018), "UMAP", for "umap".
    """
    if projection == "umap":
        umap = check_umap()
        seed = None if seed is None else _word(seed)
        points = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(codes)
        return points, ("first of UMAP", "second of UMAP")
    if codes.shape[1] == 1:
        return np.column_stack([codes, np.arange(len(codes))]), ("the code", "number of the image")
    points, shares = project(codes)
    which = zip(("first", "second"), shares, strict=True)
    return points, tuple(f"{name} component ({share:.0%} of the variance)" for name, share in which)


def check_umap():
    """The package `umap`, or the message that says how it is installed."""
    try:
        import umap
    except ImportError as error:
        hint = 'It is installed by: pip install "vae_tf[umap]".'
        raise invalid(
            "projection", "'pca', where umap-learn is not installed", "umap", hint
        ) from error
    return umap


def _word(seed):
    """A seed of scikit-learn, which takes 32 bits."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def check(task):
    task.source.needs("encode", "cluster")
    _labels(task)
    check_num_clusters(_num_clusters(task), len(task.x))
    if task.config.projection == "umap":
        check_umap()


def _labels(task):
    """One label for each image; None where there are none, or vectors (the conditions of other models)."""
    return task.y if np.ndim(task.y) == 1 else None


def _num_clusters(task):
    labels = _labels(task)
    asked = task.config.num_clusters
    return len(np.unique(labels)) if asked is None and labels is not None else asked


def run(task, progress):
    """Each method: a section with the figures and two pictures."""
    config, metrics, sections = task.config, {}, []
    z = task.source.encode(task.x, task.condition, lambda *at: progress("encode", *at))
    codes, labels = np.reshape(z, (len(z), -1)), _labels(task)
    progress(config.projection, 0, 1)
    points, names = projected(codes, config.projection, config.seed)
    for method in config.method:
        progress(METHODS[method], 0, 1)
        found = cluster_codes(codes, _num_clusters(task), method, config.covariance, config.seed)
        figures = {
            f"{method}": clustered(
                points, found.numbers, labels, names, f"Clusters by {METHODS[method]}"
            ),
            f"{method}_nearest": nearest_to_centres(task.x[found.nearest()]),
        }
        figures_of = {"silhouette": found.silhouette(config.seed)}
        figures_of |= {} if labels is None else found.agreement(labels)
        metrics[method] = {"clusters": len(found.centres)} | figures_of
        sections.append(_section(method, found, figures_of, figures, task))
    return Result({"cluster": metrics}, sections)


def _section(method, found, values, figures, task):
    sizes = np.bincount(found.numbers, minlength=len(found.centres))
    rows = [
        ("clusters", f"{len(sizes)}, of {sizes.min()} to {sizes.max()} images"),
        *((name.replace("_", " "), f"{value:.3f}") for name, value in values.items()),
    ]
    if _labels(task) is None:
        rows.append(("labels", "none, to compare the clusters with"))
    caveats = []
    if task.source.condition is not None:
        name = task.source.condition.name
        caveats = [f"The model is told the {name} of each image: its code need not carry it."]
    return Section(f"Clusters by {METHODS[method]}", rows, figures=figures, caveats=caveats)
