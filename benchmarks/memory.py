"""Resident memory of `vae-tf train --dataset mnist` above what importing TensorFlow takes.

    TFDS_DATA_DIR=... python benchmarks/memory.py [--steps N]

Two fresh processes, each of which reports the peak that the operating system saw.
"""

import argparse
import os
import subprocess
import sys
import tempfile

PEAK = "\nimport resource; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
TRAIN = (
    "import sys; from vae_tf.cli import main;"
    "assert main(['train', '--dataset', 'mnist', '--run', sys.argv[1], '--steps', sys.argv[2]]) == 0"
)


def peak(code, *args):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code + PEAK, *map(str, args)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(result.stdout.split("peak")[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    tensorflow = peak("import tensorflow")
    with tempfile.TemporaryDirectory() as folder:
        training = peak(TRAIN, folder + "/run", args.steps)
    print(
        f"importing TensorFlow {tensorflow:.0f} MiB, training {training:.0f} MiB: {training - tensorflow:.0f} MiB above"
    )


if __name__ == "__main__":
    main()
