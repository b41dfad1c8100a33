"""What the shorter commands do: each takes the parsed options, prints, and returns the exit status."""

import pathlib
import sys
import textwrap


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
    paths = plots.draw(path, model, images, history, seed)
    if (path / "prior" / "history.csv").is_file():
        history = runs.load_history(path / "prior")
        paths += plots.draw(path / "prior", model, images, history, seed, ["train_process"])
    return model, paths


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
    from vae_tf.errors import check_non_negative
    from vae_tf.export import verify

    check_non_negative("timeout", args.timeout, above=True)
    verdict = verify.verify(args.saved_model, args.against, args.timeout)
    for check in verdict.checks:
        print(f"{'passed' if check.passed else 'FAILED'}  {check.name:34}  {check.detail}")
    counts = ", ".join(f"{name} {count}" for name, count in verdict.operations.items())
    print("\n" + textwrap.fill(f"Operations: {counts or 'none'}", 100, break_long_words=False))
    failed = sum(not check.passed for check in verdict.checks)
    words = f"{failed} of {len(verdict.checks)} checks failed" if failed else "every check passed"
    print(f"\n{verdict.path}: {words}.")
    return 0 if verdict.passed else 1
