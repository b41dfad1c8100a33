"""Seconds of training in this checkout and in another one, such as the commit before, in turns.

    git worktree add ../before HEAD~1
    python benchmarks/in_turns.py ../before [--rounds N] [--epochs N]

Each checkout has a process of its own, and only one of them runs at a time; the two ways of
`train_step.py`, `fit(x)` and `vae-tf train`, dense network, MNIST-shaped bytes, batch 100. A ratio
is that of one round's two times, this checkout's over the other's; their median is printed.
"""

import argparse
import os
import pathlib
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parents[1]
WORKER = """
import sys, time, warnings
warnings.simplefilter("ignore")
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
import train_step, vae_tf
assert vae_tf.__file__.startswith(sys.argv[1]), vae_tf.__file__
x, epochs = train_step.mnist_shaped_digits(), int(sys.argv[2])
ways = {
    "fit(x)": train_step.fit_on_arrays(x, epochs),
    "vae-tf train": train_step.fit_as_the_command_does(x, epochs),
}
for line in sys.stdin:
    start = time.perf_counter()
    ways[line.strip()]()
    print(time.perf_counter() - start, flush=True)
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=pathlib.Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of 60,000 images in a turn")
    args = parser.parse_args()
    workers = [_worker(path, args.epochs) for path in (HERE, args.other.resolve())]
    ways = ("fit(x)", "vae-tf train")
    seconds = {way: [] for way in ways}
    for turn in range(-1, args.rounds):  # the first turn compiles
        for way in ways:
            order = workers if turn % 2 else workers[::-1]
            took = {id(worker): _run(worker, way) for worker in order}
            if turn >= 0:
                seconds[way].append([took[id(worker)] for worker in workers])
    for way, pairs in seconds.items():
        here, other = np.array(pairs).T
        ratios = here / other
        print(
            f"{way:14} here {np.median(here):6.2f} s, other {np.median(other):6.2f} s, "
            f"ratio {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})"
        )
    for worker in workers:
        worker.stdin.close()


def _worker(path, epochs):
    words = [sys.executable, "-c", WORKER, str(path), str(epochs)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=environment, cwd="/", **pipes)


def _run(worker, way):
    print(way, file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


if __name__ == "__main__":
    main()
