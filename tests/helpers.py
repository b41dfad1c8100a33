"""What several test files share."""

import os
import pathlib
import subprocess
import sys

import numpy as np

REPOSITORY = pathlib.Path(__file__).parent.parent


def blobs(num=64, shape=(8, 8), seed=0):
    """Images with structure to learn: a bright bar at one of eight heights, as bytes."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (num, *shape)).astype(np.uint8)
    images[np.arange(num), random.integers(0, shape[0], num)] = 230
    return images


def run_python(code, *args, cwd=None):
    """Run `code` in a fresh Python; returns what it printed, and fails with its errors."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
