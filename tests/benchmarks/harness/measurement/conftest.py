from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

BUSY = "import time; end = time.monotonic() + 300\nwhile time.monotonic() < end: pass"
"""It ends by itself, should a test that is killed leave it behind."""


@pytest.fixture
def neighbour() -> Iterator[int]:
    """A process of somebody else's that keeps a core busy: nobody's child, as far as this process can see."""
    starter = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {BUSY!r}], start_new_session=True,"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
        "print(p.pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", starter], capture_output=True, check=True).stdout)
    yield pid
    os.kill(pid, signal.SIGKILL)
