"""Directories of versions: `<directory>/<number>/` holds a SavedModel, as TF Serving expects it."""

import pathlib

from vae_tf.errors import invalid

LARGEST = 2**63 - 1  # the protocol has int64


def versions(directory):
    """The version numbers in a directory of versions, in ascending order.

    A version is a directory whose name is a number as it is usually written: "7", not "007". What
    else is there, such as a file or a number above `LARGEST`, is passed over.
    """
    directory = pathlib.Path(directory)
    paths = directory.iterdir() if directory.is_dir() else ()
    numbers = {path: int(path.name) for path in paths if path.name.isdecimal()}
    return sorted(
        number
        for path, number in numbers.items()
        if path.name == str(number) and number <= LARGEST and path.is_dir()
    )


def next_version(directory):
    """One more than the largest version there is, or the next that nothing has the name of; from 1."""
    number = max(versions(directory), default=0) + 1
    while (pathlib.Path(directory) / str(number)).exists():
        number += 1
    return number


def find_saved_model(path):
    """The SavedModel at `path`, or the newest of the versions that `path` holds; or None."""
    path = pathlib.Path(path)
    newest = [path / str(version) for version in versions(path)[-1:]]
    return next((p for p in [path, *newest] if (p / "saved_model.pb").is_file()), None)


def check_saved_model(path):
    """The path that `find_saved_model` gives, or raise if there is no SavedModel."""
    saved_model = find_saved_model(path)
    if saved_model is None:
        raise invalid("path", "a SavedModel, or a directory of its versions", f"{str(path)!r}")
    return saved_model


def check_versions(directory):
    """The versions in a directory, or raise if there are none."""
    numbers = versions(directory)
    if not numbers:
        expected = "a directory that holds versions of a SavedModel, as vae-tf export writes it"
        hint = ""
        if (pathlib.Path(directory) / "saved_model.pb").is_file():
            hint = f"This is one version: give {str(pathlib.Path(directory).parent)!r}."
        raise invalid("path", expected, repr(str(directory)), hint)
    return numbers


def check_labels(labels, available):
    """Raise unless each label names a version that is available.

    Args:
        labels: version numbers by label.
        available: the numbers of the versions.
    """
    for label, number in labels.items():
        if number not in available:
            received = f"{label}={number}, where there are {available}"
            raise invalid("label", "the number of a version that is there", received)
