"""What a person sees while a job runs: one live line on a terminal, quiet lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.harness.messages import EpochEnd, Event, GateDone, Notice, PretrainDone, Stage, Step
from benchmarks.harness.record import Epoch, Gate, Record

QUIET_SECONDS = 0.5
"""Between two lines about epochs, where there is no live one."""


class Display:
    """Where jobs are shown: on lines that change in place where there is a terminal, and on ones that stay
    everywhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Progress | None = None

    @contextmanager
    def live(self) -> Iterator[Progress | None]:
        """The lines that change; None without a terminal. Whoever asks first starts them, and ends them for
        those that asked meanwhile."""
        if self._live is not None or not self.console.is_terminal:
            yield self._live
            return
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[title]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        try:
            with self._live:
                yield self._live
        finally:
            self._live = None

    def print(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class JobProgress:
    """Shows one job: `title  epoch 3/5  loss 0.412  test 0.861  88 images/s  0:12 left`."""

    def __init__(self, title: str, display: Display) -> None:
        self._title = title
        self._display = display
        self._row: Epoch | None = None
        self._epoch_started = time.monotonic()
        self._epoch = 0
        self._printed = 0.0
        self._shown = ExitStack()
        self._live: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> JobProgress:
        self._live = self._shown.enter_context(self._display.live())
        if self._live:
            self._task = self._live.add_task("starting", total=1.0, title=self._title)
            self._shown.callback(self._live.remove_task, self._task)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def on_event(self, event: Event) -> None:
        """Show an event of the worker's."""
        if isinstance(event, Step):
            self._step(event)
        elif isinstance(event, EpochEnd):
            self._row = event.row
            if not self._live:
                self._epoch_line(event)
        elif isinstance(event, Stage):
            if self._live:
                self._live.update(self._task, description=event.text)
        elif isinstance(event, Notice):
            self.print(event.text)
        elif isinstance(event, GateDone):
            self.print(verdict(event.gate))
        elif isinstance(event, PretrainDone):
            self.print(
                f"network A is trained: {event.accuracy:.3f} on its own classes, {event.seconds:.0f} s"
            )

    def images(self, what: str, done: int, total: int) -> None:
        """Show work on images that is no job's."""
        if self._live:
            self._live.update(self._task, description=what, completed=done / max(total, 1))
        elif done == total and total > 1:
            self.print(f"{what}: {total} done")

    def _epoch_line(self, event: EpochEnd) -> None:
        """The first and the last epoch, and what a reader can follow of those between: stored features are
        trained on in milliseconds."""
        now = time.monotonic()
        if event.row.epoch in (1, event.epochs) or now - self._printed > QUIET_SECONDS:
            self._printed = now
            self.print(f"epoch {event.row.epoch}/{event.epochs}  {curve_text(event.row)}")

    def _step(self, event: Step) -> None:
        if not self._live:
            return
        now = time.monotonic()
        if event.epoch != self._epoch:
            self._epoch, self._epoch_started = event.epoch, now
        elapsed = now - self._epoch_started
        share = (event.epoch - 1 + event.done / event.images) / event.epochs
        parts = [f"epoch {event.epoch}/{event.epochs}"]
        if self._row:
            parts.append(curve_text(self._row))
        if elapsed > 0.5:
            rate = event.done / elapsed
            left = (event.images * (event.epochs - event.epoch + 1) - event.done) / rate
            parts += [f"{rate:.0f} images/s", f"{int(left // 60)}:{int(left % 60):02d} left"]
        self._live.update(self._task, description="  ".join(parts), completed=share)

    def print(self, text: str) -> None:
        """A line that stays."""
        self._display.print(f"{self._title}  {text}")


def verdict(gate: Gate) -> str:
    """A gate in a few words."""
    if not gate.passed:
        return f"FAILED  {gate.failures[0]}"
    return (
        f"passed: gradients agree to {gate.gradient_error:.0e}, {gate.step_error:.0e} after the last step,"
        f" float32 logits to {gate.logit_error:.0e}"
    )


def curve_text(row: Epoch) -> str:
    """A row of the curve in a few words."""
    chosen_by = "" if row.validation_accuracy is None else f"  validation {row.validation_accuracy:.3f}"
    return (
        f"loss {row.train_loss:.3f}  train {row.train_accuracy:.3f}{chosen_by}  test {row.test_accuracy:.3f}"
    )


def outcome(record: Record) -> str:
    """A finished cell in a few words."""
    if record.error is not None:
        return f"FAILED  {record.error.type}: {record.error.message}"
    assert record.accuracy is not None
    parts = [f"test accuracy {record.accuracy.test:.3f}"]
    if record.throughput is not None:
        parts += [
            f"train {record.throughput.train_images_per_second:.1f} images/s",
            f"inference {record.throughput.inference_images_per_second:.1f} images/s",
            *(f"~ {doubt}" for doubt in record.throughput.doubts[:1]),
        ]
    if record.resumed:
        parts.append("resumed, so not timed")
    return "  ".join((*parts, f"{record.seconds:.0f} s"))
