"""What TF Serving answers to Classify, Regress and MultiInference of a model with no signature for them.

Source: tensorflow/serving, tensorflow_serving/servables/tensorflow/{classifier,regressor,multi_inference}.cc.
"""

from google.protobuf import text_format

from vae_tf.serving.servable import DEFAULT_SIGNATURE
from vae_tf.serving.status import ServingError, invalid_argument

METHODS = {"tensorflow/serving/classify": "classify", "tensorflow/serving/regress": "regress"}
_NOUNS = {"classify": "classification", "regress": "regression"}
_OUTPUTS = {
    "classify": ((1, 2), "Expected one or two output Tensors, found {}"),
    "regress": ((1,), "Expected one output Tensor."),
}


def refusal(verb, definitions, name):
    """The `ServingError` of a request for examples.

    Args:
        verb: "classify" or "regress".
        definitions: `SignatureDef`s by name.
        name: the signature that was asked for, or "".
    """
    name = name or DEFAULT_SIGNATURE
    if name not in definitions:
        return invalid_argument(f"No signature was found with the name: {name}")
    definition = definitions[name]
    if len(definition.inputs) != 1:
        return invalid_argument("Expected one input Tensor.")
    counts, message = _OUTPUTS[verb]
    if len(definition.outputs) not in counts:
        return invalid_argument(message.format(len(definition.outputs)))
    if "inputs" not in definition.inputs:
        text = text_format.MessageToString(definition)
        return invalid_argument(f"No {_NOUNS[verb]} inputs found in SignatureDef: {text}")
    return ServingError("UNIMPLEMENTED", f"This server has no {verb}; it has predict.")


def tasks_refusal(tasks, definitions):
    """The same for the tasks of a MultiInference request."""
    for task in tasks:
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in definitions:
            return invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name not in METHODS:
            message = f"Unsupported signature method_name: {task.method_name}"
            return ServingError("UNIMPLEMENTED", message)
    return refusal(METHODS[tasks[0].method_name], definitions, tasks[0].model_spec.signature_name)
