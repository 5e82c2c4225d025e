"""The process in which sides are made and take their turns: a job on stdin, then requests; answers on stdout.

`python -m benchmarks.comparison.worker` in the backend's own interpreter. It ends when stdin closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import msgspec

from backends.base import BenchmarkError, one_line
from benchmarks.comparison.sides import HarnessStep, Job, LeanestStep, make, require_same_work
from benchmarks.harness.environment import PROJECT, thread_environment
from benchmarks.harness.worker.cell import peak_rss_bytes

# --- What is said ---------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True, tag=True):
    """Do one side's work so many times; answered with seconds."""

    side: int
    times: int


class AskLogits(msgspec.Struct, frozen=True, tag=True):
    """A step's logits of its batch."""

    side: int


class AskPeak(msgspec.Struct, frozen=True, tag=True):
    """The largest resident set this process has had, in bytes."""


class AskSameWork(msgspec.Struct, frozen=True, tag=True):
    """Compare the two sides; answered with `require_same_work`."""


class Made(msgspec.Struct, frozen=True, tag=True):
    """The sides are there."""

    decode_seconds: float | None


class Number(msgspec.Struct, frozen=True, tag=True):
    value: float


class Logits(msgspec.Struct, frozen=True, tag=True):
    values: tuple[tuple[float, ...], ...]


class Failure(msgspec.Struct, frozen=True, tag=True):
    """What was asked for could not be done."""

    message: str


Request = Run | AskLogits | AskPeak | AskSameWork
Answer = Made | Number | Logits | Failure
Expected = TypeVar("Expected", Made, Number, Logits)


class WorkerError(BenchmarkError):
    """A side that could not do its work."""


# --- Who asks -------------------------------------------------------------------------------------


class Worker:
    """A process with sides in it, made when this is; rests while nothing is asked of it."""

    def __init__(self, python: Path, job: Job, *, cache: Path, log: Path) -> None:
        """Args:
            cache: where it decodes images to; nobody else's.
            log: gets what its framework prints.

        Raises:
            WorkerError: the sides cannot be made; says why.
        """
        self._title, self._log = f"{job.backend}, {' and '.join(side.written for side in job.sides)}", log
        variables = {**thread_environment(job.task.threads), "BENCHMARKS_CACHE": str(cache)}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.comparison.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=PROJECT,
                env={**os.environ, **variables, "PYTHONPATH": str(PROJECT)},
            )
        try:
            self._send(job)
            self.decode_seconds = self._answer(Made).decode_seconds
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:  # it died before it had read what was asked
                continue

    def run(self, side: int, times: int) -> float:
        """Seconds in which the side did its work so many times."""
        self._send(Run(side, times))
        return self._answer(Number).value

    def same_work(self) -> float:
        """By what its two sides differ; see `require_same_work`."""
        self._send(AskSameWork())
        return self._answer(Number).value

    def logits(self, side: int) -> tuple[tuple[float, ...], ...]:
        """A step's logits of its batch."""
        self._send(AskLogits(side))
        return self._answer(Logits).values

    def peak_rss_bytes(self) -> float:
        """The largest resident set it has had."""
        self._send(AskPeak())
        return self._answer(Number).value

    def _send(self, message: Job | Request) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _answer(self, expected: type[Expected]) -> Expected:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer = msgspec.json.decode(line, type=Answer)
        if isinstance(answer, Failure):
            raise WorkerError(f"{self._title}: {answer.message}; see {self._log}")
        assert isinstance(answer, expected)
        return answer

    def _died(self) -> WorkerError:
        return WorkerError(
            f"{self._title}: the process ended with code {self._process.wait()}; see {self._log}"
        )


# --- Who works ------------------------------------------------------------------------------------


def main() -> None:
    """Take a job, and answer until nobody asks any more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a framework prints must not mix with answers
    try:
        _serve(sys.stdin.buffer, answers)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        message = (
            str(error) if isinstance(error, BenchmarkError) else f"{type(error).__name__}: {one_line(error)}"
        )
        answers.write(msgspec.json.encode(Failure(message)) + b"\n")


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    sides, decode_seconds = make(msgspec.json.decode(requests.readline(), type=Job))
    answer: Answer = Made(decode_seconds)
    while True:
        answers.write(msgspec.json.encode(answer) + b"\n")
        line = requests.readline()
        if not line:
            return
        request = msgspec.json.decode(line, type=Request)
        if isinstance(request, AskPeak):
            answer = Number(peak_rss_bytes())
        elif isinstance(request, AskSameWork):
            harness, leanest = sides
            assert isinstance(harness, HarnessStep) and isinstance(leanest, LeanestStep)
            answer = Number(require_same_work(harness, leanest))
        elif isinstance(request, AskLogits):
            side = sides[request.side]
            assert isinstance(side, HarnessStep)
            answer = Logits(tuple(map(tuple, side.logits().tolist())))
        else:
            answer = Number(sides[request.side].run(request.times))


if __name__ == "__main__":
    main()
