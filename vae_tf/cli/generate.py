"""`vae-tf generate`: images drawn from a run, a SavedModel or a server, as files.

They are drawn and written a part at a time. A PNG file has the pixels that the signature
`generate_png` gives, wherever they come from.
"""

import contextlib
import io
import math
import pathlib
import zipfile

from vae_tf import files, memory
from vae_tf.cli.commands import interrupted
from vae_tf.cli.evaluate import progress
from vae_tf.errors import as_typed, check_new_path, check_positive_int, invalid

ROWS = 64  # images of a part, and of a request
ARRAYS = (".npy", ".npz")


def run_generate(args):
    from vae_tf.random import row_seeds

    check_positive_int("num", args.num)
    check_positive_int("seed", args.seed, minimum=0)
    out = _check_out(args.out)
    memory.check_fits("num", 8 * args.num, f"num={args.num}, whose seeds alone")
    seeds = row_seeds(args.seed, args.num)
    signature = "generate" if out.suffix.lower() in ARRAYS else "generate_png"
    with contextlib.ExitStack() as stack:
        parts = _shown(_drawn(args, signature, seeds, stack), args.num, stack)
        try:
            _write(out, parts, seeds, args.label)
        except KeyboardInterrupt:
            return interrupted("Nothing was written.")
    print(out)
    return 0


def _check_out(text):
    """The path: of a file to write, or with no suffix of a directory."""
    out = check_new_path("out", text)
    suffix = out.suffix.lower()
    if suffix and suffix not in (".png", *ARRAYS):
        expected = "a directory, or a file ending in .png, .npy or .npz"
        raise invalid("out", expected, repr(text))
    if not out.parent.is_dir():
        raise invalid("out", "a path in a directory that exists", repr(text))
    if suffix and out.is_dir():
        raise invalid("out", "a file", f"{text!r}, which is a directory")
    if not suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise invalid("out", "a directory that is new or empty", repr(text))
    return out


# Where images come from.


def _drawn(args, signature, seeds, stack):
    """What a run, a SavedModel or a server draws for the seeds, and for the label if one is given: parts."""
    label = {} if args.label is None else {"label": args.label}
    if "://" in args.source:
        from vae_tf.serving import Client

        client = stack.enter_context(Client(args.source, model=args.model))
        ask = {"generate": client.generate, "generate_png": client.generate_png}[signature]
        return _asked(ask, seeds, label)
    from vae_tf.export import drawn, versions
    from vae_tf.training import runs

    if (pathlib.Path(args.source) / "config.json").is_file():
        _, model = runs.load_run(args.source)
        return drawn.from_model(model, signature, seeds, label, ROWS)
    if versions.find_saved_model(args.source):
        return drawn.from_saved_model(args.source, signature, seeds, label, ROWS, args.trust_model)
    expected = "a run, a SavedModel, a directory of its versions, or http://... of a server"
    raise invalid("source", expected, repr(args.source), "vae-tf train makes a run.")


def _asked(ask, seeds, label):
    """Parts from a server."""
    from vae_tf.serving import ServingError

    for start in range(0, len(seeds), ROWS):
        try:
            yield ask(seeds=seeds[start : start + ROWS], **label)
        except ServingError as error:
            if error.code != "INVALID_ARGUMENT" or "input" not in error.message:
                raise
            hint = (
                "--label gives one of that name; another in Python: Client.generate(num, NAME=...)."
            )
            raise ServingError(error.code, f"{error.message} {hint}") from error


def _shown(parts, num, stack):
    """The parts, and between them how far they are."""
    show, done = stack.enter_context(progress()), 0
    for part in parts:
        if done:
            show("drawing", done, num)
        yield part
        done += len(part)


# Where they go.


def _write(out, parts, seeds, label):
    with files.aside(out, synced=bool(out.suffix)) as scratch:
        if out.suffix.lower() in ARRAYS:
            _write_arrays(scratch, parts, seeds, label)
            return
        tiles = _tiles(parts)
        if out.suffix:
            _grid(tiles, len(seeds)).save(scratch, format="PNG")
            return
        scratch.mkdir()
        digits = len(str(len(seeds) - 1))
        for index, (content, _) in enumerate(tiles):
            (scratch / f"{index:0{digits}}.png").write_bytes(content)


def _tiles(parts):
    """`(the file's bytes, the picture)` of each PNG file, all of one size."""
    from PIL import Image

    first = None
    for content in (content for part in parts for content in part):
        try:
            tile = Image.open(io.BytesIO(content), formats=["PNG"])
            tile.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            received = f"what is none ({error})"
            raise invalid("source", "PNG files of images", received) from error
        first = first or (tile.mode, tile.size)
        if (tile.mode, tile.size) != first:
            raise invalid("source", f"images of one size, {first}", str((tile.mode, tile.size)))
        yield content, tile


def _grid(tiles, num):
    """One picture of all, as square as it gets, with the images' own pixels."""
    from vae_tf.plots.tiles import GAP, square_columns

    grid = None
    for index, (_, tile) in enumerate(tiles):
        if grid is None:
            columns = square_columns(num, tile.height, tile.width)
            grid = _blank(tile, columns, math.ceil(num / columns), GAP)
        row, column = divmod(index, columns)
        grid.paste(tile, (column * (tile.width + GAP), row * (tile.height + GAP)))
    return grid


def _blank(tile, columns, rows, gap):
    from PIL import Image

    width, height = columns * (tile.width + gap) - gap, rows * (tile.height + gap) - gap
    most = 2 * Image.MAX_IMAGE_PIXELS  # Pillow opens no more, and few programs do
    if width * height > most:
        received = f"{columns} by {rows} of them, {width * height:,} pixels"
        hint = f"One file an image: {as_typed('out', 'DIR')}; an array: {as_typed('out', 'images.npz')}."
        raise invalid("num", f"images for a grid of at most {most:,} pixels", received, hint)
    return Image.new(tile.mode, (width, height), "grey")


def _write_arrays(path, parts, seeds, label):
    """`.npy`: the images. `.npz`: `images`, `seeds`, and `labels` where a label was given."""
    import numpy as np

    if path.suffix.lower() == ".npy":
        with open(path, "wb") as file:
            _stream(file, parts, len(seeds))
        return
    others = {"seeds": seeds}
    if label is not None:
        others["labels"] = np.full(len(seeds), label)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            _stream(file, parts, len(seeds))
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def _stream(file, parts, num):
    """Write an array's parts as they come, in NumPy's format."""
    import numpy as np

    for index, part in enumerate(parts):
        if index == 0:
            header = {"descr": "<f4", "fortran_order": False, "shape": (num, *part.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(part.astype("<f4").tobytes())
