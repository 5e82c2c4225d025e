"""From what a user asks for to the cells that answer it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

import backends
from backends.architectures import ARCHITECTURES
from backends.base import BackendInfo, Precision, Track, UsageError, Variant
from benchmarks.harness.profile import PROFILES, Profile, profile_of
from benchmarks.harness.recipe import (
    Protocol,
    Recipe,
    all_recipes,
    recipes_of,
)

PROTOCOLS = tuple(protocol for protocol in get_args(Protocol) if protocol not in ("pretrain", "classifier"))
"""What `--protocol` takes; classifiers differ in their layer too, and are chosen by `--recipe`."""
DEFAULT_PROTOCOLS = ("finetune", "frozen", "scratch")
TRACKS = get_args(Track)
VARIANTS = get_args(Variant)
PRECISIONS = get_args(Precision)
MATCHED_ARCHITECTURE = "efficientnet_lite0"
"""The matched track's, where none is asked for: quick on a CPU, and its ImageNet weights arrive with pip."""


IMAGE_SIZES = range(32, 1025)
"""Pixels. Below 32 the last block of every architecture is left without one."""


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """One option of `pytest benchmarks`, described once for every command that takes it."""

    name: str
    help: str
    default: Any = None
    many: bool = False
    """May be given several times, or once with commas."""
    switch: bool = False

    @property
    def key(self) -> str:
        """The field of `Options`."""
        return self.name.removeprefix("--").replace("-", "_")


FLAGS = (
    Flag(
        name="--backend",
        many=True,
        help="pytorch, gluon, keras (or torch, mxnet, tensorflow); default: all installed",
    ),
    Flag(name="--track", many=True, help=f"{', '.join(TRACKS)}; default: all"),
    Flag(
        name="--arch",
        many=True,
        help=f"{', '.join(ARCHITECTURES)}; default: each backend's own in the native track,"
        f" {MATCHED_ARCHITECTURE} in the matched one",
    ),
    Flag(
        name="--protocol", many=True, help=f"{', '.join(PROTOCOLS)}; default: {', '.join(DEFAULT_PROTOCOLS)}"
    ),
    Flag(
        name="--recipe",
        many=True,
        help="id of a recipe, or a pattern such as '003-*', instead of --protocol;"
        " `python -m benchmarks list` has them",
    ),
    Flag(name="--variant", many=True, help=f"{', '.join(VARIANTS)}; default: default"),
    Flag(name="--seeds", default=1, help="number of seeds per recipe, counted from 0; default: 1"),
    Flag(
        name="--data",
        default="sketch",
        help="sketch, sketch-five, hotdog, or the path of a folder or zip; default: sketch",
    ),
    Flag(
        name="--weights",
        help="source, imagenet, none, or a .safetensors file; default: imagenet for efficientnet_lite0,"
        " source for the others",
    ),
    Flag(name="--profile", default="smoke", help=f"{', '.join(PROFILES)}; default: smoke"),
    Flag(name="--image-size", help="pixels, instead of the profile's"),
    Flag(name="--device", default="cpu", help="cpu, cuda, cuda:1; default: cpu"),
    Flag(
        name="--precision",
        many=True,
        help=f"{', '.join(PRECISIONS)} (mixed; variant tuned only); default: float32",
    ),
    Flag(
        name="--run",
        default="local",
        help="name of the run, a folder under results/runs, or a path; default: local",
    ),
    Flag(
        name="--resample",
        switch=True,
        help="each seed trains on a sample of its own, drawn with replacement from each class of the training"
        " images: what another training set would have changed shows in the spread over seeds",
    ),
    Flag(name="--no-timing", switch=True, help="train and score only; records hold no throughput"),
    Flag(
        name="--curves",
        switch=True,
        help="measure images/s against batch size, image size and threads, too; minutes for each network",
    ),
    Flag(name="--resume", switch=True, help="keep the run's finished cells and run the others"),
    Flag(
        name="--allow-dirty",
        switch=True,
        help="let a run keep records that other code made; what they show together is yours to judge",
    ),
    Flag(
        name="--cell-timeout",
        default=1800,
        help="seconds of silence after which a cell's process is taken for hung and killed; default: 1800",
    ),
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked for, checked."""

    backend: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    seeds: int = 1
    data: str = "sketch"
    weights: str | None = None
    """None: each recipe's own."""
    profile: str = "smoke"
    image_size: int | None = None
    """None: the profile's."""
    device: str = "cpu"
    precision: tuple[str, ...] = ()
    run: str = "local"
    resample: bool = False
    no_timing: bool = False
    curves: bool = False
    resume: bool = False
    allow_dirty: bool = False
    cell_timeout: float = 1800


class Combination(msgspec.Struct, frozen=True):
    """A point of a curve."""

    batch_size: int
    image_size: int

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {self.image_size} px"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """The unit of work: one backend, one recipe, one seed, under one set of conditions."""

    backend: str
    recipe: Recipe
    variant: str
    seed: int
    profile: Profile
    device: str
    precision: str
    resampled: bool = False
    """Whether the seed draws its own training images; see `pipelines.parts_of`."""
    timed: bool = True
    """Whether throughput is measured, after the training."""

    @property
    def id(self) -> str:
        """Names the cell within its run, and its record's file; conditions that are the default go unsaid."""
        size = self.profile.image_size
        special = [
            value.replace(":", "")
            for value, usual in (
                (self.variant, "default"),
                (self.device, "cpu"),
                (self.precision, "float32"),
                (f"{size}px", f"{profile_of(self.profile.name).image_size}px"),
                ("resampled" if self.resampled else "", ""),
            )
            if value != usual
        ]
        return "-".join((self.backend, self.recipe.id, *special, f"s{self.seed}"))


def parse(values: dict[str, Any]) -> Options:
    """Options from what a command line gave, keyed by `Flag.key`; absent ones take
    defaults.

    Raises:
        UsageError: a name that does not exist, with those that do; a number that is none.
    """
    given: dict[str, Any] = {}
    for flag in FLAGS:
        key = flag.key
        value = values.get(key)
        if flag.many:
            given[key] = tuple(
                part.strip() for item in (value or ()) for part in item.split(",") if part.strip()
            )
        elif value is not None:
            given[key] = value
    try:
        options = msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"option {error}") from error
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds}: at least one seed is needed")
    if options.cell_timeout <= 0:
        raise UsageError(f"--cell-timeout {options.cell_timeout:g}: more than no seconds")
    profile_of(options.profile)
    _known("--track", options.track, TRACKS)
    _known("--protocol", options.protocol, PROTOCOLS)
    _known("--variant", options.variant, VARIANTS)
    _known("--precision", options.precision, PRECISIONS)
    _known("--arch", options.arch, tuple(ARCHITECTURES))
    for pattern in options.recipe:
        recipes_of(pattern)
    if options.image_size is not None and options.image_size not in IMAGE_SIZES:
        raise UsageError(
            f"--image-size {options.image_size}: from {IMAGE_SIZES.start} to {IMAGE_SIZES.stop - 1} pixels"
        )
    if (
        options.weights not in (None, "source", "imagenet", "none")
        and not Path(options.weights).expanduser().is_file()
    ):
        raise UsageError(
            f"--weights {options.weights}: no such file; give source, imagenet, none or a .safetensors file"
        )
    return msgspec.structs.replace(
        options, backend=tuple(backends.resolve(name).name for name in options.backend)
    )


def plan(options: Options, available: tuple[BackendInfo, ...]) -> list[Cell]:
    """The cells that answer the options, in the backends asked for, or else in all that are available.

    Raises:
        UsageError: a combination that does not exist (names those that do), or a backend that is not
        available.
    """
    names = options.backend or tuple(card.name for card in available)
    missing = [backends.known()[name] for name in names if name not in {card.name for card in available}]
    if missing or not names:
        card = missing[0] if missing else next(iter(backends.known().values()))
        raise UsageError(
            f"{card.title} is not installed in this environment; `pip install '.[{card.extra}]'` installs it,"
            f" and `tox run -e bench-{card.name}` makes an environment of its own"
        )
    recipes = [recipe for recipe in all_recipes() if _asked(recipe, options) and backends_of(recipe, names)]
    if not recipes:
        raise UsageError(f"{_described(options, names)} does not exist; there are: {_existing(names)}")
    needing = [recipe for recipe in recipes if recipe.pretrained]
    if options.weights == "none" and needing:
        if options.protocol or options.recipe:
            raise UsageError(
                f"--weights none: {needing[0].id} needs weights to start from; choose --protocol scratch"
            )
        recipes = [recipe for recipe in recipes if not recipe.pretrained]
    profile = profile_of(options.profile)
    if options.image_size is not None:
        profile = msgspec.structs.replace(profile, image_size=options.image_size)
    conditions = _conditions(options)
    return [
        Cell(
            backend=backend,
            recipe=recipe,
            variant=variant,
            seed=seed,
            profile=profile,
            device=options.device,
            precision=precision,
            resampled=options.resample,
            timed=not options.no_timing,
        )
        for seed in range(options.seeds)
        for recipe in recipes
        for backend in backends_of(recipe, names)
        for variant, precision in conditions
    ]


SMALLEST_BLOCK = 32
"""Pixels of an image that the last block of every architecture makes one of."""
CURVE_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
CURVE_IMAGE_SIZES = (64, 96, 128, 160, 224)
CURVE_BATCH = 16
"""Of the points that differ in image size or threads: every network is busy with it, and the largest image
still fits."""


def combinations(image_size: int) -> tuple[Combination, ...]:
    """The points of a curve on all threads: every batch size at this image size, and every image size."""
    # Of a single image this small the last batch norm sees one value for each channel, and torch refuses.
    least = 1 if image_size > SMALLEST_BLOCK else 2
    wanted = {Combination(size, image_size) for size in CURVE_BATCH_SIZES if size >= least}
    wanted |= {Combination(CURVE_BATCH, size) for size in CURVE_IMAGE_SIZES}
    return tuple(sorted(wanted, key=lambda one: (one.image_size, one.batch_size)))


def curved(cells: Sequence[Cell]) -> list[Cell]:
    """Of the cells that differ in nothing but what is trained on what, one each: what trains the most."""
    found: dict[Hashable, Cell] = {}
    for cell in cells:
        recipe = cell.recipe
        phase = recipe.phases[-1] if recipe.phases else None
        if phase is None or phase.on == "features":
            continue
        key = (cell.backend, recipe.track, recipe.architecture, cell.variant, cell.precision, cell.device)
        if key not in found or phase.trainable.first == "all" != found[key].recipe.phases[-1].trainable.first:
            found[key] = cell
    return list(found.values())


def _conditions(options: Options) -> list[tuple[str, str]]:
    """The pairs of variant and precision asked for that exist.

    Raises:
        UsageError: there are none.
    """
    variants, precisions = options.variant or ("default",), options.precision or ("float32",)
    pairs = [
        (variant, precision)
        for variant in variants
        for precision in precisions
        if precision == "float32" or variant == "tuned"
    ]
    if not pairs:
        raise UsageError(f"--precision {', '.join(precisions)}: that is for --variant tuned")
    return pairs


def _known(flag: str, given: tuple[str, ...], choices: tuple[str, ...] | list[str]) -> None:
    for name in given:
        if name not in choices:
            raise UsageError(f"{flag} {name}: no such thing; there are: {', '.join(choices)}")


def _asked(recipe: Recipe, options: Options) -> bool:
    if options.recipe:
        chosen = any(recipe in recipes_of(pattern) for pattern in options.recipe)
    else:
        chosen = recipe.canonical and recipe.protocol in (options.protocol or DEFAULT_PROTOCOLS)
    return (
        chosen
        and recipe.protocol != "pretrain"
        and (not options.track or recipe.track in options.track)
        and _architecture_asked(recipe, options)
    )


def _architecture_asked(recipe: Recipe, options: Options) -> bool:
    if options.arch:
        return recipe.architecture in options.arch
    return bool(options.recipe) or recipe.track == "native" or recipe.architecture == MATCHED_ARCHITECTURE


def backends_of(recipe: Recipe, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the backends that can run the recipe."""
    if recipe.backend is not None:
        return tuple(name for name in names if name == recipe.backend)
    return tuple(name for name in names if recipe.architecture in backends.known()[name].architectures)


def _described(options: Options, names: tuple[str, ...]) -> str:
    asked = [*options.recipe, *options.track, *options.arch, *options.protocol]
    return f"{' '.join(asked) or 'this'} on {', '.join(names)}"


def _existing(names: tuple[str, ...]) -> str:
    combinations: dict[str, list[str]] = {}
    for recipe in all_recipes():
        running = backends_of(recipe, names)
        if recipe.canonical and recipe.protocol != "pretrain" and running:
            place = f"{', '.join(running)}: {recipe.track} {recipe.architecture}"
            combinations.setdefault(place, []).append(recipe.protocol)
    return "; ".join(f"{place} ({', '.join(protocols)})" for place, protocols in combinations.items())
