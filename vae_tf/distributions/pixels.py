"""Distributions of pixels between black and white: `log_prob` sums over all axes but the first."""

import math

from keras import ops

from vae_tf.distributions.numerics import floats, log_mean_exp, sum_over_pixels, to_floats
from vae_tf.distributions.support import BIN, BINARY, BYTES, INTERVAL


class Bernoulli:
    """Independent pixels x ∈ {0, 1} with probability sigmoid(logits).

    On grey values in [0, 1] `log_prob` is the negative cross-entropy: a loss in nats, but not a
    log-likelihood, and not to be compared with figures from binarised images.

    Args:
        logits: of shape `(batch, ...)`.

    Source: Kingma & Welling (2014), appendix C.1.
    """

    support = BINARY

    def __init__(self, logits):
        (self.logits,) = floats(logits)

    def log_prob(self, x):
        """Σ_pixels x·log p + (1 − x)·log(1 − p), with p = sigmoid(logits).

        Written as −Σ max(l, 0) − l·x + log(1 + e^−|l|), which neither overflows nor takes log 0.

        Args:
            x: images in [0, 1], of the shape of the logits.

        Returns:
            Nats per image, of shape `(batch,)`.
        """
        x, logits = floats(to_floats(x), self.logits)
        size = ops.abs(logits)
        # ½(l + |l|), not relu: at l = 0 the gradient is then ½ − x, as it should be.
        cross_entropy = 0.5 * (logits + size) - logits * x + ops.log1p(ops.exp(-size))
        return -sum_over_pixels(cross_entropy)

    def mean(self):
        """E[x] = sigmoid(logits)."""
        return ops.sigmoid(self.logits)

    def sample(self, noise):
        """Binary images, 0.0 or 1.0, from `noise.uniform`."""
        drawn = noise.uniform(self.logits)  # above 0, so that p = 0 is never drawn
        return ops.cast(drawn <= ops.cast(self.mean(), drawn.dtype), self.logits.dtype)


class ContinuousBernoulli:
    """Independent pixels x ∈ [0, 1] with the density C(λ) λ^x (1 − λ)^(1 − x), λ = sigmoid(l).

    The normaliser is C(λ) = l / tanh(l/2), and the density is that of an exponential which is cut
    off at 0 and 1: l·e^(l·x) / (e^l − 1).

    Args:
        logits: l, of shape `(batch, ...)`.

    Source: Loaiza-Ganem & Cunningham (2019), "The continuous Bernoulli: fixing a pervasive error in
    variational autoencoders", equations 5 to 8.
    """

    support = INTERVAL

    def __init__(self, logits):
        (self.logits,) = floats(logits)

    def log_prob(self, x):
        """Σ_pixels x·log λ + (1 − x)·log(1 − λ) + log C(λ).

        Written as Σ l·x − max(l, 0) − log((1 − e^−|l|)/|l|), whose value and gradient are stable
        near λ = ½ and for logits of any size.

        Args:
            x: images in [0, 1], of the shape of the logits.

        Returns:
            Nats per image, of shape `(batch,)`. A density's: it may be positive.
        """
        x, logits = floats(to_floats(x), self.logits)
        size = ops.abs(logits)
        # ½(l + |l|), not relu: at l = 0 its gradient and that of the last term add up to ½.
        return sum_over_pixels(logits * x - 0.5 * (logits + size) - log_mean_exp(size))

    def mean(self):
        """E[x] = 1/(1 − e^−l) − 1/l = λ/(2λ − 1) + 1/(2 atanh(1 − 2λ)); ½ at l = 0."""
        size = ops.abs(self.logits)
        large = size >= 0.5
        size = ops.where(large, size, 1.0)
        end = 1 / size - ops.exp(-size) / (1 - ops.exp(-size))  # the mean's distance from 0 or 1
        few = ops.where(large, 0.0, self.logits)
        square = ops.square(few)
        series = 1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600))
        near_half = 0.5 + few * series
        return ops.where(large, ops.where(self.logits > 0, 1 - end, end), near_half)

    def sample(self, noise):
        """Images in [0, 1] by the inverse of the distribution function, from `noise.uniform`."""
        uniform = ops.cast(noise.uniform(self.logits), self.logits.dtype)
        size = ops.maximum(ops.abs(self.logits), 1e-6)  # below that, x is the uniform number
        end = -ops.log1p(uniform * ops.expm1(-size)) / size
        end = ops.minimum(end, 1.0)  # the logarithm of 0, where the uniform number is 1
        return ops.where(self.logits > 0, 1 - end, end)


class DiscretizedLogistic:
    """Independent bytes x = k/255: a logistic variable, rounded to the nearest byte.

    P(x) = σ((x + ½/255 − m)/s) − σ((x − ½/255 − m)/s); 0 and 255 take the tails beyond them. So it
    is a probability, and `log_prob` / (−log 2 · pixels) is a figure in bits per dimension.

    Args:
        mean: m, of shape `(batch, ...)`, where black is 0 and white is 1.
        log_scale: log s, of the same shape, used from −30 to 30 (beyond, float32 makes no
            difference between them).

    Source: Salimans et al. (2017), "PixelCNN++", section 2.1, with one component.
    """

    support = BYTES

    def __init__(self, mean, log_scale):
        self._mean, log_scale = floats(mean, log_scale)
        self.log_scale = ops.clip(log_scale, -30.0, 30.0)

    def log_prob(self, x):
        """Σ_pixels log P(x), with σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)): nothing cancels.

        Args:
            x: images of floats k/255, of the shape of the mean.

        Returns:
            Nats per image, of shape `(batch,)`.
        """
        x, mean, log_scale = floats(to_floats(x), self._mean, self.log_scale)
        middle, width = (x - mean) * ops.exp(-log_scale), BIN * ops.exp(-log_scale)
        below = ops.log_sigmoid(middle + 0.5 * width)  # log of the probability up to the bin's end
        above = ops.log_sigmoid(0.5 * width - middle)  # and of that from the bin's beginning
        inside = below + above + log_mean_exp(width) + math.log(BIN) - log_scale
        upper = ops.where(x > 1 - BIN / 2, above, inside)
        return sum_over_pixels(ops.where(x < BIN / 2, below, upper))

    def mean(self):
        """s·log((1 + e^(m/s)) / (1 + e^((m − 1)/s))): the mean of the logistic, clipped to [0, 1].

        Rounding moves no value by more than half a byte, so E[x] is within 1/510 of it; the exact
        sum has 255 terms a pixel.
        """
        scale, inverse = ops.exp(self.log_scale), ops.exp(-self.log_scale)
        high, low = self._mean * inverse, (self._mean - 1) * inverse
        narrow = scale * (ops.softplus(high) - ops.softplus(low))
        rise = ops.expm1(ops.minimum(inverse, 1.0))
        wide = scale * ops.log1p(ops.sigmoid(low) * rise)  # the same, where the difference cancels
        return ops.where(scale < 1, narrow, wide)

    def sample(self, noise):
        """Images of floats k/255, from `noise.uniform`."""
        uniform = ops.cast(noise.uniform(self._mean), self._mean.dtype)
        logistic = ops.log(uniform) - ops.log1p(-uniform)
        x = ops.clip(self._mean + ops.exp(self.log_scale) * logistic, 0.0, 1.0)
        return ops.round(255 * x) / 255
