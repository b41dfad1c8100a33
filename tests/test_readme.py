"""The README's model of one's own: it is the one that the contract runs, and its lines run as they stand."""

import inspect
import re

import keras
import numpy as np
import own_models
import pytest
from helpers import REPOSITORY, run_python

from vae_tf.evaluation import log_likelihood

SECTION = (REPOSITORY / "README.md").read_text().partition("\n## Your own model\n")[2]
CODE = "\n".join(re.findall(r"```python\n(.*?)```", SECTION.partition("\n## ")[0], re.DOTALL))


def test_the_model_is_the_one_that_the_contract_runs():
    source = inspect.getsource(own_models)
    model = source.partition("# README: your own model\n")[2].partition("# README: end")[0].strip()
    assert model
    assert model in CODE


@pytest.mark.slow
def test_its_lines_run(tmp_path):
    out = run_python(CODE + "\nprint(model.generate(num=16, seed=0).shape)", cwd=tmp_path)
    assert "±" in out
    assert out.split("\n")[-2] == "(16, 8, 8, 1)"


@pytest.mark.slow
def test_it_is_a_distribution_of_images():
    """Σ_x p(x) over all images of three binary pixels is 1, each p(x) by importance sampling.

    The first and second moments of p(x) are those of images that the model draws.
    """
    x = np.array(np.meshgrid(*[[0.0, 1.0]] * 3), "float32").reshape(3, -1).T
    model = own_models.TwoLayerVAE(seed=0)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(np.repeat(x, [60, 5, 5, 5, 5, 5, 5, 60], axis=0), epochs=200, verbose=0)
    found = log_likelihood(model, x, num_samples=20000)
    p = np.exp(found.per_image)
    assert np.ptp(p) > 0.2
    assert found.effective_sample_size.min() > 1000
    assert p.sum() == pytest.approx(1, abs=0.02)
    means = model.generate(4000, seed=0)  # E[x|z], whose pixels are independent given z
    np.testing.assert_allclose(means.mean(axis=0), p @ x, atol=0.03)
    products = np.mean(means[:, 0] * means[:, 1])
    assert products == pytest.approx(p @ (x[:, 0] * x[:, 1]), abs=0.03)
