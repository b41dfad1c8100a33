"""What each dimension of a code knows of each factor of the images."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.plots.codes import label_text, z_name

_NUMBERS = 20  # dimensions, up to which the cells have room for their values
_DIMENSIONS = 50  # more are too narrow to tell apart


def factor_information(information, names):
    """I(z_j; v_k) / H(v_k) as a heat map: a row for each factor, a column for each dimension.

    Args:
        information: `(latent_dim, num_factors)`, as `evaluation.mutual_information` gives it. Of more than 50
            dimensions those are shown that know most of any factor.
        names: of the factors.
    """
    shown = sorted((-information.max(axis=1)).argsort(kind="stable")[:_DIMENSIONS])
    shares = information[shown].T
    width = 2.5 + 0.5 * max(6, min(len(shown), _NUMBERS))
    figure = Figure(figsize=(width, 1.6 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="of the factor's entropy")
    axes.set_yticks(range(len(names)), map(label_text, names))
    every = max(1, -(-len(shown) // _NUMBERS))
    axes.set_xticks(range(0, len(shown), every), [z_name(j) for j in shown[::every]])
    axes.set_title("Mutual information of each dimension and each factor")
    if len(shown) <= _NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "black" if share > 0.6 else "white"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, size=8)
    return figure
