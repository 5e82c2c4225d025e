"""The embedded data set: photographs of food, drawn by code, for machines without a network.

`draw` makes one image; `write_data_set` makes a folder of them. `TARGET_CLASSES` is the question (hot dog or
not), and its negatives share the hot dog's shapes, colours and ingredients. `SOURCE_CLASSES` are other foods,
made from the same ingredients, for pretraining. Everything follows from integers: the same arguments give
the same images in any process, under numpy 1 and 2.

How it draws: a scene is a background, the food's shadow, the food (`sketch_foods`, composed of the shapes in
`sketch_stage`), sometimes an occluder, all at twice the final size, and then the camera's faults.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.harness.images.sketch_foods import FOODS
from benchmarks.harness.images.sketch_stage import SQUARE, TURN_STEPS, Spine, Stage, lit, pick, rotation

SKETCH_VERSION = 1  # raise when drawing changes: cached data sets are keyed by it
TARGET_CLASSES = ("hotdog", "not-hotdog")
SOURCE_CLASSES = (
    "burger",
    "burrito",
    "churros",
    "corn",
    "croissant",
    "donut",
    "fries",
    "kebab",
    "lobster-roll",
    "pancakes",
    "pizza",
    "sushi",
)

SUPERSAMPLING = 2  # drawn at twice the size, then averaged: enough to smooth edges, and cheap
LONG_SIDE = (96, 200)  # pixels
ASPECT = (0.6, 1.0)  # short side / long side
JPEG_QUALITY = (35, 95)


def draw(kind: str, seed: int) -> Image.Image:
    """One RGB image of `kind`, long side 96 to 200 pixels; the same (kind, seed) gives the same pixels.

    Raises ValueError when `kind` is in neither TARGET_CLASSES nor SOURCE_CLASSES.
    """
    if kind not in FOODS:
        raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(FOODS)}")
    random = np.random.RandomState(derive("draw", kind, seed))
    size = canvas_size(random)
    image = background(random, size)
    image = with_shadow(image, food(random, size, FOODS[kind]), random)
    if random.random_sample() < 0.3:
        image = with_shadow(image, occluder(random, size), random)
    return photograph(image.reduce(SUPERSAMPLING), random)


def write_data_set(
    folder: Path,
    *,
    classes: tuple[str, ...],
    train_per_class: int,
    test_per_class: int,
    seed: int,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Write folder/{train,test}/<class>/<0000>.jpg; `on_image(done, total)` is called after each image.

    No image of the test split is drawn from a seed of the training split: their seeds differ in parity.
    Raises ValueError for a class that `draw` does not know.
    """
    splits = (("train", train_per_class), ("test", test_per_class))
    total = len(classes) * (train_per_class + test_per_class)
    done = 0
    for split, count in splits:
        for kind in classes:
            place = folder / split / kind
            place.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image_seed = 2 * derive("image", kind, split, index, seed) + (split == "test")
                quality = JPEG_QUALITY[0] + derive("jpeg", image_seed) % (
                    JPEG_QUALITY[1] - JPEG_QUALITY[0] + 1
                )
                draw(kind, image_seed).save(place / f"{index:04d}.jpg", quality=quality)
                done += 1
                if on_image is not None:
                    on_image(done, total)


def derive(*parts: str | int) -> int:
    """A 32-bit integer from `parts`, equal in every process (Python's own hash() of a string is not)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


# --- the scene ------------------------------------------------------------------------------------


def canvas_size(random: np.random.RandomState) -> tuple[int, int]:
    """(width, height) in supersampled pixels, either way up."""
    long = random.randint(LONG_SIDE[0], LONG_SIDE[1] + 1)
    short = round(long * random.uniform(*ASPECT))
    width, height = (long, short) if random.random_sample() < 0.7 else (short, long)
    return SUPERSAMPLING * width, SUPERSAMPLING * height


def set_stage(random: np.random.RandomState, image: Image.Image, *, scale: float, off_centre: float) -> Stage:
    """A stage turned at random, seen from a random height; `scale` and `off_centre`: shares of the image."""
    unit = scale * math.sqrt(image.width * image.height)
    tilt = np.diag([1.0, random.uniform(0.7, 1.0)])
    matrix = rotation(random.normal(0, 0.4) + np.pi * random.randint(2)) @ tilt * unit
    middle = 0.5 + off_centre * random.uniform(-1, 1, 2)
    direction = random.uniform(0, 2 * np.pi)
    light = unit * 0.45 * np.array([math.cos(direction), math.sin(direction)])
    origin = middle * np.array([image.width, image.height])
    return Stage(random, ImageDraw.Draw(image), matrix, origin, light)


def food(random: np.random.RandomState, size: tuple[int, int], paint: Callable[[Stage], None]) -> Image.Image:
    """An RGBA layer with the food on it."""
    layer = Image.new("RGBA", size)
    paint(set_stage(random, layer, scale=random.uniform(0.42, 0.66), off_centre=0.1))
    return layer


def with_shadow(image: Image.Image, layer: Image.Image, random: np.random.RandomState) -> Image.Image:
    """`layer` (RGBA) laid on `image` with a soft shadow beneath it."""
    alpha = layer.getchannel("A")
    blurred = alpha.reduce(4).filter(ImageFilter.GaussianBlur(random.uniform(1, 4)))
    dx, dy = random.uniform(-0.04, 0.04, 2) * image.width / 4
    moved = Image.new("L", blurred.size)
    moved.paste(blurred, (round(dx), round(dy)))
    moved = moved.resize(image.size)
    image.paste((24, 16, 12), mask=moved.point([round(v * 0.55) for v in range(256)]))
    image.paste(layer, mask=alpha)
    return image


def background(random: np.random.RandomState, size: tuple[int, int]) -> Image.Image:
    """A table (plain, planks or cloth), perhaps clutter, perhaps a plate, tray or board."""
    image = Image.new("RGB", size, pick(random, "table"))
    stage = set_stage(random, image, scale=0.6, off_centre=0.2)
    (plain, plain, planks, planks, checks, stripes)[random.randint(6)](stage)
    for _ in range(random.randint(0, 3)):
        clutter(stage)
    if stage.chance(0.6):
        dish(stage)
    return image


def plain(stage: Stage) -> None:
    """Nothing but the table's colour."""


def planks(stage: Stage) -> None:
    wood = stage.pick("table")
    for x in np.arange(-3, 3, stage.between(0.3, 0.7)):
        stage.polygon(
            np.array([[x, -3], [x + 0.7, -3], [x + 0.7, 3], [x, 3]]), lit(wood, stage.between(0.75, 1.1))
        )
        for _ in range(4):
            at = x + stage.between(0, 0.5)
            stage.polygon(
                np.array([[at, -3], [at + 0.02, -3], [at + 0.05, 3]]), lit(wood, stage.between(0.6, 0.9))
            )


def stripes(stage: Stage) -> None:
    first = stage.pick("cloth")
    second = lit(first, stage.between(0.7, 1.3)) if stage.chance(0.6) else stage.pick("cloth")
    step = stage.between(0.1, 0.3)
    stage.polygon(4 * SQUARE, first)
    for x in np.arange(-3, 3, 2 * step):
        stage.polygon(np.array([[x, -3], [x + step, -3], [x + step, 3], [x, 3]]), second)


def checks(stage: Stage) -> None:
    stripes(stage)
    colour, step = stage.pick("plate"), stage.between(0.1, 0.3)
    for y in np.arange(-3, 3, 2 * step):
        stage.polygon(np.array([[-3, y], [-3, y + step / 2], [3, y + step / 2], [3, y]]), colour)


CLUTTER = ("bread", "mustard", "lettuce", "plate", "plate", "steel", "cloth", "chocolate")


def clutter(stage: Stage) -> None:
    """Something out of the way, in the colours of any food: a cup, a bowl, a loaf, a bottle."""
    angle = stage.between(0, 2 * np.pi)
    distance = stage.between(0.8, 1.2)
    centre = (distance * math.cos(angle), distance * math.sin(angle))
    colour = stage.pick(CLUTTER[stage.random.randint(len(CLUTTER))])
    if stage.chance(0.5):
        stage.blob(centre, stage.between(0.1, 0.4), colour, gloss=0.1, wobble=0.03)
    else:
        spine = Spine(stage.between(0.3, 0.8), stage.between(-0.2, 0.2), stage.between(0, 6), centre)
        stage.tube(spine, stage.between(0.06, 0.2), colour, gloss=0.2)


def dish(stage: Stage) -> None:
    colour, squash = stage.pick("plate"), stage.between(0.6, 1)
    if stage.chance(0.3):
        colour = stage.pick("table")
        shape = SQUARE * (stage.between(0.7, 1.1), stage.between(0.4, 0.9))
        stage.polygon(shape * 1.04, lit(colour, 0.6))
        stage.polygon(shape, colour)
        return
    for radius, brightness in ((1.0, 0.8), (0.98, 1.0), (0.72, 0.88), (0.7, 0.97)):
        ring = np.stack([np.cos(TURN_STEPS), squash * np.sin(TURN_STEPS)], axis=-1)
        stage.polygon(ring * radius, lit(colour, brightness))


def occluder(random: np.random.RandomState, size: tuple[int, int]) -> Image.Image:
    """An RGBA layer with a fork, a napkin, fingers or a leaf that reaches in from the edge."""
    layer = Image.new("RGBA", size)
    stage = set_stage(random, layer, scale=random.uniform(0.3, 0.5), off_centre=0.2)
    angle, reach = stage.between(0, 2 * np.pi), stage.between(1.1, 1.5)
    spine = Spine(1.0, 0, angle, (reach * math.cos(angle), reach * math.sin(angle)))
    (fork, napkin, fingers, leaf)[random.randint(4)](stage, spine)
    return layer


def fork(stage: Stage, spine: Spine) -> None:
    steel = stage.pick("steel")
    stage.tube(spine, 0.045, steel, gloss=0.2)
    for tine in (-0.08, 0, 0.08):
        end = replace(spine, length=0.3, centre=tuple(spine.at(np.array([-1.1]))[0])).shifted(tine)
        stage.tube(end, 0.03, steel, gloss=0.2)


def napkin(stage: Stage, spine: Spine) -> None:
    colour = stage.pick("cloth")
    shape = SQUARE @ rotation(spine.angle + stage.between(-0.4, 0.4)) * 0.6 + spine.at(np.array([0.2]))
    stage.polygon(shape, colour)
    stage.polygon(shape[1:], lit(colour, 0.88))


def fingers(stage: Stage, spine: Spine) -> None:
    colour = stage.pick("skin")
    for place in range(stage.count(1, 3)):
        finger = spine.shifted(0.24 * place)
        stage.tube(finger, 0.13, lit(colour, stage.between(0.92, 1.05)), blunt=8)
        nail = finger.at(np.array([-0.88]))[0]
        stage.blob(nail, 0.09, lit(colour, 1.25), squash=0.7, angle=spine.angle, gloss=0.2)


def leaf(stage: Stage, spine: Spine) -> None:
    stage.tube(
        replace(spine, length=0.6), stage.between(0.12, 0.25), stage.pick("lettuce"), blunt=2, ripple=0.2
    )


def photograph(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """What light and camera add: uneven light, a colour cast, contrast, grain, blur."""
    if random.random_sample() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0)))
    width, height = image.size
    slope_x, slope_y = random.uniform(-0.3, 0.3, 2).astype(np.float32)
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    light = 1 + slope_x * across[None, :] + slope_y * down[:, None]
    cast = random.uniform(0.82, 1.18) * random.uniform(0.75, 1.25, 3)
    grain = (random.random_sample((height, width)) - 0.5) * random.uniform(4, 18)
    pixels = np.asarray(image, dtype=np.float32) * light[:, :, None] * cast.astype(np.float32)
    pixels = (
        (pixels - 110) * np.float32(random.uniform(0.8, 1.2)) + 110 + grain.astype(np.float32)[:, :, None]
    )
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
