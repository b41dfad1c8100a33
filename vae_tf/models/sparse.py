"""The sparse autoencoder: few units of the code are active at a time."""

import keras
from keras import ops

from vae_tf.errors import check_choice, check_non_negative, invalid
from vae_tf.models.autoencoder import Autoencoder

PENALTIES = ("kl", "l1")
WITHIN_0_AND_1 = ("sigmoid", "hard_sigmoid", "softmax")
LEAST = 1e-6  # ρ̂ of a unit that is never active, or always, in float32


@keras.saving.register_keras_serializable(package="vae_tf")
class SparseAutoencoder(Autoencoder):
    """An autoencoder whose code h pays for being active:

        loss + w·Σ_j KL(ρ ‖ ρ̂_j),  ρ̂_j = mean of h_j over the batch,  or  loss + w·Σ_j |h_j|,

    with KL(ρ ‖ ρ̂) = ρ ln(ρ/ρ̂) + (1 − ρ) ln((1 − ρ)/(1 − ρ̂)). The `loss` that is shown is the
    reconstruction's, so that it compares with an `Autoencoder`'s; `code_activity` is the mean of |h|.

    Args:
        args, kwargs: as for `Autoencoder`.
        penalty: "kl", which needs a code in (0, 1), or "l1".
        penalty_weight: w.
        sparsity: ρ, the activity that is wanted of a unit; for "kl" alone.
        code_activation: by default "sigmoid" with "kl", and "relu" with "l1".

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it. Of a code outside
            [0, 1] under "kl": from `fit`, before the first step.

    Example:
        >>> model = SparseAutoencoder(64, (), penalty="kl", sparsity=0.1, penalty_weight=0.5, seed=0)

    Source: Ng (2011), "Sparse autoencoder", CS294A lecture notes, section 3.
    """

    def __init__(
        self,
        *args,
        penalty="kl",
        penalty_weight=0.1,
        sparsity=0.05,
        code_activation=None,
        **kwargs,
    ):
        check_choice("penalty", penalty, PENALTIES)
        default = {"kl": "sigmoid", "l1": "relu"}[penalty]
        super().__init__(*args, code_activation=code_activation or default, **kwargs)
        self.penalty = penalty
        self.penalty_weight = check_non_negative("penalty_weight", penalty_weight)
        self.sparsity = check_non_negative("sparsity", sparsity, above=True)
        if self.sparsity >= 1:
            raise invalid("sparsity", "a number between 0 and 1", f"sparsity={sparsity!r}")
        bounded = [keras.activations.get(name) for name in WITHIN_0_AND_1]
        if penalty == "kl" and not self._given["encoder"] and self.code_activation not in bounded:
            name = keras.activations.serialize(self.code_activation)
            raise self._outside("code_activation", f"code_activation={name!r}")

    def begin(self, x):
        super().begin(x)
        if self.penalty == "kl":  # an encoder of the user's own may have any
            code = ops.convert_to_numpy(self.encoder(x))
            if code.min() < 0 or code.max() > 1:
                found = f"activations from {code.min():.3g} to {code.max():.3g}"
                raise self._outside("encoder", found)

    def _outside(self, argument, received):
        expected = f"a code between 0 and 1 for the KL penalty: {', '.join(WITHIN_0_AND_1)}"
        return invalid(argument, expected, received, "penalty='l1' takes any code.")

    def terms(self, x, training=False):
        code = self.encode(x)
        loss = self.reconstruction_error(self.decode(code), x)
        activity = ops.abs(ops.cast(code, "float32"))
        shown = {"code_activity": ops.mean(activity, axis=-1), "unit_activity": activity}
        return {"loss": loss, "reconstruction_loss": loss, **shown}

    def objective(self, means):
        activity = means["unit_activity"]
        penalty = activity if self.penalty == "l1" else sparsity_kl(self.sparsity, activity)
        return means["loss"] + self.penalty_weight * ops.sum(penalty)

    def get_config(self):
        return {
            **super().get_config(),
            "penalty": self.penalty,
            "penalty_weight": self.penalty_weight,
            "sparsity": self.sparsity,
        }


def sparsity_kl(sparsity, activity):
    """KL(ρ ‖ ρ̂) in nats, of each unit.

    Args:
        sparsity: ρ, between 0 and 1.
        activity: ρ̂, a tensor.

    Example:
        >>> round(float(sparsity_kl(0.2, 0.5)), 4)
        0.1927
    """
    activity = ops.clip(ops.convert_to_tensor(activity), LEAST, 1 - LEAST)
    on, off = sparsity / activity, (1 - sparsity) / (1 - activity)
    return sparsity * ops.log(on) + (1 - sparsity) * ops.log(off)
