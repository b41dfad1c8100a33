"""Packages whose names are imported when they are first asked for, so that the command starts quickly."""

import importlib


def attach(package, module_of):
    """The `__getattr__` and the `__dir__` of a package that imports its modules when they are used.

    Args:
        package: the package's `__name__`.
        module_of: a dictionary from each public name to the module of the package that defines it.

    Example:
        >>> __getattr__, __dir__ = attach("vae_tf.data", {"load": "sources"})
        >>> __getattr__("load").__module__
        'vae_tf.data.sources'
    """

    def get(name):
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return get, lambda: sorted(module_of)
