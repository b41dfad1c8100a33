"""`vae-tf evaluate`: what it prints, and the line that says how far it is."""

import contextlib
import sys
import textwrap
import time

from vae_tf.cli.commands import interrupted
from vae_tf.errors import printable
from vae_tf.evaluation.config import EvaluateConfig
from vae_tf.options import from_args


def run_evaluate(args):
    from vae_tf.evaluation import command

    task = command.prepare(from_args(EvaluateConfig, args))
    count = len(task.subject.x)
    about = f"{args.run}: {count} {task.config.split} images of {task.images.name}"
    print(printable(about), flush=True)
    with progress() as show:
        result = command.evaluate_run(task, show, args.words)
    for section in result.sections[:-1]:  # without what is needed to do it again
        show_section(section)
    print()
    for name in ("report.html", "report.md", "metrics.json"):
        print(f"  {task.path / name}")
    done = result.metrics.get("likelihood", {}).get("images", count)
    if done < count:
        return interrupted(f"The log-likelihood is of {done} of {count} images.")
    return 0


def show_section(section):
    """A section's caveats and rows, or its text where it has no rows; nothing of one with pictures alone."""
    if not (section.rows or section.text or section.caveats):
        return
    print(f"\n{section.title}")
    for caveat in section.caveats:
        print(textwrap.fill(f"Caution: {caveat}", 100, initial_indent="  ", subsequent_indent="  "))
    for name, value in section.rows:
        print(f"  {name:44}  {printable(str(value))}")
    if not section.rows:
        print(f"  {section.text}")


@contextlib.contextmanager
def progress(stream=None):
    """A function `show(name, done, total)` that says how far an evaluation is.

    On a terminal it is one live bar, elsewhere a line for each tenth of a measure.
    """
    import rich.console
    import rich.progress

    console = rich.console.Console(file=stream or sys.stderr)
    if not console.is_terminal:
        yield _lines(console.file)
        return
    columns = ["{task.description}", rich.progress.BarColumn(20), "{task.fields[images]}"]
    columns += [rich.progress.TimeRemainingColumn()]
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:

        def show(name, done, total):
            if not bar.tasks or bar.tasks[0].description != name:
                for task in bar.task_ids:
                    bar.remove_task(task)
                bar.add_task(name, total=None, images="")  # no end in sight
            counted = {"total": total, "images": f"{done}/{total} images"} if total > 1 else {}
            bar.update(bar.task_ids[0], completed=done, **counted)

        yield show


def _lines(stream):
    shown, start = {}, {}

    def show(name, done, total):
        now, tenth = time.perf_counter(), 10 * done // total
        start.setdefault(name, now)
        if shown.get(name) == tenth:
            return
        shown[name], line = tenth, f"{name} ..."
        if done:
            left = (now - start[name]) / done * (total - done)
            line = f"{name}: {done}/{total} images  {left:.0f} s left"
        print(line, file=stream, flush=True)

    return show
