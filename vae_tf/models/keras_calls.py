"""What Keras shows of a model, and writes: `summary`, `plot_model`, `save`, `export`."""

import contextlib
import warnings

import keras

from vae_tf.errors import invalid


@contextlib.contextmanager
def dtype_policy(policy):
    """Within the block layers are made with a policy, such as that with which a model was saved."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class KerasCalls:
    """Calls of `keras.Model` that would not understand a model with a loss and noise of its own."""

    @property
    def input_shape(self):
        """`(None, *image_shape)`, as Keras's functional models have it; None before `build`.

        For a model with a condition a list, with the condition's shape too.
        """
        image = (None, *self.image_shape) if self.built else None
        return image if self.condition is None else [image, (None, *self.condition.shape)]

    def as_functional(self):
        """One pass from x to the mean of p(x|z), as a functional Keras model of the same layers.

        Example:
            >>> keras.utils.plot_model(vae.as_functional(), show_shapes=True)  # doctest: +SKIP
        """
        self.assert_built("as_functional")
        inputs = [keras.Input(self.image_shape, name="x")]
        if self.condition is not None:
            name, dtype = self.condition.name, self.condition.dtype
            inputs.append(keras.Input(self.condition.shape, name=name, dtype=dtype))
        code = self._code_to_decode(self.encode(*inputs))
        images = self.likelihood(self.decode(code, *inputs[1:]))
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], images, name=self.name)

    def summary(self, *args, **kwargs):
        """As `keras.Model.summary`: the layers that images pass, with their shapes."""
        shown = super()
        if self.built:
            try:
                functional = self.as_functional()
            except (TypeError, ValueError):
                pass  # `encode` or `decode` does more than Keras can draw: its own list remains
            else:
                if len(functional.trainable_weights) == len(self.trainable_weights):
                    shown = functional
        shown.summary(*args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        """As in Keras. HDF5 holds the weights alone, and warns of it: MLflow's checkpoints are such."""
        super().save(filepath, *args, **kwargs)
        if str(filepath).endswith((".h5", ".hdf5")):
            warnings.warn(
                f"Keras loads no model of an own class from HDF5: of {filepath}, `load_weights` of a "
                "built model can read the weights. A path that ends in .keras keeps all.",
                stacklevel=2,
            )

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """A SavedModel at `filepath` with the signatures of `vae_tf.export_decoder`, the encoder's too.

        Raises:
            ValueError: another `format`, an `input_signature`, or `filepath` exists.
        """
        from vae_tf.export import export_saved_model  # which is built upon models

        if format != "tf_saved_model":
            raise invalid("format", "'tf_saved_model', which serves draws too", repr(format))
        if kwargs.get("input_signature") is not None:
            raise invalid("input_signature", "none: see vae_tf.export.signatures", "one")
        return export_saved_model(self, filepath)
