"""`config.json` of a run as it is read: every part is of the type that the rest of the package takes."""

import types
import typing

from vae_tf.errors import InvalidTypeError, InvalidValueError, invalid
from vae_tf.training.config import TrainConfig


class Images(typing.TypedDict):
    """What a run was trained on."""

    name: str
    image_shape: list[int]
    train: int
    test: int
    sha256: str


class Data(Images, total=False):
    """What not every version notes of it."""

    labels_sha256: str | None


class Needed(typing.TypedDict):
    """What every run has."""

    config: dict[str, object]
    data: Data
    steps: int


class Found(typing.TypedDict, total=False):
    """What came of a phase of the training."""

    seconds: float
    trained_steps: int
    best_step: int
    test: dict[str, float]


class Prior(Found, total=False):
    """The second phase of a training, where there is one."""

    steps: int


class Record(Needed, Found, total=False):
    """What not every version writes, or not at every moment."""

    batch_size: int
    learning_rate: float
    warmup_steps: int
    versions: dict[str, str]
    classes: list[str]
    model: str
    status: str
    prior: Prior


def check_record(file, record):
    """Return what `config.json` at `file` holds, or raise with the part that cannot be used."""
    _check(file, "", record, Record)
    config, hints = record["config"], typing.get_type_hints(TrainConfig)
    for name in ("dataset", "data", "seed"):
        if name not in config:
            raise _unusable(file, f"config.{name}", "missing")
    known = {name: value for name, value in config.items() if name in hints}
    for name, value in known.items():
        _check(file, f"config.{name}", value, hints[name])
    try:
        TrainConfig(**known)
    except (InvalidValueError, InvalidTypeError) as error:
        raise _unusable(file, "config", error) from error
    return record


def config_of(file, record):
    """The `TrainConfig` of a record; options that this version does not know are refused."""
    unknown = record["config"].keys() - typing.get_type_hints(TrainConfig).keys()
    if unknown:
        raise _unusable(file, f"config.{min(unknown)}", "no option of this version of vae_tf")
    return TrainConfig(**record["config"])


def _check(file, part, value, hint):
    """Raise where `value` is not of the type `hint`; `part` is its path in the file."""
    if typing.is_typeddict(hint):
        if not isinstance(value, dict):
            raise _unusable(file, part, f"a {type(value).__name__}")
        if missing := sorted(hint.__required_keys__ - value.keys()):
            raise _unusable(file, f"{part}.{missing[0]}".lstrip("."), "missing")
        for name, inner in typing.get_type_hints(hint).items():
            if name in value:
                _check(file, f"{part}.{name}".lstrip("."), value[name], inner)
    elif not _fits(value, hint):
        raise _unusable(file, part, repr(value))


def _fits(value, hint):
    """Whether a value that JSON gives is of a type: whole numbers are floats, lists are tuples."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _unusable(file, part, received):
    where = f"{str(file)!r}, whose part '{part}' is" if part else f"{str(file)!r}, which is"
    return invalid("run", "a run whose config.json is whole", f"{where} {received}")
