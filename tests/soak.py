"""A soak: many tiny cells in every framework, while their workers and their runner are killed at random,
again and again; in the end all must be as in a run that nobody disturbed.

`python tests/soak.py [--seeds 7] [--seconds 4 20] [--folder PATH]`, in any environment of the project; it
takes about half an hour on two cores, and is no part of the tests. Run again with the same folder, it goes on
with the undisturbed run where that was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.record import Record

MATRIX = (
    "--recipe", "matched-resnet18-scratch,native-*-scratch", "--image-size", "32", "--weights", "none",
    "--variant", "reproducible", "--no-timing",
)  # fmt: skip


def write_images(folder: Path) -> None:
    """Two classes of one colour each, 16 training and 8 test images."""
    for split, count in (("train", 16), ("test", 8)):
        for name, color in (("blue", (20, 40, 200)), ("red", (210, 30, 20))):
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                Image.new("RGB", (48, 40), tuple(value + 2 * index for value in color)).save(
                    target / f"{index:02}.png"
                )


def start(run: Path, images: Path, seeds: int, *more: str) -> subprocess.Popen[bytes]:
    words = ("--data", str(images), "--seeds", str(seeds), "--run", str(run), *MATRIX, *more)
    with (run.parent / f"{run.name}.out").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "run", *words],
            cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def disturb(
    runner: subprocess.Popen[bytes], seconds: tuple[float, float], chance: random.Random
) -> str | None:
    """Wait a while and kill the runner or its worker; None where the runner ended before."""
    try:
        runner.wait(chance.uniform(*seconds))
        return None
    except subprocess.TimeoutExpired:
        pass
    workers = psutil.Process(runner.pid).children()
    if workers and chance.random() < 0.5:
        workers[0].kill()
        return "worker"
    runner.kill()
    runner.wait()
    return "runner"


def same(found: Record, expected: Record) -> bool:
    """Whether a disturbed cell ended as an undisturbed one, to the last bit of its weights."""
    return (
        found.status == expected.status == "ok"
        and found.key == expected.key
        and found.accuracy == expected.accuracy
        and found.trained_sha256 == expected.trained_sha256
        and found.batches_sha256 == expected.batches_sha256
        and [row.train_loss for row in found.curve] == [row.train_loss for row in expected.curve]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--seconds", type=float, nargs=2, default=(4.0, 20.0), help="between two kills")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--kills", type=int, default=200, help="after so many, nobody is killed any more")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("BENCHMARKS_CACHE", str(folder / "cache"))
    write_images(folder / "images")
    calm, wild = folder / "undisturbed", folder / "disturbed"

    begin = time.monotonic()
    resume = ("--resume",) if calm.exists() else ()
    if start(calm, folder / "images", given.seeds, *resume).wait() != 0:
        print(f"the undisturbed run failed; {calm}.out says how")
        return 1
    calm_seconds, begin = time.monotonic() - begin, time.monotonic()

    shutil.rmtree(wild, ignore_errors=True)
    chance, killed, starts, code = random.Random(0), {"worker": 0, "runner": 0}, 0, 1
    while code != 0:
        starts += 1
        runner = start(wild, folder / "images", given.seeds, *(["--resume"] if starts > 1 else []))
        while runner.poll() is None:
            if sum(killed.values()) >= given.kills:
                runner.wait()
            elif (what := disturb(runner, given.seconds, chance)) is not None:
                killed[what] += 1
        code = runner.returncode
        if code == 2:
            print(f"the run refused to go on; {wild}.out says why")
            return 1
    wild_seconds = time.monotonic() - begin

    expected = {found.cell.id: found for found in record.read_all(calm / "records")}
    found = {found.cell.id: found for found in record.read_all(wild / "records")}
    different = [name for name in expected if name not in found or not same(found[name], expected[name])]
    resumed = sum(bool(each.resumed) for each in found.values())
    left = [path.name for path in (wild / "checkpoints").glob("*")]
    print(
        f"{len(expected)} cells, {len(found)} records, {len(different)} different; killed:"
        f" {killed['worker']} workers, {killed['runner']} runners; {starts} starts; {resumed} cells went on"
        f" from a checkpoint; {len(left)} checkpoints left; {calm_seconds:.0f} s undisturbed,"
        f" {wild_seconds:.0f} s disturbed"
    )
    for name in different:
        print(f"different: {name}")
    return 1 if different or left or found.keys() != expected.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
