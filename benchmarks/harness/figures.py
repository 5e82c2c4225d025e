"""What is measured of speed and memory, as plain values: a part of the record."""

from __future__ import annotations

import msgspec


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What else happened on the machine while something was timed; see `conditions.py`."""

    seconds: float
    load_average: float
    """One-minute load when the timing began."""
    others: float
    """Cores that other processes kept busy, on average."""
    stolen: float | None
    """Share of the machine's time that its hypervisor gave to other machines; null where the system does not
    say."""
    throttled: float | None
    """Share of the time in which a quota stopped this process's container; null where there is none."""
    megahertz: float | None
    """The processor's frequency when the timing ended; null where the system does not say."""
    page_faults: float | None = None
    """How often in a second this process touched memory that the system had first to give it (minor page
    faults); null where the system does not say, and in records from before it was counted."""
    noisy: tuple[str, ...] = ()
    """Why these conditions are not those that a figure should be taken under; empty: they are."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A timing that was disturbed or did not become steady, and was repeated."""

    train_images_per_second: float
    conditions: Conditions
    steady: bool = True


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Where an epoch's time goes; see `parts.py`. Seconds per image, but for the shares."""

    wait: float
    """Share of an epoch spent waiting for input."""
    decode: float | None = None
    """Work of one thread: from a file to pixels. The matched track does it once, before the first cell."""
    augment: float | None = None
    """Work of one thread, whichever does it: from pixels to a batch in host memory."""
    transfer: float | None = None
    """From host memory to normalised inputs on the device."""
    forward: float | None = None
    backward: float | None = None
    update: float | None = None
    beside: float | None = None
    """What the work on coming batches takes from a step that runs beside it: its share of the cores."""
    epoch: float | None = None
    """A stretch of real training between the measurements of these parts, input included."""
    explained: float | None = None
    """Share of `epoch` that waiting, transfer, forward, backward, update and `beside` add up to."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from one image in host memory to its logits there, each image waited for before the next."""

    p50: float
    p95: float
    p99: float
    seconds: tuple[float, ...]
    """Every image's, in order, warm-up excluded."""


class BatchRate(msgspec.Struct, frozen=True, kw_only=True):
    """Inference at one batch size."""

    batch_size: int
    images_per_second: float
    steady: bool


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Speed. Rates come from medians of blocks of steps; a clock is read at a block's edges only, when the
    device has finished what it was given."""

    batch_size: int
    image_size: int
    steady: bool
    """Whether the rolling median of the training blocks was flat before the time was up."""
    steady_by: str | None = None
    """The method that decided it, in words."""
    steps: int
    """Training steps in the blocks the rate is taken from."""
    steps_per_block: int = 1
    train_images_per_second: float
    """Batch already in host memory: transfer, forward, backward, update."""
    inference_images_per_second: float
    """The same, logits only."""
    end_to_end_images_per_second: float
    """A whole training epoch as a user waits for it, input pipeline included; median over the epochs after
    the first, or over those in `epochs_counted`."""
    step_seconds: tuple[float, ...]
    """Seconds per step in every timed training block, warm-up included, in order."""
    counted: int | None = None
    """How many of these, the last ones, the rate is taken from."""
    inference_seconds: tuple[float, ...]
    inference_counted: int | None = None
    inference_steady: bool | None = None
    """Like `steady`; null in records of before this was kept."""
    parts: Parts
    latency: Latency | None = None
    inference_by_batch: tuple[BatchRate, ...] = ()
    first_step_seconds: float
    """Tracing and compilation included."""
    compile_seconds: float | None = None
    """What the first step took beyond a steady one: tracing, compilation, kernels made for these shapes."""
    flops_per_image: float | None = None
    """Of training with what the recipe trains; see `backends/flops.py`."""
    inference_flops_per_image: float | None = None
    achieved_flops: float | None = None
    """Per second, in training."""
    gemm_peak_flops: float | None = None
    """Per second, of matrix products in the same process, precision and library, on as many threads."""
    utilization: float | None = None
    """`achieved_flops` over `gemm_peak_flops`."""
    conditions: Conditions | None = None
    """While the training blocks were timed."""
    inference_conditions: Conditions | None = None
    """While the inference blocks were timed."""
    epoch_conditions: Conditions | None = None
    """While the network was trained and tested, or during the epochs in `epochs_counted`; null in records of
    before this was kept."""
    epochs_counted: tuple[int, ...] | None = None
    """Of a training that was disturbed: the epochs after the first that were not, by number; null where it
    was not, or where all were."""
    disturbed: tuple[Attempt, ...] = ()
    """Earlier timings, given up since they were disturbed or did not become steady."""

    @property
    def noisy(self) -> tuple[str, ...]:
        """What disturbed which of its timings."""
        watched = {
            "training": self.conditions,
            "inference": self.inference_conditions,
            "whole epochs": self.epoch_conditions,
        }
        return tuple(
            f"{what}: {reason}"
            for what, found in watched.items()
            if found is not None
            for reason in found.noisy
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why its rates, or some of them, are compared with nothing."""
        flat = {"training": self.steady, "inference": self.inference_steady}
        unsteady = tuple(f"{what}: not steady" for what, steady in flat.items() if steady is False)
        return unsteady + self.noisy


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak memory of the cell's process."""

    peak_rss_bytes: int
    peak_device_bytes: int | None


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of a curve."""

    batch_size: int
    image_size: int
    threads: int
    train_images_per_second: float
    inference_images_per_second: float
    steady: bool
    noisy: tuple[str, ...] = ()
    train_flops: float
    """Per second."""
