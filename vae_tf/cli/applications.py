"""The commands of `vae_tf.applications`: their options, and what they print."""

from vae_tf.applications.command import APPLICATIONS
from vae_tf.cli.held_out import add_held_out
from vae_tf.errors import check_new_path, invalid, printable
from vae_tf.options import add_options, from_args


def add_applications(parts):
    """A command for each row of the table."""
    for row in APPLICATIONS:
        parser = parts.add_parser(row.name, help=row.help, description=row.description)
        add_options(parser, row.config_class)
        parser.set_defaults(run_command=run_application, application=row)
    add_held_out(parts)


def run_application(args):
    from vae_tf.applications import command
    from vae_tf.cli.evaluate import progress, show_section

    row = args.application
    task = command.prepare(row, from_args(row.config_class, args))
    about = f"{task.source.name}: {len(task.x)} {task.config.split} images of {task.images.name}"
    print(printable(about), flush=True)
    with progress() as show:
        found = command.execute(task, show, args.words)
    for section in found.sections[:-1]:  # without what is needed to do it again
        show_section(section)
    print()
    for name in ("report.html", "report.md", "metrics.json", *found.files):
        print(f"  {task.path / name}")
    return 0


def run_decompress(args):
    import numpy as np

    from vae_tf import files
    from vae_tf.applications.lossless import decompress
    from vae_tf.cli.evaluate import progress

    out = check_new_path("out", args.out)
    if out.suffix.lower() not in (".npz", ".npy"):
        raise invalid("out", "a file ending in .npz or .npy", repr(args.out))
    with progress() as show:
        images = decompress(args.run, args.file, lambda *done: show("decoding", *done))
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.aside(out) as scratch:
        np.save(scratch, images) if out.suffix.lower() == ".npy" else np.savez(scratch, x=images)
    print(f"{len(images)} images of shape {images.shape[1:]}, {images.dtype}")
    print(printable(str(out)))
    return 0
