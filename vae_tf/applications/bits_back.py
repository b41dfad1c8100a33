"""Bits-back coding: binary images on a stack of bits, through a model's code z.

An image is coded by (1) popping z from the stack under q(z|x), which takes bits away, (2) pushing x under
p(x|z), (3) pushing z under p(z). On average the stack grows by −log p(x|z) − log p(z) + log q(z|x): by
−ELBO. Decoding does the same steps backwards, and puts the bits of (1) back.

Source: Townsend, Bird & Barber (2019), "Practical lossless compression with latent variables using
bits back coding".
"""

import math
import statistics

import numpy as np

from vae_tf.errors import invalid

BUCKETS_LOG2 = 12  # z has 2^12 values a dimension; of a VAE of MNIST the rate is the same with 2^8
REACH = 8  # standard deviations from its mean at which a posterior ends: 1e-15 is left out
_NORMAL = statistics.NormalDist()


class OtherBitsError(Exception):
    """Decoding has met what no encoding leaves: the model computes other bits than it did."""


def load_constriction():
    """The library of entropy coders, or the error that says how to install it."""
    try:
        import constriction
    except ImportError as error:
        hint = 'pip install "vae_tf[compress]"'
        expected = "constriction, the library of entropy coders, to be installed"
        raise invalid("compress", expected, "it is not", hint) from error
    return constriction


class Buckets:
    """The values of one dimension of z: 2^k intervals that have the same mass under N(0, 1).

    `centres`: the value that stands for each, the median of its mass.
    """

    def __init__(self, log2=BUCKETS_LOG2):
        self.num = 2**log2
        inner = [_NORMAL.inv_cdf(i / self.num) for i in range(1, self.num)]
        self._edges = [-math.inf, *inner, math.inf]
        self.centres = np.array([_NORMAL.inv_cdf((i + 0.5) / self.num) for i in range(self.num)])

    def model(self, mean, sigma, custom):
        """N(mean, sigma²) over the buckets, as an entropy model.

        constriction gives each bucket that the model knows of a probability of 2^−24 at least. So it
        is told of those alone that the posterior reaches: a posterior far narrower than the prior would
        otherwise be drawn from the prior now and then.

        Args:
            custom: the class `constriction.stream.model.CustomModel`.
        """
        edges, num, scale = self._edges, self.num, 1 / (sigma * math.sqrt(2))

        def below(boundary):  # the mass below the boundary i − ½ between buckets i − 1 and i
            return 0.5 * math.erfc((mean - edges[int(boundary + 0.5)]) * scale)

        def about(mass):  # roughly the inverse: where a search begins
            quantile = _NORMAL.inv_cdf(min(max(mass, 1e-12), 1 - 1e-12))
            return num * _NORMAL.cdf(mean + sigma * quantile) - 0.5

        low, high = (int(num * _NORMAL.cdf(mean + side * REACH * sigma)) for side in (-1, 1))
        return custom(below, about, min(max(low - 1, 0), num - 2), min(high + 1, num - 1))


class BitsBack:
    """A stack of bits, on which binary images are pushed and from which they are popped.

    Args:
        posterior: of one image, float32 of the model's shape, to the means and standard deviations of
            q(z|x), each `(latent_dim,)`.
        probabilities: of one z, float32 `(latent_dim,)`, to those of the pixels that are 1.
        image_shape, latent_dim: of the model.
        stack: what an earlier one left, `uint32`; by default the bits that the first images pop.
        count: how many images are on the stack.

    Both functions must give the same bits whenever they are given the same: a decoder asks them again.

    Example:
        >>> coder.push(image)  # doctest: +SKIP
        >>> (coder.pop() == image).all()  # doctest: +SKIP
        True
    """

    def __init__(self, posterior, probabilities, image_shape, latent_dim, stack=None, count=0):
        stream = load_constriction().stream
        self.posterior, self.probabilities, self.image_shape = posterior, probabilities, image_shape
        self._custom, self.buckets, self.latent_dim = (
            stream.model.CustomModel,
            Buckets(),
            latent_dim,
        )
        self._pixels = stream.model.Bernoulli(perfect=False)
        self._prior = stream.model.Uniform(self.buckets.num)
        self._count, sealed = count, stack is None  # keeps zeros at the top
        self._stack = stream.stack.AnsCoder(
            first_bits(latent_dim) if sealed else stack, seal=sealed
        )

    @property
    def num_bits(self):
        """How long the stack is."""
        return self._stack.num_valid_bits()

    def words(self):
        """The stack, `uint32`."""
        return self._stack.get_compressed()

    def is_at_its_beginning(self):
        """Whether the stack holds what a new one holds: all images have been popped, and nothing else."""
        expected = np.append(first_bits(self.latent_dim), np.uint32(1))  # sealed by a 1
        return np.array_equal(self.words(), expected)

    def push(self, image):
        """Code an image of 0 and 1."""
        models = self._models(image)
        codes = np.array([self._stack.decode(model) for model in models], np.int32)
        pixels = np.asarray(image, np.int32).reshape(-1)
        self._stack.encode_reverse(pixels, self._pixels, self._probabilities(codes))
        self._stack.encode_reverse((codes + self._shift()) % self.buckets.num, self._prior)
        self._count += 1

    def pop(self):
        """The image that was pushed last, float32 of 0 and 1.

        Raises:
            OtherBitsError: this z was not drawn from the q(z|x) of this image.
        """
        self._count -= 1
        shifted = self._stack.decode(self._prior, self.latent_dim)
        codes = (shifted - self._shift()) % self.buckets.num
        pixels = self._stack.decode(self._pixels, self._probabilities(codes))
        image = pixels.astype(np.float32).reshape(self.image_shape)
        for code, model in reversed(list(zip(codes, self._models(image), strict=True))):
            try:
                self._stack.encode_reverse(int(code), model)
            except KeyError as error:  # q(z|x) does not reach this bucket
                raise OtherBitsError from error
        return image

    def _shift(self):
        """What is added to the numbers of the buckets of an image, round and round: all are as likely.

        The next image draws its z from these bits. Where the codes of all images are not N(0, I), and so
        their buckets not uniform, such draws would not be from q(z|x), and the rate above −ELBO.
        """
        words = np.random.SeedSequence([1, self._count]).generate_state(self.latent_dim)
        return (words % self.buckets.num).astype(np.int32)

    def _models(self, image):
        means, sigmas = self.posterior(np.asarray(image, np.float32))
        _check_finite("q(z|x)", means, sigmas)
        pairs = zip(means.tolist(), np.maximum(sigmas, 1e-9).tolist(), strict=True)
        return [self.buckets.model(mean, sigma, self._custom) for mean, sigma in pairs]

    def _probabilities(self, codes):
        found = self.probabilities(self.buckets.centres[codes].astype(np.float32))
        _check_finite("p(x|z)", found)
        return np.ravel(found).astype(np.float64)


def first_bits(latent_dim):
    """The words at the bottom of every stack, which look random: more than an image's z takes away."""
    return np.random.SeedSequence(0).generate_state(2 * latent_dim + 16, np.uint32)


def _check_finite(what, *arrays):
    if not all(np.isfinite(array).all() for array in arrays):
        received = f"one whose {what} is not: its training has gone wrong"
        raise invalid("model", "a model with finite parameters", received)
