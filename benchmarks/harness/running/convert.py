"""Checkpoints from one framework's file format to another's, by way of neutral weights, and the proof that
both files hold the same network."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

import backends
from backends import weights
from backends.base import BackendInfo, BenchmarkError, ModelSpec, Normalization, UsageError, WeightsError
from benchmarks.harness.messages import ReadCheckpointJob, WeightsDone, WriteCheckpointJob
from benchmarks.harness.running import runner

NEUTRAL = ".safetensors"
LOGIT_TOLERANCE = 1e-4
"""Between two frameworks' float32 logits, relative to the largest. Seen: 5e-7 to 5e-6; a network with one
wrong tensor is off by more than 1e-2."""


class VerificationError(BenchmarkError):
    """Two files that should hold the same network do not."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What was converted, and what verifying it showed."""

    spec: ModelSpec
    tensors: int
    sha256: str
    """Of the neutral weights in between."""
    verified: bool
    logit_error: float | None = None
    """Largest difference between the two sides' logits, relative to the largest; null where a side is
    neutral."""


Say = Callable[[str], None]
"""Called with what happens now."""


def convert(
    source: Path,
    target: Path,
    *,
    architecture: str | None = None,
    normalization: Normalization | None = None,
    verify: bool = True,
    force: bool = False,
    say: Say = lambda _: None,
) -> Conversion:
    """Write `source` in the format that `target`'s suffix names. Each side is read and run in its own
    framework's environment. With `verify` the target is read back and must hold the same values bit for bit,
    and its network must give the source's logits; otherwise nothing is left of it.

    Raises:
        UsageError: a suffix that no backend has, or a target that is there already.
        BenchmarkError: a side could not be read, written or verified; says which tensor.
    """
    writer = backend_of(target)
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; --force replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
        neutral, written = Path(folder, f"source{NEUTRAL}"), Path(folder, f"target{target.suffix}")
        say(f"reading {source}")
        read = read_any(source, neutral, architecture=architecture, normalization=normalization, infer=verify)
        checkpoint = weights.read(neutral)
        answers = read.logits
        say(f"writing {target}")
        if writer is None:
            shutil.copyfile(neutral, written)
        else:
            job = WriteCheckpointJob(
                backend=writer.name, source=str(neutral), spec=read.spec, path=str(written), infer=verify
            )
            wrote = runner.weights(job, log=Path(folder, "write.log"))
            answers = answers or wrote.logits  # nobody ran a neutral source: what was loaded stands for it
        error = None
        if verify:
            say("verifying")
            again = Path(folder, f"again{NEUTRAL}")
            back = read_any(
                written,
                again,
                architecture=read.spec.architecture,
                normalization=read.spec.normalization,
                infer=True,
            )
            require_same(checkpoint.tensors, weights.read(again).tensors, target)
            error = _logit_error(answers, back.logits, target)
        os.replace(written, target)
    return Conversion(
        spec=read.spec,
        tensors=len(checkpoint.tensors),
        sha256=checkpoint.sha256,
        verified=verify,
        logit_error=error,
    )


def backend_of(path: Path) -> BackendInfo | None:
    """The backend whose format the suffix names; None for neutral weights.

    Raises:
        UsageError: names the suffixes there are.
    """
    if path.suffix == NEUTRAL:
        return None
    for card in backends.known().values():
        if path.suffix in card.checkpoint_suffixes:
            return card
    known = "; ".join(
        f"{card.name} {' '.join(card.checkpoint_suffixes)}" for card in backends.known().values()
    )
    raise UsageError(f"{path}: no backend writes '{path.suffix}'; there are: neutral {NEUTRAL}; {known}")


def read_any(
    path: Path,
    target: Path,
    *,
    architecture: str | None = None,
    normalization: Normalization | None = None,
    infer: bool = False,
) -> WeightsDone:
    """Bring a file of any format to `target` as neutral weights, and run its network if `infer`; of a file
    that is neutral already no framework is asked.

    Raises:
        WeightsError: it is missing, damaged, or of another architecture; names the first wrong tensor.
    """
    card = backend_of(path)
    if card is None:
        checkpoint = weights.read(path)
        spec = weights.spec_of(checkpoint, architecture)
        shutil.copyfile(path, target)
        return WeightsDone(name=path.name, spec=spec, logits=())
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    job = ReadCheckpointJob(
        backend=card.name,
        path=str(path.resolve()),
        architecture=architecture,
        normalization=normalization,
        target=str(target),
        infer=infer,
    )
    return runner.weights(job, log=target.with_suffix(".log"))


def require_same(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], where: Path) -> None:
    """Raise VerificationError unless both hold the same tensors, bit for bit."""
    for name in [*expected, *found]:
        if name not in found or name not in expected:
            raise VerificationError(f"{where}: tensor '{name}' is in one of the two files only")
        if not np.array_equal(expected[name], found[name]):
            raise VerificationError(f"{where}: tensor '{name}' came back with other values; nothing was kept")


def _logit_error(
    expected: tuple[tuple[float, ...], ...], found: tuple[tuple[float, ...], ...], where: Path
) -> float | None:
    if not expected or not found:
        return None
    first, second = np.array(expected), np.array(found)
    error = float(np.abs(first - second).max() / np.abs(first).max())
    if not error <= LOGIT_TOLERANCE:
        raise VerificationError(
            f"{where}: the two networks' logits differ by {error:.1e} of the largest, where"
            f" {LOGIT_TOLERANCE:.0e} is allowed; nothing was kept"
        )
    return error
