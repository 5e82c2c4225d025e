"""Why a worker's process ended without an answer: what its exit code, its log and the system say."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
from pathlib import Path

STACKS_SIGNAL = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""On which a worker writes the stacks of its threads into its log."""
STACKS_SECONDS = 2.0
"""It is given for that."""
FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')


def prepare() -> None:
    """Let this process, a worker, tell how it came to its end; and let it be the first to go where memory
    runs out, so that whoever asked for it lives to write that down."""
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
    if sys.platform == "linux":
        try:
            Path("/proc/self/oom_score_adj").write_text("500")
        except OSError:  # a container may forbid it; then the system chooses by size, as ever
            return


def killed_for_memory() -> int:
    """Processes that the system has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def death(code: int, log: Path, *, for_memory: bool) -> str:
    """One line on a process that died.

    Args:
        code: as `subprocess` has it: negative for a signal.
        for_memory: whether the system killed something for want of memory meanwhile.
    """
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += (
                ": the system ran out of memory; try a smaller --image-size, or fewer programs beside it"
                if for_memory
                else ", as when memory runs out"
            )
    return f"the worker process died ({how}){_said(log)}; the log is {log}"


def hung(silence: float, log: Path) -> str:
    """One line on a process that was killed for having been silent for so many seconds."""
    frame = _innermost(log)
    where = f" in {frame}" if frame else ""
    return (
        f"the worker process said nothing for {silence:g} s and was killed{where}; {log} has the stacks of"
        f" its threads; --cell-timeout gives it longer"
    )


def _said(log: Path) -> str:
    """What it said last: of a crash the place, and not the list of modules that ends Python's account."""
    text = log.read_text(errors="replace")
    crash = text.rfind("Fatal Python error: ")
    if crash >= 0:
        what = text[crash:].splitlines()[0].removeprefix("Fatal Python error: ")
        frame = _innermost(log)
        return f"; {what} in {frame}" if frame else f"; {what}"
    lines = [line for line in text.splitlines() if line.strip()]
    return f"; its last words: {lines[-1][:200]}" if lines else ""


def _innermost(log: Path) -> str | None:
    """The innermost call of the main thread, or of the one that crashed, in the last stacks of a log."""
    text = log.read_text(errors="replace")
    stacks = re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)[1:]
    heads = re.findall(r"^(Current thread|Thread) .*$", text, flags=re.MULTILINE)
    of_interest = [stack for head, stack in zip(heads, stacks, strict=True) if head == "Current thread"]
    for stack in reversed(of_interest or stacks):
        frame = FRAME.search(stack)
        if frame:
            return f"{frame['function']} ({os.path.basename(frame['file'])}:{frame['line']})"
    return None
