"""Whether each dimension of a code is one factor of the images: MIG, SAP and DCI.

All of them take codes `(N, latent_dim)`, by custom the means of q(z|x), and the factors of the same images,
whole numbers `(N, num_factors)`.
"""

import dataclasses

import numpy as np

from vae_tf.errors import check_positive_int, invalid

BINS = 20  # of a dimension of the code, as in disentanglement_lib
TREES = 100
FEWEST = 100  # images, of which the predictors are fitted to half


@dataclasses.dataclass(frozen=True)
class DCI:
    """Each from 0 to 1, at best 1. importances: `(latent_dim, num_factors)`, each column sums to 1."""

    disentanglement: float
    completeness: float
    informativeness: float
    importances: np.ndarray


def mutual_information(codes, factors, bins=BINS):
    """I(z_j; v_k) / H(v_k), `(latent_dim, num_factors)`, of codes cut into bins: 0 to 1.

    Args:
        codes: `(N, latent_dim)`.
        factors: whole numbers `(N, num_factors)`, each of two values at least.
        bins: how many, of equal width from the least to the largest value of each dimension.

    Raises:
        ValueError: codes and factors do not fit each other, or a factor has a single value.
    """
    from sklearn.metrics import mutual_info_score

    codes, factors = _checked(codes, factors)
    check_positive_int("bins", bins, minimum=2)
    edges = [np.histogram_bin_edges(z, bins)[1:-1] for z in codes.T]
    cut = [np.digitize(z, inner) for z, inner in zip(codes.T, edges, strict=True)]
    information = np.array([[mutual_info_score(z, v) for v in factors.T] for z in cut])
    return information / [mutual_info_score(v, v) for v in factors.T]


def mig(codes, factors, bins=BINS):
    """The mutual information gap: how much more of a factor the best dimension knows than the second best,

        MIG = mean over k of (I(z_j*; v_k) − max over j ≠ j* of I(z_j; v_k)) / H(v_k).

    The paper takes z from q(z|x); here, as in disentanglement_lib and by custom since, the codes as they are
    given, which are the means, are cut into bins.

    Args:
        codes, factors, bins: as for `mutual_information`.

    Example:
        >>> z_mean, _ = codes(vae, images.x_test)
        >>> mig(z_mean, images.factors_test)

    Source: Chen et al. (2018), "Isolating sources of disentanglement in VAEs", equation 6; bins of the means:
    Locatello et al. (2019), "Challenging common assumptions", appendix C.
    """
    return float(_gap(mutual_information(codes, factors, bins)).mean())


def sap(codes, factors, categorical=(), seed=0):
    """Separated attribute predictability: how much better the best dimension alone predicts a factor than the
    second best, the mean over factors.

    The score of a dimension is R² of the linear regression of the factor on it, which is their squared
    correlation; for a factor whose values have no order the balanced accuracy of a linear SVM, on half of the
    images, which it was not fitted to.

    Args:
        codes, factors: as for `mutual_information`.
        categorical: the columns of the factors whose values have no order.
        seed: which half.

    Raises:
        ValueError: as `mutual_information`.

    Source: Kumar et al. (2018), "Variational inference of disentangled latent concepts", section 3.
    """
    codes, factors = _checked(codes, factors)
    scores = [
        _svm_scores(codes, v, seed) if k in categorical else _r_squared(codes, v)
        for k, v in enumerate(factors.T)
    ]
    return float(_gap(np.stack(scores, axis=1)).mean())


def dci(codes, factors, seed=0):
    """Disentanglement, completeness and informativeness, by what a random forest tells the factors by.

    R_jk is the importance of dimension j in the forest for factor k (mean decrease of impurity). With
    P_jk = R_jk / Σ_k R_jk and P'_jk = R_jk / Σ_j R_jk, and H their entropies,

        disentanglement = Σ_j ρ_j (1 − H(P_j) / log num_factors),  ρ_j = Σ_k R_jk / Σ_jk R_jk,
        completeness    = mean over k of (1 − H(P'_k) / log latent_dim).

    Informativeness is the forests' mean accuracy on half of the images, which they were not fitted to; the
    paper gives the error instead.

    Args:
        codes, factors: as for `mutual_information`.
        seed: which half, and the forests.

    Returns:
        `DCI`.

    Raises:
        ValueError: as `mutual_information`.

    Source: Eastwood & Williams (2018), "A framework for the quantitative evaluation of disentangled
    representations", section 2.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, factors = _checked(codes, factors)
    fitted, held = _halves(len(codes), seed)
    importances, accuracies = [], []
    for v in factors.T:
        # all dimensions are tried at each split: with some, those that say nothing would be chosen
        forest = RandomForestClassifier(
            TREES, max_features=None, min_samples_leaf=5, random_state=seed
        )
        forest.fit(codes[fitted], v[fitted])
        importances.append(forest.feature_importances_)
        accuracies.append(forest.score(codes[held], v[held]))
    importances = np.stack(importances, axis=1)
    weights = importances.sum(axis=1) / importances.sum()
    return DCI(
        disentanglement=float(weights @ concentration(importances)),
        completeness=float(concentration(importances.T).mean()),
        informativeness=float(np.mean(accuracies)),
        importances=importances,
    )


def why_no_factors(factors, names):
    """Why nothing can be measured by factors; None where it can.

    Args:
        factors: `(N, num_factors)`, or None.
        names: theirs.
    """
    if factors is None:
        return "the factors of the images are not known"
    if len(factors) < FEWEST:
        return f"there are fewer than {FEWEST} images"
    single = [name for name, v in zip(names, factors.T, strict=True) if (v == v[0]).all()]
    return f"the images have a single {single[0]}" if single else None


def concentration(importances):
    """Of each row 1 − H / log of its length: 1 where all is in one place, 0 where it is spread evenly."""
    count = importances.shape[1]
    total = importances.sum(axis=1, keepdims=True)
    even = np.full(importances.shape, 1 / count)
    p = np.divide(importances, total, out=even, where=total > 0)
    return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(count)


def _checked(codes, factors):
    """Codes as float64, and factors as NumPy, which fit each other."""
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or codes.shape[1] < 2 or not np.isfinite(codes).all():
        expected = "finite codes (N, latent_dim) of two dimensions at least"
        raise invalid("codes", expected, f"shape {codes.shape}, finite: {np.isfinite(codes).all()}")
    if factors.ndim != 2 or len(factors) != len(codes) or factors.dtype.kind not in "bui":
        expected = f"whole numbers ({len(codes)}, num_factors), a row for each code"
        raise invalid("factors", expected, f"{factors.dtype} of shape {factors.shape}")
    if len(single := np.flatnonzero(np.ptp(factors, axis=0) == 0)):
        received = f"a single one in column {single[0]}"
        raise invalid("factors", "two values of each factor at least", received, "Leave it out.")
    return codes, factors


def _gap(scores):
    """Of each column: the largest less the second largest."""
    second, first = np.sort(scores, axis=0)[-2:]
    return first - second


def _r_squared(codes, v):
    """Of the linear regression of a factor on each dimension alone; 0 of a constant dimension."""
    codes, v = codes - codes.mean(axis=0), v - v.mean()
    total = (codes**2).sum(axis=0) * (v**2).sum()
    return np.divide((v @ codes) ** 2, total, out=np.zeros(codes.shape[1]), where=total > 0)


def _svm_scores(codes, v, seed):
    """The balanced accuracy of a linear SVM on each dimension alone."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.svm import LinearSVC

    fitted, held = _halves(len(codes), seed)
    scores = []
    for z in codes.T[:, :, np.newaxis]:
        svm = LinearSVC(C=0.01, class_weight="balanced", dual=False)
        svm.fit(z[fitted], v[fitted])
        scores.append(balanced_accuracy_score(v[held], svm.predict(z[held])))
    return np.array(scores)


def _halves(count, seed):
    """The numbers of the images to fit a predictor to, and of those to score it on."""
    return np.array_split(np.random.default_rng(seed).permutation(count), 2)
