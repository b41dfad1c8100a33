"""Files that are whole at any moment, and directories that one process at a time writes to.

All that this package leaves is written aside, synced to the disk, and renamed into place.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
import socket
import warnings

from vae_tf.errors import invalid

SCRATCH = ".unfinished-"
LOCK = ".lock"
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def aside(path, synced=True):
    """A scratch path beside `path`, of its suffix, which takes its place when the block ends.

    An error leaves what `path` held, and no scratch behind. A file replaces a file; a directory
    must be new. What has taken its place survives a crash of the machine too, where it is `synced`:
    thousands of files, which can be made again, would take long.

    Raises:
        FileExistsError: the block wrote a directory, and `path` exists.
        OSError: the disk is full or read-only, or what else the system says; it names `path`.
    """
    path = pathlib.Path(path)
    scratch = path.with_name(f"{SCRATCH}{secrets.token_hex(8)}-{path.name}")
    with _system_errors(path):
        try:
            yield scratch
            for written in (scratch, *scratch.rglob("*")) if synced else ():
                _sync(written)
            _take_place(scratch, path)
        except BaseException:
            _remove(scratch)
            raise
        _sync(path.parent)  # the new name


def write_atomically(path, content):
    """Write bytes so that `path` holds either what it held or all of them, after a crash too."""
    with aside(path) as scratch:
        scratch.write_bytes(content)


def free_path(path):
    """`path`, with a number behind it where it exists."""
    names = (path if n == 1 else path.with_name(f"{path.name}_{n}") for n in range(1, 2**31))
    return next(name for name in names if not name.exists())


def remove_scratch(directory):
    """Remove what a killed process left unfinished, in a directory that no other process writes to."""
    for path in pathlib.Path(directory).glob(f"{SCRATCH}*"):
        _remove(path)


def _remove(path):
    with contextlib.suppress(OSError):  # what stays has a name that nobody reads
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _take_place(scratch, path):
    if not scratch.is_dir():
        os.replace(scratch, path)
        return
    try:
        scratch.rename(path)  # fails, and changes nothing, if another was quicker
    except OSError as error:
        raise FileExistsError(errno.EEXIST, "the directory exists", str(path)) from error


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _system_errors(path):
    """Name `path`, not the scratch, in errors of the disk; libraries report those in their own types."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None) if isinstance(error, OSError) else None
        if code is None:
            code = next((code for code in _OF_THE_DISK if os.strerror(code) in str(error)), None)
        if code is None:
            raise
        raise OSError(
            code, getattr(error, "strerror", None) or os.strerror(code), str(path)
        ) from error


@contextlib.contextmanager
def locked(directory):
    """Keep other processes from training into `directory`; the lock ends with its process.

    Raises:
        ValueError: another process has it; the message says which.
    """
    path = pathlib.Path(directory) / LOCK
    with _system_errors(directory):
        file = _lock(path)
    try:
        with _system_errors(directory):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):  # a file without a holder locks nothing
            path.unlink()  # first, while it is still locked
        with contextlib.suppress(OSError):  # what it could not write
            file.close()


def _lock(path):
    """The lock's open file."""
    while True:
        file = open(path, "a+")  # noqa: SIM115  the caller closes it
        try:
            _take(file)
        except BlockingIOError as error:
            file.seek(0)
            with file:
                received = f"{str(path.parent)!r}, which {file.read() or 'another'} trains"
            hint = "Wait until it has ended, or end it."
            raise invalid("run", "a run that no other process trains", received, hint) from error
        except (ImportError, OSError) as error:
            warnings.warn(
                f"{path.parent} cannot be locked ({error}): see to it that no other process trains "
                "into it at the same time.",
                stacklevel=5,
            )
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # its holder has just removed it


def _take(file):
    import fcntl  # not on every system

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
