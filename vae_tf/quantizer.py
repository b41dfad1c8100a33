"""The codebook of a vector quantised model."""

import keras
from keras import ops

from vae_tf.errors import check_choice, check_non_negative, check_positive_int, invalid

CODEBOOKS = ("ema", "loss")
DEAD = 0.05  # of the share that each code would have of all vectors, were all used alike


@keras.saving.register_keras_serializable(package="vae_tf")
class VectorQuantizer(keras.layers.Layer):
    """The nearest of K vectors: z_q = e_k with k = argmin_j ‖z − e_j‖².

    The gradient passes straight through, from z_q to z. The codebook follows the vectors that come,
    as their exponential moving averages, or through the loss ‖sg[z] − e_k‖². A code that
    few vectors are nearest to is put in the place of one of the batch's vectors.

    Input: `(..., embedding_dim)`. Output: z_q, of the same shape.

    Args:
        num_embeddings: K.
        embedding_dim: the length of a vector.
        codebook: how the codes learn, "ema" or "loss".
        decay: of the moving averages.

    Source: van den Oord, Vinyals & Kavukcuoglu (2017), "Neural Discrete Representation Learning",
    equations 1 to 3 and appendix A.1; Łańcucki et al. (2020), "Robust training of vector quantized
    bottleneck models", for the revival of codes.
    """

    def __init__(self, num_embeddings, embedding_dim, codebook="ema", decay=0.99, **kwargs):
        super().__init__(**{"autocast": False} | kwargs)
        self.num_embeddings = check_positive_int("num_embeddings", num_embeddings, minimum=2)
        self.embedding_dim = check_positive_int("embedding_dim", embedding_dim)
        self.codebook = check_choice("codebook", codebook, CODEBOOKS)
        self.decay = check_non_negative("decay", decay)
        if decay >= 1:
            raise invalid("decay", "a number below 1", f"decay={decay}")

    def build(self, input_shape):
        shape, averaged = (self.num_embeddings, self.embedding_dim), self.codebook == "ema"
        uniform = keras.initializers.RandomUniform(-1.0, 1.0)
        options = {"dtype": "float32", "aggregation": "mean"}
        self.counts = self.add_weight(
            name="counts", shape=shape[:1], initializer="ones", trainable=False, **options
        )
        self.sums = self.add_weight(  # with "loss" the vectors themselves
            name="sums", shape=shape, initializer=uniform, trainable=not averaged, **options
        )
        self.built = True

    @property
    def embeddings(self):
        """The codes' vectors e, `(num_embeddings, embedding_dim)`."""
        e = ops.convert_to_tensor(self.sums)
        return e / ops.convert_to_tensor(self.counts)[:, None] if self.codebook == "ema" else e

    def codes(self, z):
        """The number of the nearest code, int32: z without its last axis."""
        z, e = ops.cast(z, "float32"), self.embeddings
        distances = ops.sum(ops.square(e), axis=-1) - 2 * ops.matmul(z, ops.transpose(e))
        return ops.cast(ops.argmin(distances, axis=-1), "int32")

    def look_up(self, codes):
        """The vectors of codes: `(..., embedding_dim)`."""
        return ops.take(self.embeddings, codes, axis=0)

    def call(self, z):
        z = ops.cast(z, "float32")
        return straight_through(z, self.look_up(self.codes(z)))

    def follow(self, z, codes, uniform):
        """In training: revive dead codes, and move the averages by a batch.

        Args:
            z, codes: the batch's vectors, and the numbers of their nearest codes.
            uniform: a number between 0 and 1 for each code, which picks the vector that takes its
                place if it is dead.
        """
        z = ops.reshape(ops.cast(z, "float32"), (-1, self.embedding_dim))
        counts, sums = map(ops.convert_to_tensor, (self.counts, self.sums))
        share = ops.mean(counts)
        dead = counts < DEAD * share
        num = ops.shape(z)[0]
        picked = ops.cast(ops.floor(uniform * ops.cast(num, "float32")), "int32")
        fresh = ops.take(z, ops.minimum(picked, num - 1), axis=0)
        counts = ops.where(dead, share, counts)
        scale = counts[:, None] if self.codebook == "ema" else 1.0
        sums = ops.where(dead[:, None], scale * fresh, sums)
        nearest = ops.one_hot(ops.reshape(codes, (-1,)), self.num_embeddings)
        self.counts.assign(self._moved(counts, ops.sum(nearest, axis=0)))
        if self.codebook == "ema":
            sums = self._moved(sums, ops.matmul(ops.transpose(nearest), z))
        self.sums.assign(sums)

    def _moved(self, average, value):
        return self.decay * average + (1 - self.decay) * value

    def get_config(self):
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "codebook": self.codebook,
            "decay": self.decay,
        }


def straight_through(z, z_q):
    """z_q, whose gradient goes to z as it comes."""
    return z + ops.stop_gradient(z_q - z)
