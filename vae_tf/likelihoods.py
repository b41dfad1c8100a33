"""Likelihoods p(x|z): each owns the reconstruction term, the mean and the samples."""

import keras
from keras import ops


class Bernoulli:
    """Independent pixels x ∈ {0, 1} with probability sigmoid(logits).

    On grey values in [0, 1] `log_prob` is the negative cross-entropy: a loss in nats, but not a
    log-likelihood, and not to be compared with figures from binarised images.

    Source: Kingma & Welling (2014), appendix C.1.
    """

    def log_prob(self, logits, x):
        """Σ_pixels x·log p + (1 − x)·log(1 − p), with p = sigmoid(logits).

        Written as −Σ max(l, 0) − l·x + log(1 + e^−|l|), which neither overflows nor takes log 0.

        Args:
            logits: the decoder's output, of shape `(batch, ...)`.
            x: images in [0, 1], of the same shape.

        Returns:
            Nats per image, of shape `(batch,)`.
        """
        cross_entropy = ops.relu(logits) - logits * x + ops.log1p(ops.exp(-ops.abs(logits)))
        return -ops.sum(cross_entropy, axis=range(1, len(cross_entropy.shape)))

    def mean(self, logits):
        """E[x|z] = sigmoid(logits): images in [0, 1], in the shape of `logits`."""
        return ops.sigmoid(logits)

    def sample(self, logits, seed=None):
        """Draw binary images, 0.0 or 1.0, in the shape of `logits`; `seed` as in `keras.random`."""
        uniform = keras.random.uniform(ops.shape(logits), seed=seed)
        return ops.cast(uniform < ops.sigmoid(logits), logits.dtype)
