"""What the tests of the applications share."""

from vae_tf.applications import command


def run_command(name, source, out, **options):
    """An application in this process, as its command runs it: the `Result`."""
    (row,) = (row for row in command.APPLICATIONS if row.name == name)
    config = row.config_class(source=str(source), out=str(out), **options)
    found = command.execute(command.prepare(row, config))
    for section in found.sections:
        for figure in section.figures:
            assert (out / f"{figure}.png").stat().st_size > 1000
    return found
