"""What a user calls of a model: arrays to arrays, checked, in batches."""

import numpy as np
from keras import ops

from vae_tf import layers, paths, random
from vae_tf.errors import check_positive_int, invalid
from vae_tf.models.arrays import array, concatenated, condition_by_name, first, is_tensor

ROWS = 1000  # images that are drawn at once


class ArrayCalls:
    """Codes, reconstructions, draws and walks, made of what `models.base.Model` says that a model gives."""

    @condition_by_name
    def code(self, x, condition=None, batch_size=1000):
        """The codes of images, NumPy `(N, *latent_shape)`."""
        self.assert_built("code")
        return self._in_batches(lambda *part: first(self.encode(*part)), x, condition, batch_size)

    @condition_by_name
    def reconstruct(self, x, condition=None, batch_size=1000):
        """Images `(N, ...)` to their reconstructions in [0, 1], without noise, as NumPy."""
        self.assert_built("reconstruct")
        return self._in_batches(self.reconstruction, x, condition, batch_size)

    @condition_by_name
    def generate(self, num=1, seed=None, condition=None):
        """Decode `num` draws from the prior to images in [0, 1], as NumPy `(num, *image_shape)`.

        Args:
            num: how many images.
            seed: a non-negative integer; the same seed gives the same images, here and from the
                exported model. The first is the one that a signature, and the server's page, give for
                this seed; the seeds of the others follow from it. None draws one.
            condition: for a model that has one: one for all images, or one for each. Like elsewhere
                it may be given by its own name: `generate(4, label=3)`.

        Raises:
            TypeError: the model has no prior to draw from.
        """
        self.needs("sample_prior", "generate")
        self.assert_built("generate")
        num = check_positive_int("num", num)
        rows, seeds = self.condition_rows(condition, num), random.row_seeds(seed, num)
        parts = [slice(start, start + ROWS) for start in range(0, num, ROWS)]
        return np.concatenate([self._drawn(seeds[p], [row[p] for row in rows]) for p in parts])

    def _drawn(self, seeds, rows):
        with layers.drawing(layers.PerSeed(seeds)):
            z = self.sample_prior(len(seeds), *map(ops.convert_to_tensor, rows))
        return self._images_of(z, rows)

    @condition_by_name
    def interpolate(self, start, end, num=8, condition=None, path="straight"):
        """Images along a line between the codes of two images.

        Args:
            start, end: one image each, of shape `image_shape`.
            num: how many images, both ends included.
            condition: for a model that has one: one for all images.
            path: "straight", or "spherical": along an arc about the code 0; see `vae_tf.paths`.

        Returns:
            NumPy, `(num, *image_shape)`, in [0, 1].
        """
        self.assert_built("interpolate")
        num = check_positive_int("num", num, minimum=2)
        ends = [self._one_image(start, "start"), self._one_image(end, "end")]
        rows = self.condition_rows(condition, 1)
        one, other = (self.code(image, *rows)[0] for image in ends)
        codes = paths.between(one, other, num, path)
        return self._images_of(codes, self.condition_rows(condition, num))

    def _one_image(self, image, argument):
        """One image as a batch of one."""
        image = array(image, argument)
        if image.shape != self.image_shape:
            hint = (
                f"One of several is {argument}[0]." if image.shape[1:] == self.image_shape else ""
            )
            expected = f"one image of shape {self.image_shape}"
            raise invalid(argument, expected, f"shape {image.shape}", hint)
        return self.checked(image[None], argument)

    @condition_by_name
    def decode_images(self, z, condition=None, batch_size=1000):
        """The means of p(x|z) for codes `(N, *latent_shape)`: NumPy `(N, *image_shape)`."""
        self.assert_built("decode_images")
        z = self.checked_codes(z)
        return self._images_of(z, self.condition_rows(condition, len(z)), batch_size)

    def _images_of(self, z, rows, batch_size=1000):
        """The means of p(x|z) for codes and their conditions, which are as they should be."""

        def images(z, *condition):
            return self.likelihood.mean(self.decode(z, *condition))

        return concatenated(images, (np.asarray(z, "float32"), *rows), batch_size)

    def _in_batches(self, function, x, condition, batch_size):
        x = self.checked(ops.convert_to_numpy(x) if is_tensor(x) else x)
        rows = self.condition_rows(condition, len(x))
        return concatenated(lambda x, *c: function(self.to_floats(x), *c), (x, *rows), batch_size)
