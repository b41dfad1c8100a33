"""The command line `vae-tf`: parsing and printing only. Heavy imports wait until they are needed."""

import errno
import shlex
import sys
import warnings

from vae_tf.cli.commands import interrupted
from vae_tf.cli.parser import build_parser
from vae_tf.cli.quiet import import_tensorflow
from vae_tf.errors import InvalidTypeError, InvalidValueError, in_a_shell, printable
from vae_tf.serving.status import ServingError

_OF_THE_CALL = (errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM)
_OF_THE_CALL += (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)  # a path that cannot be used


def main(argv=None):
    """Run the command; returns its exit status. 2: something in the call cannot be used."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths that are no UTF-8, as on stderr
    args = build_parser().parse_args(argv)
    try:
        if args.needs_tensorflow(args):
            import_tensorflow()
    except KeyboardInterrupt:
        return interrupted("Nothing was written.")
    warnings.formatwarning = lambda message, *_: f"vae-tf {args.command}: warning: {message}\n"
    args.words = shlex.join(["vae-tf", *(sys.argv[1:] if argv is None else argv)])
    try:
        with in_a_shell():
            return args.run_command(args)
    except (InvalidValueError, InvalidTypeError) as error:
        print(f"vae-tf {args.command}: error: {error}", file=sys.stderr)
        return 2
    except ServingError as error:
        print(f"vae-tf {args.command}: error: {error}", file=sys.stderr)
        return 2 if error.code == "INVALID_ARGUMENT" else 1
    except OSError as error:  # a full disk, a read-only one, a path that leads nowhere
        where = "" if error.filename is None else f": {error.filename}"
        words = printable(f"{error.strerror or error}{where}")
        print(f"vae-tf {args.command}: error: {words}", file=sys.stderr)
        return 2 if error.errno in _OF_THE_CALL else 1
    except KeyboardInterrupt as interrupt:
        return interrupted(str(interrupt))
