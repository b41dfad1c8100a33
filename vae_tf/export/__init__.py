"""Export: a trained model as a SavedModel that plain TensorFlow loads, and the checks of one.

| module | what it holds |
|---|---|
| `signatures` | the table of signatures: what each needs of a model, takes and gives |
| `drawn` | what a model draws for seeds, from itself and from its SavedModel |
| `saved_model` | `export_decoder`, `export_saved_model`, `generate_from_saved_model` |
| `versions` | directories of versions, as TensorFlow Serving expects them |
| `warmup` | the requests that TensorFlow Serving runs when it loads a version |
| `graph` | what saved_model.pb holds |
| `operations` | which operations a model may have, and the judgement of one |
| `verify` | the checks of an exported model, by way of `declared_checks`, `value_checks`, `trial`, `comparison` and `c_api` |

`versions` imports no TensorFlow, so that `vae-tf serve` checks its arguments quickly.
"""

from vae_tf.lazy import attach

_MODULE_OF = dict.fromkeys(
    ("export_decoder", "export_saved_model", "generate_from_saved_model"), "saved_model"
)
__all__ = [*_MODULE_OF]
__getattr__, __dir__ = attach(__name__, _MODULE_OF)
