"""Make the golden files: `python -m benchmarks.harness.gate.golden` in the reference backend's environment.

The reference is PyTorch in float64. That it is right, and not merely itself, is what the other backends'
gates show: three frameworks, whose kernels share no line, agree with these files to 1e-12.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from safetensors.numpy import save_file

import backends
from backends.base import Session
from benchmarks.harness.gate import parity, reference, scenarios
from benchmarks.harness.recipe import REFERENCE_BACKEND


def main() -> None:
    """Write the golden file of every network and of the rules, or of those named."""
    framework = backends.load(backends.resolve(REFERENCE_BACKEND))
    session = parity.double(Session(track="matched", threads=2))
    for network in scenarios.NETWORKS:
        if _asked(network.name):
            observed: dict[str, reference.Observation] = {
                mode: parity.observe(framework(session), network, mode, steps=scenarios.STEPS)
                for mode in network.modes
            }
            _write(network.name, observed)
    if _asked(scenarios.UPDATES):
        _write(
            scenarios.UPDATES,
            {rule.name: parity.observe_update(framework(session), rule) for rule in scenarios.RULES},
        )


def _asked(name: str) -> bool:
    return not sys.argv[1:] or name in sys.argv[1:]


def _write(name: str, observed: Mapping[str, reference.Observation]) -> None:
    tensors, metadata = reference.summarize(observed)
    path = reference.golden_path(name)
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, str(path), metadata=metadata)
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
