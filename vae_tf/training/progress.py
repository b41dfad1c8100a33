"""What `vae-tf train` shows while it trains."""

import collections
import sys
import time

import keras
import numpy as np
import rich.console
import rich.progress

RECENT = 100  # steps of which the means are shown


def in_order(model, logs):
    """What Keras reports, in the order of the model's terms: Keras sorts them by name."""
    names = dict.fromkeys([*(metric.name for metric in model.metrics), *logs])
    return {name: logs[name] for name in names if name in logs}


class Progress(keras.callbacks.Callback):
    """A live bar on a terminal; elsewhere a line for each tenth of the way.

    It shows the step, the means of the model's terms over the last 100 steps, images a second and
    the time left.

    Args:
        steps: how many steps there are to be.
        batch_size: images in a step.
        stream: where to write, by default standard error.
        name: of the phase, if there are two.
    """

    transient = True  # nothing of it belongs in a checkpoint

    def __init__(self, steps, batch_size, stream=None, name=""):
        super().__init__()
        self.steps, self.batch_size, self.prefix = steps, batch_size, f"{name}: " if name else ""
        self._console = rich.console.Console(file=stream or sys.stderr)
        self._bar, self._tenth, self._first, self._drawn = None, -1, None, 0.0
        self._names, self._recent = (), collections.deque(maxlen=RECENT)

    def on_train_begin(self, logs=None):
        if self.model.steps_made >= self.steps:  # this phase was over before an interruption
            return
        words = "Compiling the training loop ..."
        if not self._console.is_terminal:
            self._print(self.prefix + words)
            return
        columns = [self.prefix + "step {task.completed}/{task.total}", rich.progress.BarColumn(20)]
        columns += [rich.progress.TextColumn("{task.fields[words]}", markup=False)]
        # It is drawn between executions, and not by a thread of its own.
        self._bar = rich.progress.Progress(*columns, console=self._console, auto_refresh=False)
        self._bar.start()
        self._bar.add_task("", total=self.steps, completed=self.model.steps_made, words=words)
        self._bar.refresh()

    def on_steps_end(self, steps):
        terms = {name: term for name, term in steps.terms.items() if term.ndim == 1}
        self._names = tuple(terms)
        self._recent.extend(zip(*terms.values(), strict=True))

    def on_train_batch_end(self, batch, logs=None):
        if not self._recent:  # passed over: it was made before an interruption
            return
        step, now = self.model.steps_made, time.perf_counter()
        means = np.mean(self._recent, axis=0)
        terms = zip(self._names, means, strict=True)
        words = "  ".join(f"{name} {mean:.2f}" for name, mean in terms)
        words += self._speed(step, now)
        if self._bar is not None:
            self._draw(step, words, now)
        elif (tenth := 10 * step // self.steps) > self._tenth:
            self._tenth = tenth
            self._print(f"{self.prefix}step {step}/{self.steps}  {words}")

    def on_train_end(self, logs=None):
        self.stop()

    def stop(self):
        """Leave the terminal as it was: for a training that ends with an error, too."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _speed(self, step, now):
        """Images a second and the time left, from the second execution on: the first compiles."""
        if self._first is None:
            self._first = (step, now)
            return ""
        rate = (step - self._first[0]) / (now - self._first[1])
        if not rate:
            return ""
        return f"  {rate * self.batch_size:.0f} images/s  {(self.steps - step) / rate:.0f} s left"

    def _draw(self, step, words, now):
        """At most ten times a second, and at the end."""
        self._bar.update(self._bar.task_ids[0], completed=step, words=words)
        if now - self._drawn >= 0.1 or step >= self.steps:
            self._drawn = now
            self._bar.refresh()

    def _print(self, line):
        print(line, file=self._console.file, flush=True)
