"""Layers that are trained one after the other, and the classifier that begins with them."""

import keras
import numpy as np
import pytest
from helpers import blobs

from vae_tf import DenoisingAutoencoder, pretrain_stack, stacked_classifier


def test_each_layer_learns_the_codes_of_the_one_before_it(monkeypatch):
    x, seen, fit = blobs(40, (8, 8)), [], DenoisingAutoencoder.fit

    def watched(self, codes, **options):
        seen.append(np.array(codes))
        return fit(self, codes, **options)

    monkeypatch.setattr(DenoisingAutoencoder, "fit", watched)
    stack = pretrain_stack(x, (12, 7), (0.1, 0.2), epochs=2, batch_size=20, seed=0, verbose=0)
    np.testing.assert_array_equal(seen[0], x)
    kernel, bias = stack[0].encoder.get_weights()
    codes = 1 / (1 + np.exp(-(x.reshape(40, -1) / 255 @ kernel + bias)))  # of clean images
    np.testing.assert_allclose(seen[1], codes, atol=1e-5)
    assert [model.corruption.share for model in stack] == [0.1, 0.2]
    assert [model.steps_made for model in stack] == [4, 4]


def test_the_classifier_is_the_encoders_and_fine_tunes_them():
    x = blobs(40, (8, 8)) / 255
    stack = pretrain_stack(x, (12, 7), (0.1, 0.2), epochs=0, seed=0)
    assert [model.steps_made for model in stack] == [0, 0]
    classifier = stacked_classifier(stack, 3)
    np.testing.assert_allclose(
        classifier.predict(x, verbose=0), 1 / 3, atol=1e-6
    )  # it knows nothing
    before = stack[0].encoder.get_weights()[0]
    labels = x.reshape(40, -1).argmax(axis=1) % 3
    classifier.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    losses = classifier.fit(x, labels, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert (stack[0].encoder.get_weights()[0] != before).any()


def test_the_seed_fixes_every_layer():
    x = blobs(20, (8, 8))
    one, again, other = (
        pretrain_stack(x, (6, 4), (0.5, 0.5), epochs=0, seed=seed)[-1] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.code(np.ones((1, 6))), again.code(np.ones((1, 6))))
    assert (one.code(np.ones((1, 6))) != other.code(np.ones((1, 6)))).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((12, 7), (0.1,)), "one level for each of 2 layers"),
        (((), ()), "levels"),
        (((12,), (1.5,)), "from 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        pretrain_stack(blobs(20, (8, 8)), *arguments, epochs=0)
    with pytest.raises(ValueError, match="at least one model"):
        stacked_classifier([], 10)
