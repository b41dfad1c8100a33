"""A folder of image files: which of them are images, which part each belongs to, and their pixels."""

import collections
import itertools
import os
import pathlib
import sys

import numpy as np

from vae_tf.data import image_files
from vae_tf.data.images import Images, as_bytes, held_out
from vae_tf.data.sizes import check_room, described
from vae_tf.errors import as_typed, invalid, printable

MANY = 1000  # files, of whose reading one wants to hear
PARTS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


def read_folder(folder, size=None, background=None):
    """`Images` of the files below a folder.

    Folders named train and test (or val, valid) at the same depth are its parts; otherwise a tenth
    is held out. The other folders' names are labels. Names that begin with a dot are passed over.

    Args:
        folder: a `pathlib.Path`.
        size: `(height, width)` to bring the images to, or None.
        background: the colour behind transparent images, or None.

    Raises:
        ValueError: the images cannot be used.
    """
    name = printable(folder.resolve().name)
    headers = _headers(folder, name)
    parts = _parts([header.path.relative_to(folder).parent.parts for header in headers], name)
    if size is None:
        _check_sizes(headers, folder)
    rows = {part: [headers[i] for i in numbers] for part, (numbers, _) in parts.items()}
    arrays = _read(rows, folder, size, background)
    if all(as_bytes(x).dtype == np.uint8 for x in arrays.values()):
        arrays = {part: as_bytes(x) for part, x in arrays.items()}
    found = {f"x_{part}": x for part, x in arrays.items()}
    labels = {label for _, names in parts.values() for label in names or ()}
    for part, (_, names) in parts.items():
        found[f"y_{part}"] = np.array(names) if names and len(labels) > 1 else None
    return Images(name, **found)


def comes_split(folder):
    """Whether folders below have the names of parts, such as train and test."""
    places = [path.relative_to(folder).parent.parts for path in _paths(folder)]
    return bool(places) and _depth_of_parts(places) is not None


def read_all(folder, size=None, background=None):
    """`(headers, x)` of the images below a folder, in the order of their paths, in one array.

    Args, raises: as for `read_folder`.
    """
    headers = _headers(folder, printable(folder.resolve().name))
    if size is None:
        _check_sizes(headers, folder)
    return headers, _read({"all": headers}, folder, size, background)["all"]


def say(name, words):
    """Say something of a data set, on standard error."""
    print(f"{name}: {words}", file=sys.stderr, flush=True)


# Files.


def _headers(folder, name):
    """The headers of the images below a folder, in the order of their paths."""
    paths = _paths(folder)
    if len(paths) >= MANY:
        say(name, f"reading {len(paths):,} files ...")
    headers, others, broken = [], [], {}
    for path in _tracked(paths, name):
        try:
            header = image_files.look(path)
        except image_files.UnusableError as error:
            broken[path] = error
            continue
        (others if header is None else headers).append(path if header is None else header)
    _refuse(broken, folder)
    if not headers:
        there = f"no images, but {_examples(others, folder)}" if others else "no files"
        hint = "Give the folder of the images, or an array of them in a .npz or .npy file."
        received = f"{str(folder)!r}, which holds {there}"
        raise invalid("data", "a folder with images in it", received, hint)
    if others:
        say(name, f"passed over, for no images: {_examples(others, folder)}")
    for remark, same in _grouped(headers, lambda header: header.remark).items():
        if remark:
            say(name, f"{_examples([header.path for header in same], folder)} {remark}")
    return headers


def _paths(folder):
    """The files below a folder, through links too. A folder that cannot be read is an error."""
    seen, paths = set(), []

    def refuse(error):
        where, words = os.path.relpath(error.filename, folder), error.strerror
        hint = "Let it be read, or move it away."
        raise invalid("data", "a folder that can be read", f"{where!r} in it ({words})", hint)

    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(f for f in folders if f[0] != "." and f != "__MACOSX")
        if (real := os.path.realpath(root)) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        paths += [pathlib.Path(root, file) for file in files if file[0] != "."]
    return sorted(paths)


def _check_sizes(headers, folder):
    """Refuse images of several sizes, with an example of each."""
    same = _grouped(headers, lambda header: header.size)
    if len(same) == 1:
        return
    counts = sorted(same.items(), key=lambda item: -len(item[1]))
    received = ", ".join(
        f"{len(group)} of {described(size)} (such as {_shown(group[0].path, folder)})"
        for size, group in counts[:4]
    )
    received += f" and {len(counts) - 4} other sizes" if len(counts) > 4 else ""
    common = "x".join(map(str, counts[0][0]))
    hint = (
        f"Bring them to one: {as_typed('resize', common)} scales each until it covers that height and "
        "width, and cuts it to its centre."
    )
    raise invalid("data", "images of one size (height×width)", received, hint)


# Parts and labels.


def _parts(folders, name):
    """By part, the numbers of its images and their labels, or None where it has none.

    Args:
        folders: of each image the names of the folders that lead to it.
    """
    depth = _depth_of_parts(folders)
    if depth is None:
        labels = labels_of(folders)
        rows = dict(zip(("train", "test"), held_out(len(folders)), strict=True))
        return {part: (some, [labels[i] for i in some]) for part, some in rows.items()}
    labels = labels_of([(*names[:depth], *names[depth + 1 :]) for names in folders])
    found = collections.defaultdict(lambda: ([], []))
    for row, names in enumerate(folders):
        part = PARTS.get(names[depth].lower()) if len(names) > depth else None
        found[part][0].append(row)
        found[part][1].append(labels[row])
    beside = len(found.pop(None, ([],))[0])
    return _named_parts(found, name, beside)


def labels_of(folders):
    """The names of the images' folders, without those that all of them are in."""
    levels = zip(*folders, strict=False)  # of all images the first folder, then the second, ...
    common = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return ["/".join(map(printable, names[common:])) or "." for names in folders]


def _depth_of_parts(folders):
    """The first depth at which there are both a folder of training images and one of others."""
    for depth in range(max(map(len, folders))):
        there = {PARTS.get(names[depth].lower()) for names in folders if len(names) > depth}
        if "train" in there and there & {"test", "val"}:
            return depth
    return None


def _named_parts(found, name, beside):
    """Say which parts are there; where there is no test set, what is to validate on is it."""
    found = {part: found[part] for part in ("train", "val", "test") if part in found}
    counts = ", ".join(f"{part} {len(rows)}" for part, (rows, _) in found.items())
    words = f"split as its folders are ({counts})"
    if "test" not in found:
        found["test"] = found.pop("val")
        words += "; the images to validate on are the test images, for there are no others"
    if beside:
        words += f"; {_counted(beside, 'image')} beside these folders passed over"
    say(name, words)
    return {
        part: (rows, names if {*names} != {"."} else None) for part, (rows, names) in found.items()
    }


# Pixels.


def _read(parts, folder, size, background):
    """By part an array of its images, all of one type and with as many channels.

    Args:
        parts: by part the headers of its images.
    """
    headers = [header for some in parts.values() for header in some]
    grey = all(header.grey for header in headers)
    if background is not None:
        grey = grey and image_files.is_grey_colour(background)
    kinds = {header.kind for header in headers}
    dtype = {("bytes",): np.uint8, ("booleans",): bool}.get((*kinds,), np.float32)
    shape = (*(size or headers[0].size), 1 if grey else 3)
    check_room(len(headers), shape, np.dtype(dtype).itemsize)
    check_room(1, (max(header.pixels for header in headers),))  # the largest, while it is decoded
    arrays = {part: np.empty((len(some), *shape), dtype) for part, some in parts.items()}
    places = [(part, row) for part, some in parts.items() for row in range(len(some))]
    broken = {}
    for part, row in _tracked(places, printable(folder.resolve().name)):
        header = parts[part][row]
        try:
            image = image_files.read(header, grey, size, background)
        except image_files.UnusableError as error:
            broken[header.path] = error
            continue
        scale = np.float32(255) if dtype is np.float32 and image.dtype == np.uint8 else None
        arrays[part][row] = image if scale is None else image / scale
    _refuse(broken, folder)
    return arrays


def _tracked(items, name):
    """The items, with a bar on a terminal where there are many."""
    import rich.console
    import rich.progress

    console = rich.console.Console(stderr=True)
    quiet = len(items) < MANY or not console.is_terminal
    return rich.progress.track(
        items, f"{name}: files", console=console, transient=True, disable=quiet
    )


def _refuse(broken, folder):
    """Refuse files that cannot be used, with the first of them, and why."""
    transparent = [p for p, e in broken.items() if isinstance(e, image_files.TransparentError)]
    if transparent:
        raise invalid(
            "data",
            "images without transparency, or a background for them",
            f"{_examples(transparent, folder)}",
            f"Name the colour behind them: {as_typed('background', 'white')}, for example.",
        )
    if broken:
        path, error = next(iter(broken.items()))
        why = f" ({error})" if str(error) else ""
        more = f"; and {_counted(len(broken) - 1, 'more such file')}" if len(broken) > 1 else ""
        raise invalid(
            "data",
            "a folder whose images can be read",
            f"{_shown(path, folder)}, which cannot be read as an image{why}{more}",
            "Convert it, move it away, or give another folder.",
        ) from error


def _grouped(items, key):
    groups = collections.defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _examples(paths, folder):
    """'3 files (such as a.png)', or the one file's name."""
    first = _shown(paths[0], folder)
    return first if len(paths) == 1 else f"{len(paths)} files (such as {first})"


def _counted(number, noun):
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _shown(path, folder):
    return repr(str(path.relative_to(folder)))
