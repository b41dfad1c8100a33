"""`vae-tf compress`: what a model's code is worth in bits, and binary images in a file by it."""

import dataclasses
import math
import pathlib
import tempfile

from vae_tf import data, evaluation
from vae_tf.applications.command import Result
from vae_tf.applications.lossless import HINT, compress, why_not_lossless
from vae_tf.applications.rates import KINDS, check_source, rate_distortion
from vae_tf.data.sizes import check_size
from vae_tf.distributions import BINARY
from vae_tf.errors import invalid, printable
from vae_tf.evaluation.report import Section
from vae_tf.plots import rates as figures

FILE = "images.bits"
COUNTED = 1000  # images, of the rates and distortions
KNOWN = 10_000  # training images, whose codes say how often each step is


def images(config):
    """Every image of a file or folder of the user's own, in its order, as the test set of a run's images.

    None where the command loads them as others do: a data set by name, the run's own, what comes split.
    """
    of_run = (pathlib.Path(config.source) / "config.json").is_file()
    if config.data is None or not of_run or data.comes_split(config.data):
        return None
    if config.split != "test":
        hint = "Of such data every image is taken."
        raise invalid("split", "'test' with data that do not come split", config.split, hint)
    from vae_tf.evaluation.command import images_for
    from vae_tf.training import runs

    record = runs.load_record(config.source)
    size, background = (record["config"].get(name) for name in ("resize", "background"))
    size = size and check_size("resize", size)
    x = data.load_every(config.data, size, background, data.ANY_VALUE)[0]
    how = config.binarize or record["config"].get("binarize", "none")
    if how != "none" and not BINARY.contains(x):
        seed = config.seed if how == "dynamic" else data.FIXED_SEED
        x = data.binarize(data.Images("", x, x), seed).x_test
    trained_on = images_for(record, dataclasses.replace(config, data=None))[0]
    return data.Images(printable(pathlib.Path(config.data).name), trained_on.x_train, x)


def check(task):
    check_source(task.source)
    task.source.checked(task.x, "data")


def run(task, progress):
    why = why_not_lossless(task.source, task.x)
    if why:
        text = f"Not done: bits-back coding does not work with {why}. {HINT}"
        metrics, sections, files = {}, [Section("Lossless coding", text=text)], {}
    else:
        entry, section, content = _lossless(task, progress)
        metrics, sections, files = {"lossless": entry}, [section], {FILE: content}
    count = len(task.x[:COUNTED])
    points = rate_distortion(
        task.source,
        task.x[:COUNTED],
        task.images.x_train[:KNOWN],
        seed=task.config.seed,
        progress=lambda done, total: progress("rates", done * count // total, count),
    )
    entry, section = _rates(task, points)
    return Result(metrics | {"rate_distortion": entry}, [*sections, section], files)


def _lossless(task, progress):
    """The section of the file that is written, and its content."""
    count = len(task.x)

    def show(done, total):
        progress(*(("coding", done) if done <= count else ("decoding", done - count)), count)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / FILE
        found = compress(task.source, task.x, path, show)
        content = path.read_bytes()
    elbo = evaluation.elbo(task.source.model, task.x, seed=task.config.seed)["elbo"]
    bound = elbo.scaled(-1 / (math.log(2) * found.pixels))
    entry = {
        "images": count,
        "minus_elbo": dataclasses.asdict(bound),
        "net_rate": dataclasses.asdict(found.net_rate),
        "rate": found.rate,
        "file_bytes": found.file_bytes,
        "header_bytes": found.header_bytes,
        "initial_bits": found.initial_bits,
    }
    return entry, Section("Lossless coding", _rows(found, bound), _ABOUT), content


def _rows(found, bound):
    over = 100 * (found.net_rate.mean / bound.mean - 1)
    return [
        ("images that came back, bit for bit", f"{len(found.bits)} of {len(found.bits)}"),
        ("−ELBO, bits a pixel", _precise(bound)),
        ("coded, bits a pixel", f"{_precise(found.net_rate)}  ({over:+.2f} % against −ELBO)"),
        ("the whole file, bits a pixel", f"{found.rate:.4f}"),
        ("initial bits", f"{found.initial_bits} ({_share(found.initial_bits / 8, found)})"),
        ("header", f"{found.header_bytes} bytes ({_share(found.header_bytes, found)})"),
        (FILE, f"{found.file_bytes:,} bytes"),
    ]


_ABOUT = (
    "Bits-back coding with asymmetric numeral systems (Townsend et al. 2019), all images in one chain. The "
    "first images take random bits from the bottom of the stack, which the file has to hold: the initial bits. "
    f"vae-tf decompress reads {FILE}, with the same model, on a machine that computes the same bits. Where the "
    "binary images were drawn from grey ones, these draws are what it holds."
)


def _precise(estimate):
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}"


def _share(size, found):
    return f"{100 * size / found.file_bytes:.2f} % of the file"


def _rates(task, points):
    """The section of rates and distortions."""
    count, rows, entry = len(task.x[:COUNTED]), [], {}
    for point in points:
        psnr = "nothing lost" if math.isinf(point.psnr) else f"{point.psnr:.2f} dB"
        rows.append((point.name, f"{point.rate:.4f} bits a pixel, {psnr}"))
        entry[point.name] = {"bits_per_pixel": point.rate, "mse": point.mse, "psnr": point.psnr}
    shown = {point.kind for point in points}
    notes = [f"{kind}: {words}" for kind, words in KINDS.items() if kind in shown]
    if not shown & {"PNG"}:
        notes.append("PNG and WebP are left out: they hold no such images.")
    text = f"Of {count} images. PSNR is that of the mean square error over all of them. "
    drawn = {
        "rate_distortion": figures.rate_distortion(points),
        "at_rates": figures.at_rates(task.x[:COUNTED], points),
    }
    return entry, Section("Rate and distortion", rows, text + " ".join(notes), drawn)
