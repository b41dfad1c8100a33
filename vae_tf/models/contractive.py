"""The contractive autoencoder of Rifai et al. (2011)."""

import keras
from keras import layers, ops

from vae_tf import jacobians
from vae_tf.errors import check_choice, check_non_negative, check_positive_int, invalid
from vae_tf.models.autoencoder import Autoencoder

JACOBIANS = ("auto", "closed_form", "exact", "projections")


@keras.saving.register_keras_serializable(package="vae_tf")
class ContractiveAutoencoder(Autoencoder):
    """An autoencoder whose code h(x) changes little where x does:

        loss = reconstruction_loss + λ·‖∂h/∂x‖²_F = reconstruction_loss + λ·contraction.

    Args:
        args, kwargs: as for `Autoencoder`; the code's activation is "sigmoid" unless it is given.
        penalty_weight: λ.
        jacobian: how ‖∂h/∂x‖²_F is found. "closed_form", of one sigmoid layer:
            Σ_j (h_j (1 − h_j))² Σ_i W_ij². "exact", of any encoder, for `latent_dim` gradients a step.
            "projections", an unbiased estimate mean_k ‖v_kᵀ ∂h/∂x‖² with v_k ~ N(0, I). "auto": the
            first where there is one such layer, otherwise the second.
        num_projections: how many v_k.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it. Where the closed form
            does not hold for the encoder: from `build`.

    Example:
        >>> model = ContractiveAutoencoder(64, (), penalty_weight=0.1, seed=0)

    Source: Rifai et al. (2011), "Contractive Auto-Encoders", equations 1, 2 and 7.
    """

    def __init__(
        self,
        *args,
        penalty_weight=0.1,
        jacobian="auto",
        num_projections=1,
        code_activation="sigmoid",
        **kwargs,
    ):
        super().__init__(*args, code_activation=code_activation, **kwargs)
        self.penalty_weight = check_non_negative("penalty_weight", penalty_weight)
        self.jacobian = check_choice("jacobian", jacobian, JACOBIANS)
        self.num_projections = check_positive_int("num_projections", num_projections)

    def build(self, input_shape):
        super().build(input_shape)
        if self.jacobian == "closed_form" and self._one_sigmoid_layer is None:
            expected = "'exact', 'projections' or 'auto': the encoder is not one sigmoid layer"
            hint = "hidden_units=() with code_activation='sigmoid' is one."
            raise invalid("jacobian", expected, "jacobian='closed_form'", hint)

    @property
    def _one_sigmoid_layer(self):
        """The encoder's only layer with weights, where it is a Dense one with a sigmoid; or None."""
        weighted = [layer for layer in self.encoder.layers if layer.weights]
        plain = all(
            layer in weighted
            or isinstance(layer, (layers.InputLayer, layers.Flatten, layers.Reshape))
            for layer in self.encoder.layers
        )
        one = weighted[0] if len(weighted) == 1 and plain else None
        sigmoid = isinstance(one, layers.Dense) and one.activation is keras.activations.sigmoid
        return one if sigmoid else None

    def contraction(self, x, code):
        """‖∂h/∂x‖²_F at each image, `(batch,)`, or an estimate of it.

        Args:
            x: images; code: h(x).
        """
        layer, size = self._one_sigmoid_layer, ops.shape(code)
        if layer is not None and self.jacobian in ("auto", "closed_form"):
            slopes = ops.square(code * (1 - code))
            return ops.matmul(slopes, ops.sum(ops.square(layer.kernel), axis=0)[:, None])[:, 0]
        if self.jacobian == "projections":
            directions = self.noise.normal(code, self.num_projections)
            return ops.mean(jacobians.squared_norm(self.encoder, x, directions), axis=0)
        units = ops.broadcast_to(ops.eye(self.latent_dim)[:, None], (self.latent_dim, *size))
        return ops.sum(jacobians.squared_norm(self.encoder, x, units), axis=0)

    def terms(self, x, training=False):
        code = self.encode(x)
        reconstruction = self.reconstruction_error(self.decode(code), x)
        contraction = ops.cast(self.contraction(x, code), "float32")
        return {
            "loss": reconstruction + self.penalty_weight * contraction,
            "reconstruction_loss": reconstruction,
            "contraction": contraction,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "penalty_weight": self.penalty_weight,
            "jacobian": self.jacobian,
            "num_projections": self.num_projections,
        }
