"""Rate against distortion, and what images look like at several rates."""

import math

import numpy as np
from matplotlib.figure import Figure

from vae_tf.plots.grids import bands
from vae_tf.plots.tiles import as_tiles

_MARKERS = "osD^vP*X"


def rate_distortion(points, title="Rate against distortion"):
    """PSNR against bits a pixel: a line for each kind of lossy coding, an upright one for lossless rates.

    Args:
        points: of `vae_tf.applications.rate_distortion`.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    lines = {}
    for point in points:
        how = point.setting.partition(", ")[2]
        lines.setdefault(f"{point.kind}, {how}" if how else point.kind, []).append(point)
    lossless = [point for point in points if math.isinf(point.psnr)]
    for number, (name, of_line) in enumerate(lines.items()):
        found = sorted((p.rate, p.psnr) for p in of_line if math.isfinite(p.psnr))
        style = {"color": f"C{number % 10}", "marker": _MARKERS[number % len(_MARKERS)]}
        if found:
            axes.plot(*zip(*found, strict=True), label=name, **style)
        for point in (p for p in of_line if math.isinf(p.psnr)):
            label = f"{point.name}: {point.rate:.3g}"
            axes.axvline(point.rate, color=f"C{number % 10}", ls=":", label=label)
    axes.set(xscale="log", xlabel="bits a pixel", ylabel="PSNR in dB", title=title)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    words = "dotted: nothing is lost" if lossless else None
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, title=words)
    return figure


def at_rates(originals, points, most=8):
    """Images above what comes back of them, in rows from the lowest rate to the highest.

    Args:
        originals: the first images.
        points: `Point`s. Those that lose something are shown, evenly chosen where they are more than `most`;
            of WebP those of one sheet.
    """
    lossy = [p for p in points if math.isfinite(p.psnr) and not p.setting.endswith("each")]
    lossy.sort(key=lambda point: point.rate)
    chosen = np.unique(np.linspace(0, len(lossy) - 1, min(most, len(lossy))).round().astype(int))
    shown = [lossy[i] for i in chosen]
    count = min(len(originals), *(len(point.images) for point in shown))
    kinds = [originals[:count], *(point.images[:count] for point in shown)]
    labels = [f"{p.rate:.3g} bits: {p.name}" for p in shown]
    return bands(np.stack([as_tiles(k) for k in kinds]), ["images", *labels], _TITLE, count)


_TITLE = "Images, and what comes back at so many bits a pixel"
