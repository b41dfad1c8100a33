"""What the shorter commands do: each takes the parsed options, prints, and returns the exit status."""

import pathlib
import sys
import textwrap

PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")  # what `generate` writes


def interrupted(message=""):
    """Say so, and what became of the work; 130 is a shell's status for it."""
    print(f"\nInterrupted. {message}".rstrip(), file=sys.stderr)
    return 130


def draw(path, images=None):
    """Draw the pictures of a run: its model, and the paths of the pictures.

    Args:
        path: the run directory, a `pathlib.Path`.
        images: the run's images; loaded again where they are not at hand.
    """
    from vae_tf import data, plots
    from vae_tf.training import runs

    record, model = runs.load_run(path)
    images = runs.load_images(record) if images is None else images
    if record["config"].get("binarize") == "dynamic":
        images = data.binarize(images)
    history, seed = runs.load_history(path), record["config"]["seed"]
    return model, plots.draw(path, model, images, history, seed)


def run_plot(args):
    for path in draw(pathlib.Path(args.run))[1]:
        print(path)
    return 0


def run_export(args):
    from vae_tf import export
    from vae_tf.export import graph
    from vae_tf.training import runs

    _, model = runs.load_run(args.run)
    out = args.out or pathlib.Path("saved_models") / pathlib.Path(args.run).resolve().name
    target = export.export_decoder(model, out, args.version, args.with_encoder)
    signatures = graph.signature_defs(graph.serve_graph(target))
    print(f"{target}: {', '.join(sorted(signatures))}")
    print(f"Next: vae-tf verify-export {target.parent} --against {args.run}")
    print(f"      vae-tf serve {target.parent}")
    return 0


def run_verify_export(args):
    from vae_tf.export import verify

    verdict = verify.verify(args.saved_model, args.against)
    for check in verdict.checks:
        print(f"{'passed' if check.passed else 'FAILED'}  {check.name:34}  {check.detail}")
    counts = ", ".join(f"{name} {count}" for name, count in verdict.operations.items())
    print("\n" + textwrap.fill(f"Operations: {counts or 'none'}", 100, break_long_words=False))
    failed = sum(not check.passed for check in verdict.checks)
    words = f"{failed} of {len(verdict.checks)} checks failed" if failed else "every check passed"
    print(f"\n{verdict.path}: {words}.")
    return 0 if verdict.passed else 1


def run_generate(args):
    from vae_tf import plots
    from vae_tf.errors import check_positive_int, invalid

    check_positive_int("num", args.num)
    check_positive_int("seed", args.seed, minimum=0)
    out = pathlib.Path(args.out)
    if out.suffix.lower() not in PICTURES:
        raise invalid("out", "a file ending in .png, .jpg, .pdf or .svg", repr(args.out))
    if out.is_dir() or not out.parent.is_dir():
        raise invalid("out", "a file in a directory that exists", repr(args.out))
    label = "" if args.label is None else f", label {args.label}"
    title = f"{args.num} images, seed {args.seed}{label}"
    plots.generated(_images_from(args), title).savefig(out, dpi=120)
    print(out)
    return 0


def _images_from(args):
    """What a run, a SavedModel or a server draws for the seed, and for the label if one is given."""
    from vae_tf.errors import invalid

    asked = (args.num, args.seed)
    label = {} if args.label is None else {"label": args.label}
    if "://" in args.source:
        from vae_tf.serving import Client

        with Client(args.source, model=args.model) as client:
            return client.generate(*asked, **label)
    from vae_tf import export
    from vae_tf.export import versions
    from vae_tf.training import runs

    if (pathlib.Path(args.source) / "config.json").is_file():
        return runs.load_run(args.source)[1].generate(*asked, condition=args.label)
    if versions.find_saved_model(args.source):
        return export.generate_from_saved_model(args.source, *asked, **label)
    expected = "a run, a SavedModel, a directory of its versions, or http://... of a server"
    raise invalid("source", expected, repr(args.source), "vae-tf train makes a run.")
