"""Colour photographs on light backgrounds: are generated images as bright and as varied as those trained on?

    python benchmarks/photographs.py [--rows "bernoulli dense" ...] [--pictures DIR]

600 images of 64×64: soft ellipses cut from scikit-learn's two photographs, on near-white; the default
recipe for 1,200 steps. A line for each row; with --pictures a grid of 20 generated images, 10 reconstructions and
their originals. On 2 cores a dense network takes a minute, a convolutional one five.
"""

import argparse
import os
import pathlib
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vae_tf import TrainConfig, load_run, train
from vae_tf.training import prepare

ROWS = ["bernoulli dense", "gaussian dense", "bernoulli conv", "gaussian conv"]


def light_photographs(num=600, side=64, seed=0):
    """Bytes `(num, side, side, 3)`."""
    random = np.random.default_rng(seed)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    y, x = np.mgrid[:side, :side]
    images = []
    for _ in range(num):
        whole = photographs[random.integers(2)]
        size = int(random.integers(60, 200))
        left, top = (int(random.integers(0, length - size)) for length in whole.size)
        part = whole.crop((left, top, left + size, top + size)).resize((side, side))
        back = random.uniform(0.9, 1.0) - random.uniform(0, 0.06, 3)
        middle, radii = random.uniform(22, 42, 2), random.uniform(12, 24, 2)
        distance = ((x - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2
        inside = 1 / (1 + np.exp(8 * (distance - 1)))[..., None]
        pixels = back * (1 - inside) + np.asarray(part) / 255 * inside
        images.append(np.round(255 * np.clip(pixels, 0, 1)).astype("uint8"))
    return np.stack(images)


def measure(row, folder, pictures):
    likelihood, network = row.split()
    run = folder / row.replace(" ", "_")
    data, steps = str(folder / "light.npz"), 1200
    config = TrainConfig(
        data=data, likelihood=likelihood, network=network, steps=steps, run=str(run)
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan = prepare(config)
        record = train(plan)
    images, (_, model) = plan.images, load_run(run)
    made = model.generate(200, seed=0)
    x = images.x_train / 255
    left = [str(w.message) for w in said if w.category.__name__ == "PriorMismatchWarning"]
    print(
        f"{row:16} generated {made.mean():.3f} (spread {made.std():.3f}), trained on {x.mean():.3f} "
        f"({x.std():.3f}), test loss {record['test']['loss']:.1f}; {left[0] if left else 'no warning'}",
        flush=True,
    )
    if pictures:
        originals = images.x_test[:10] / 255
        rows = [made[:10], made[10:20], model.reconstruct(images.x_test[:10]), originals]
        grid = np.concatenate([np.concatenate(list(part), axis=1) for part in rows])
        pixels = np.round(255 * np.clip(grid, 0, 1)).astype("uint8")
        Image.fromarray(pixels).save(pathlib.Path(pictures) / f"{run.name}.png")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--pictures", metavar="DIR", help="an existing directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.savez(folder / "light.npz", x=light_photographs())
        for row in args.rows:
            measure(row, folder, args.pictures)


if __name__ == "__main__":
    main()
