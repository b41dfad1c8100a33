"""Figures of discrete codes: maps of them beside their images, and how often each is used."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.engine.monitor import perplexity
from vae_tf.plots.grids import bands
from vae_tf.plots.tiles import as_tiles


def code_maps(originals, codes, reconstructions, embeddings):
    """Images, the maps of their codes in colour, and their reconstructions, in rows that say so.

    Args:
        originals, reconstructions: as many images each.
        codes: the numbers of their codes, `(N, height, width)`.
        embeddings: the codes' vectors, `(K, embedding_dim)`: vectors that are alike have colours that are.
    """
    kinds = [as_tiles(originals), _colors(embeddings)[codes], as_tiles(reconstructions)]
    height, width = kinds[0].shape[1:3]
    rows, columns = (
        np.arange(n) * k // n for n, k in zip((height, width), codes.shape[1:], strict=True)
    )
    kinds[1] = kinds[1][:, rows][:, :, columns]
    kinds = np.stack([np.broadcast_to(each, (*each.shape[:3], 3)) for each in kinds])
    size = "×".join(map(str, codes.shape[1:]))
    title = (
        f"Images, their maps of {size} codes ({len(embeddings)} colours), and their reconstructions"
    )
    return bands(kinds, ("original", "codes", "reconstruction"), title)


def code_usage(codes, num_codes):
    """How often each code is used, the most frequent first.

    Args:
        codes: the numbers of the codes of images, of any shape.
        num_codes: K.
    """
    shares = np.bincount(codes.ravel(), minlength=num_codes) / codes.size
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(
        np.arange(1, len(shares) + 1), 100 * np.sort(shares)[::-1], width=1, color="tab:orange"
    )
    axes.axhline(100 / len(shares), color="black", lw=1, label="if all were used alike")
    axes.set(xlabel="codes, by their use", ylabel="% of all places", xlim=(0.5, len(shares) + 0.5))
    used = int(np.sum(shares > 0))
    axes.set_title(
        f"Use of the codebook: {used} of {len(shares)} codes, perplexity {perplexity(shares):.1f}"
    )
    axes.legend(frameon=False)
    return figure


def _colors(embeddings):
    """A colour for each vector: its place among all on each of their three principal components."""
    centred = embeddings - embeddings.mean(axis=0)
    found = np.linalg.svd(centred, full_matrices=False)
    parts = (found[0] * found[1])[:, :3]
    ranks = parts.argsort(axis=0).argsort(axis=0) / max(1, len(parts) - 1)
    return np.pad(ranks, ((0, 0), (0, 3 - ranks.shape[1])), constant_values=0.5)
