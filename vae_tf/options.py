"""A command's options are the fields of its configuration, each with its help and its check.

    @dataclasses.dataclass(frozen=True)
    class Config:
        run: str = argument("a run directory", metavar="RUN")
        steps: int = option(100, "gradient steps", parse=int, metavar="N", check=check_positive_int)

        def __post_init__(self):
            check_fields(self)

`add_options(parser, Config)` makes the command's options of the fields, and `from_args(Config, args)`
makes the configuration of what was given. Nothing here imports TensorFlow, Keras or NumPy.
"""

import argparse
import dataclasses

from vae_tf.errors import as_typed, check_choice, invalid


def option(
    default,
    help,
    *,
    parse=str,
    metavar=None,
    choices=None,
    check=None,
    default_text=None,
    group=None,
    needs=None,
):
    """A field of a configuration that is the option `--its-name` of a command.

    Args:
        default: the field's default. False makes a flag, which takes no value.
        help: what the option does, without the default.
        parse: turns the text of the command line into the value.
        metavar: the value's name in the help; by default the choices, or the field's name.
        choices: the values that can be used, where they are few.
        check: `check(name, value)` returns the value to keep, or raises. It sees every value but a
            None that is the default.
        default_text: the default in words, where its value alone does not say it.
        group: options of one group exclude each other on the command line.
        needs: other fields by name, each with the values of which it needs one.
    """
    if choices is not None and check is None:
        check = _one_of(choices)
    about = {
        "help": help,
        "parse": parse,
        "metavar": metavar or ("|".join(choices) if choices else None),
        "check": check,
        "default_text": default_text,
        "group": group,
        "needs": needs,
    }
    return dataclasses.field(default=default, metadata=about)


def argument(help, *, metavar, check=None):
    """A field of a configuration that is a command's argument without a name, and has no default."""
    about = {"help": help, "metavar": metavar, "check": check, "needs": None}
    return dataclasses.field(metadata=about)


def _one_of(choices):
    return lambda name, value: check_choice(name, value, choices)


def check_fields(config):
    """Run each field's check, and keep what it returns; for `__post_init__` of a frozen dataclass."""
    for field in _fields(config):
        value, check = getattr(config, field.name), field.metadata["check"]
        if check is not None and not (value is None and field.default is None):
            object.__setattr__(config, field.name, check(field.name, value))
    for field in _fields(config):
        for other, values in (field.metadata["needs"] or {}).items():
            found, value = getattr(config, other), getattr(config, field.name)
            if value != field.default and found not in values:
                expected = f"it with {as_typed(other, ' or '.join(values))} alone"
                received = f"{as_typed(field.name, value)} with {as_typed(other, found)}"
                raise invalid(field.name, expected, received)


def add_options(parser, config_class):
    """Add an option to `parser` for each field, in their order; what is not given is None."""
    groups = {None: parser}
    for field in _fields(config_class):
        about = field.metadata
        if field.default is dataclasses.MISSING:
            parser.add_argument(field.name, metavar=about["metavar"], help=about["help"])
            continue
        if about["group"] not in groups:
            groups[about["group"]] = parser.add_mutually_exclusive_group()
        group = groups[about["group"]]
        group.add_argument(flag(field.name), default=None, help=_help(field), **_value(field))


def given(config_class, args):
    """The options that were given on the command line: a dictionary from the fields' names."""
    values = {field.name: getattr(args, field.name) for field in _fields(config_class)}
    return {name: value for name, value in values.items() if value is not None}


def from_args(config_class, args):
    """The configuration of what was given on the command line.

    Raises:
        ValueError, TypeError: a value makes no sense; the message names it.
    """
    return config_class(**given(config_class, args))


def flag(name):
    """The option of a field: `--latent-dim` of `latent_dim`."""
    return "--" + name.replace("_", "-")


def default_text(field):
    """A field's default in words: as its author wrote it, or its value."""
    if field.metadata["default_text"] is not None:
        return field.metadata["default_text"]
    if field.default is False:
        return "off"
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return "none" if field.default is None else str(field.default)


def integers(text):
    """'512,384,256' to a tuple; 'none' or '' to an empty one: what `parse` may be."""
    if text.strip().lower() in ("none", ""):
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected integers such as 512,384,256, or none. Received: {text!r}"
        ) from None


def names(text):
    """'elbo,latent' to a tuple: what `parse` may be."""
    return tuple(text.split(","))


def _fields(config):
    return [field for field in dataclasses.fields(config) if field.metadata]


def _help(field):
    text = field.metadata["help"]
    for values in (field.metadata["needs"] or {}).values():
        text = f"{text} ({', '.join(values)})"
    if field.default is False:
        return text
    return f"{text} (default: {default_text(field)})".replace("%", "%%")


def _value(field):
    """What argparse is to know of an option's value."""
    if field.default is False:
        return {"action": "store_true"}
    return {"type": field.metadata["parse"], "metavar": field.metadata["metavar"]}
