"""Freed memory, kept or given back: seen by the pages that the system has to provide anew."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc here"),
]

PROGRAM = """
import json, resource
import numpy as np
from backends import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(64 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()  # what NumPy itself touches for the first time
found = []
for wanted in (False, True, True, False):
    allocator.keep_freed(wanted)
    np.ones(64 * 2**20, np.uint8)  # the first is new to the process, whatever becomes of it
    found.append((allocator.keeps_freed(), faults()))
print(json.dumps(found))
"""


def test_pages_are_asked_for_anew_unless_they_are_kept():
    """A process of its own: what others have freed would serve."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, kept, still_kept, given_back = json.loads(ended.stdout)
    assert [keeps for keeps, _ in (before, kept, still_kept, given_back)] == [False, True, True, False]
    assert before[1] >= 20 * 32  # even in huge pages of 2 MiB
    assert kept[1] < before[1] / 10
    assert still_kept[1] < before[1] / 10
    assert given_back[1] > before[1] / 2
