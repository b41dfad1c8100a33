"""Files that are whole at any moment: written aside, then renamed into place."""

import contextlib
import os
import pathlib
import shutil
import tempfile

SCRATCH = ".unfinished-"


@contextlib.contextmanager
def aside(path):
    """A scratch path beside `path` and of its name, which takes its place when the block ends.

    An error leaves what `path` held, and no scratch behind. A file replaces a file; a directory
    must be new.

    Raises:
        FileExistsError: the block wrote a directory, and `path` exists.
    """
    path = pathlib.Path(path)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH, dir=path.parent))
    try:
        yield (scratch := folder / path.name)
        if scratch.is_dir():
            try:
                scratch.rename(path)  # fails, and changes nothing, if another was quicker
            except OSError as error:
                raise FileExistsError(error.errno, "the directory exists", str(path)) from error
        else:
            os.replace(scratch, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path, content):
    """Write bytes so that `path` holds either what it held or all of them, after a crash too."""
    path = pathlib.Path(path)
    with aside(path) as scratch, open(scratch, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name survives a crash too
    finally:
        os.close(folder)


def remove_scratch(directory):
    """Remove what a killed process left unfinished, in a directory that no other process writes to."""
    for path in pathlib.Path(directory).glob(f"{SCRATCH}*"):
        shutil.rmtree(path, ignore_errors=True)
