"""Make the gate's golden files: `python -m benchmarks.harness.golden` in the reference backend's environment.

The reference is PyTorch in float64. That it is right, and not merely itself, is what the other backends'
gates show: three frameworks, whose kernels share no line, agree with these files to 1e-12.
"""

from __future__ import annotations

import sys

from safetensors.numpy import save_file

import backends
from backends.base import Session
from benchmarks.harness import parity
from benchmarks.harness.recipe import REFERENCE_BACKEND


def main() -> None:
    """Write the golden file of every network, or of those named."""
    framework = backends.load(backends.resolve(REFERENCE_BACKEND))
    session = parity.double(Session(track="matched", threads=2))
    for network in parity.NETWORKS:
        if sys.argv[1:] and network.name not in sys.argv[1:]:
            continue
        observed = {
            mode: parity.observe(framework(session), network, mode, steps=parity.STEPS)
            for mode in parity.MODES
        }
        tensors, metadata = parity.summarize(observed)
        path = parity.golden_path(network)
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, str(path), metadata=metadata)
        print(f"{path}: {len(tensors)} tensors, {path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
