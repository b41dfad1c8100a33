"""The held-out experiment: for each label in turn, a model of the other images, and how well it tells that label's.

Beside each model stands PCA's reconstruction error, on the same images.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil

import numpy as np

from vae_tf import data, files
from vae_tf.applications.detection import auroc, average_precision
from vae_tf.applications.scores import anomaly_scores, squares
from vae_tf.errors import check_positive_int, invalid, printable
from vae_tf.evaluation.report import Section, write
from vae_tf.plots.detection import held_out_areas, words

COMPONENTS = 20  # of PCA
RESULTS = "results.json"
FIGURES = {"auroc": "AUROC", "average_precision": "average precision"}


def held_out_experiment(
    images, train, labels=None, components=COMPONENTS, num_images=None, num_samples=None, seed=0, progress=None
):  # fmt: skip
    """For each label: train on the other images, score the test images, and judge the scores.

    Args:
        images: `vae_tf.Images` with labels.
        train: `train(images, label)`, called with the `Images` without the label, trains a model on them
            and gives it, or what else `source_of` takes.
        labels: which to hold out in turn; by default all.
        components: of PCA, whose reconstruction error is the score "pca".
        num_images: only the first so many test images are scored; by default all.
        num_samples, seed: of `anomaly_scores`.
        progress: `progress(name, done, total)` of the scores.

    Yields:
        `(label, found)`, as soon as a label is done: found has the numbers of `normal` and `anomalous`
        test images, and under `scores` by name `auroc` and `average_precision`, each `(value, low, high)`.

    Raises:
        ValueError: the images have no labels, or not these; or PCA cannot have as many components.

    Example:
        >>> def train(images, label):
        ...     vae = vae_tf.VAE(seed=0)
        ...     vae.compile()
        ...     vae.fit(images.x_train, epochs=20, verbose=0)
        ...     return vae
        >>> found = dict(held_out_experiment(vae_tf.load("digits"), train, labels=[0, 1]))

    Source: An & Cho (2015), "Variational autoencoder based anomaly detection using reconstruction
    probability", section 4, for the experiment.
    """
    labels = check_labels(images, labels, num_images)
    check_components(images, components)
    x, y = images.x_test[:num_images], np.asarray(images.y_test)[:num_images]
    for label in labels:
        normal = without(images, label)
        model = train(normal, label)
        found = anomaly_scores(model, x, None, num_samples, seed, progress=progress)
        found["pca"] = pca_errors(normal.x_train, x, components)
        yield label, _judged(y == label, found)


def check_labels(images, labels=None, num_images=None):
    """The labels to hold out: those given, or all of the test images; raise where one cannot be."""
    if images.y_train is None or images.y_test is None or np.ndim(images.y_test) != 1:
        raise invalid("data", "images with a label each, of which one is held out", "no labels")
    there = np.unique(np.asarray(images.y_test)[:num_images])
    names = {str(label): label for label in there}
    wanted = list(names) if labels is None else [str(label) for label in labels]
    missing = [label for label in wanted if label not in names]
    if missing or not wanted:
        expected = f"labels of the test images ({', '.join(list(names)[:20])})"
        raise invalid("labels", expected, ", ".join(missing) or "none")
    if len(there) < 2:
        raise invalid("data", "test images of two labels at least", f"of {', '.join(names)} alone")
    return [names[label] for label in dict.fromkeys(wanted)]


def check_components(images, components):
    """Raise unless PCA of the images, without any one label, can have so many components."""
    most = min(
        np.prod(images.image_shape),
        len(images.x_train) - max(np.unique(images.y_train, return_counts=True)[1]),
    )
    if check_positive_int("components", components) > most:
        raise invalid("components", f"at most {most} of these images", f"{components}")


def without(images, label):
    """`Images` without those of a label."""
    parts = {}
    for part in ("train", "test", "val"):
        x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
        if x is not None and y is not None:
            kept = np.asarray(y) != label
            parts |= {f"x_{part}": x[kept], f"y_{part}": np.asarray(y)[kept]}
    return data.Images(f"{images.name} without {label}", **parts)


def pca_errors(x_train, x, components=COMPONENTS):
    """The mean square a pixel between images and their projections on PCA's components: `(N,)`."""
    from sklearn.decomposition import PCA

    def flat(images):
        white = np.float32(255 if images.dtype == np.uint8 else 1)
        return images.reshape(len(images), -1).astype("float32") / white

    fitted = PCA(components, random_state=0).fit(flat(x_train))
    made = fitted.inverse_transform(fitted.transform(flat(x)))
    return squares(x, made.reshape(x.shape))


def _judged(anomalous, found):
    scores = {}
    for name, values in found.items():
        areas = auroc(anomalous, values), average_precision(anomalous, values)
        scores[name] = {
            key: list(dataclasses.astuple(area)) for key, area in zip(FIGURES, areas, strict=True)
        }
    return {"normal": int((~anomalous).sum()), "anomalous": int(anomalous.sum()), "scores": scores}


# The command.


def run_held_out(config, progress, say=print):
    """`vae-tf held-out`: the experiment by `vae_tf.train`, in a directory that it goes on in.

    What is in the directory: `results.json`, written anew after each label; `without_<label>/`, a run
    directory for each; and at the end `report/`.

    Args:
        config: a `HeldOutConfig`.
        progress: gives a context in which `progress(name, done, total)` of the scores is shown.
        say: called with a line for each label.

    Returns:
        `(path of the report, sections)`.

    Raises:
        KeyboardInterrupt: it was interrupted; the same command goes on.
    """
    from vae_tf.training import plan as plans

    given = plans.prepare(config.training())
    path = pathlib.Path(config.run or f"runs/{printable(given.images.name)}_held_out")
    images = given.images
    labels = check_labels(images, config.labels, config.images)
    check_components(images, config.components)
    kept = _begin(path, given, config)
    left = [label for label in labels if str(label) not in kept["labels"]]
    say(f"{images.name}: {len(labels)} labels, {len(labels) - len(left)} of them done; into {path}")
    try:
        for label, found in _each(plans, given, config, path, left, progress, say) if left else ():
            kept["labels"][str(label)] = found
            _write(path, kept)
            say(f"  {_line(found)}")
    except KeyboardInterrupt:
        words = f"What is done is in {path}; the same command with --run {path} goes on."
        raise KeyboardInterrupt(words) from None
    return _report(path, {str(label): kept["labels"][str(label)] for label in labels}, kept)


def _each(plans, given, config, path, labels, progress, say):
    """`held_out_experiment` by runs of `vae_tf.train`, each of which goes on where it was."""
    images, shown = given.images, {}
    scored = data.binarize(images, config.seed) if config.binarize == "dynamic" else images
    how = config.components, config.images, config.score_samples, config.seed
    with contextlib.ExitStack() as bar:  # it is for the scores: training has its own

        def train(_, label):
            bar.close()
            say(f"without {label} ({labels.index(label) + 1} of {len(labels)} to do)")
            folder = path / f"without_{_file_name(label)}"
            model = _trained(plans, given.config, without(images, label), folder)
            shown["show"] = bar.enter_context(progress())
            return model

        for found in held_out_experiment(
            scored, train, labels, *how, lambda *done: shown["show"](*done)
        ):
            bar.close()
            yield found


def _begin(path, given, config):
    """What `results.json` holds of an experiment that was begun before; a new one."""
    from vae_tf.training import runs

    wanted = {
        "training": {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(given.config).items()},
        "components": config.components, "images": config.images, "num_samples": config.score_samples,
        "data": runs.fingerprint(given.images)["sha256"], "versions": runs.versions(),
    }  # fmt: skip
    file = path / RESULTS
    if not path.exists():
        path.mkdir(parents=True)
        _write(path, kept := {"settings": wanted, "labels": {}})
        return kept
    hint = "Give another --run, or the options of before."
    if not file.is_file():
        raise invalid("run", "a new directory, or one of this command", repr(str(path)), hint)
    try:
        kept = json.loads(file.read_text())
        before, _ = kept["settings"], kept["labels"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid("run", f"a whole {RESULTS}", f"{str(file)!r} ({error})", hint) from error
    differing = [key for key in wanted if key != "versions" and before.get(key) != wanted[key]]
    if differing:
        received = f"{str(path)!r}, of other {', '.join(differing)}"
        raise invalid("run", "a directory of the same experiment, or a new one", received, hint)
    return kept


def _write(path, kept):
    files.write_atomically(path / RESULTS, (json.dumps(kept, indent=2) + "\n").encode())


def _trained(plans, config, normal, path):
    """The model of a run directory: trained, gone on with, or as it is where it is completed."""
    from vae_tf.training import runs, train

    begun = (path / "config.json").is_file()
    record = runs.load_record(path) if begun else {}
    if begun and record["data"]["sha256"] != runs.fingerprint(normal)["sha256"]:
        expected = f"a run on {normal.name}"
        raise invalid("run", expected, f"{str(path)!r}, of others", "Move it away.")
    if record.get("status") != "completed":
        plan = plans.settle(config, normal, path, resume=begun)
        if train(plan)["status"] != "completed":
            raise KeyboardInterrupt
    shutil.rmtree(path / "checkpoints", ignore_errors=True)  # of no use to a completed run
    return runs.load_run(path)[1]


def _file_name(label):
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in str(label))


def _line(found):
    areas = (f"{words(name)} {score['auroc'][0]:.4f}" for name, score in found["scores"].items())
    return f"AUROC: {', '.join(areas)}"


def _report(path, found, kept):
    """Write the report of all labels into a new directory; `(its path, its sections)`."""
    names = list(dict.fromkeys(name for result in found.values() for name in result["scores"]))
    means, rows = {}, []
    for key, title in FIGURES.items():
        for name in names:
            values = [result["scores"][name][key] for result in found.values()]
            means.setdefault(name, {})[key] = float(np.mean([value for value, _, _ in values]))
            rows.append((f"{title}, mean, {words(name)}", f"{means[name][key]:.4f}"))
    sections = [Section(f"Means over {len(found)} held-out labels", rows)]
    for name in names:
        areas = {label: result["scores"][name]["auroc"] for label, result in found.items()}
        lines = [(label, "{:.4f} ({:.4f} – {:.4f})".format(*area)) for label, area in areas.items()]
        sections.append(Section(f"AUROC, {words(name)}", lines))
    areas = {
        label: {name: score["auroc"] for name, score in result["scores"].items()}
        for label, result in found.items()
    }
    picture = Section("Pictures", figures={"held_out": held_out_areas(areas)})
    target = files.free_path(path / "report")
    metrics = {"means": means, "labels": found, "settings": kept["settings"]}
    write(target, f"Held-out labels: {path.resolve().name}", [*sections, picture], metrics)
    return target, sections
