"""The embedded data set: photographs of food, drawn by code, for machines without a network.

`draw` makes one image; `write_data_set` makes a folder of them. `TARGET_CLASSES` is the question (hot dog or
not), and its negatives share the hot dog's shapes, colours and ingredients. `SOURCE_CLASSES` are other foods,
made from the same ingredients, for pretraining. Everything follows from integers: the same arguments give
the same images in any process, under numpy 1 and 2.

How it draws: a `Stage` maps the food's own frame (the food lies within about [-1, 1] on both axes, y downwards)
to pixels and knows the light. Foods are composed of a few bodies (`tube`, `blob`), each a pile of shrinking
outlines that wander towards the light. A scene is a background, the food's shadow, the food, occluders, and
the camera's faults, drawn at twice the final size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

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

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2)

# What an ingredient may look like, in RGB: a colour is taken between two of its entries.
PALETTE: dict[str, tuple[Colour, ...]] = {
    "bread": ((238, 196, 128), (214, 150, 80), (178, 110, 56), (140, 84, 44), (246, 220, 170)),
    "crumb": ((252, 238, 206), (240, 216, 170)),
    "sausage": ((196, 76, 50), (156, 60, 40), (220, 120, 90), (110, 52, 36), (206, 150, 110)),
    "mustard": ((240, 200, 40), (214, 164, 30)),
    "ketchup": ((196, 30, 24), (160, 20, 16)),
    "mayonnaise": ((250, 244, 220), (238, 228, 196)),
    "relish": ((120, 150, 40), (90, 120, 30)),
    "lettuce": ((130, 180, 60), (80, 140, 50), (170, 200, 100)),
    "onion": ((250, 246, 236), (226, 206, 220), (170, 90, 130)),
    "tomato": ((214, 60, 40), (226, 90, 60)),
    "cheese": ((252, 200, 70), (248, 224, 140)),
    "ham": ((236, 160, 150), (210, 120, 110)),
    "meat": ((120, 70, 44), (90, 52, 36), (150, 90, 56)),
    "chocolate": ((70, 38, 24), (110, 62, 36)),
    "glaze": ((70, 38, 24), (150, 70, 36), (226, 130, 140), (190, 60, 40), (240, 220, 190)),
    "banana": ((246, 214, 70), (236, 190, 60), (200, 190, 80)),
    "corn": ((250, 214, 80), (236, 180, 50)),
    "potato": ((248, 214, 110), (226, 176, 70)),
    "rice": ((248, 246, 238), (234, 230, 218)),
    "seaweed": ((30, 44, 34), (20, 30, 28)),
    "salmon": ((250, 150, 100), (236, 110, 80), (200, 50, 50)),
    "lobster": ((250, 226, 210), (236, 130, 100), (220, 90, 60)),
    "sprinkles": ((230, 60, 90), (60, 140, 220), (250, 220, 60), (250, 250, 250), (90, 190, 90)),
    "skin": ((240, 200, 170), (200, 140, 104), (120, 76, 52)),
    "steel": ((206, 210, 214), (150, 154, 160)),
    "plate": ((246, 246, 244), (226, 228, 230), (190, 206, 216), (90, 100, 110), (236, 224, 200)),
    "table": ((150, 100, 60), (100, 64, 40), (200, 164, 120), (70, 70, 74), (224, 220, 212), (180, 60, 50)),
    "cloth": ((200, 40, 40), (60, 90, 160), (240, 238, 230), (90, 130, 90), (230, 190, 90)),
}


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
    if random.random_sample() < 0.4:
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
                quality = JPEG_QUALITY[0] + derive("jpeg", image_seed) % (JPEG_QUALITY[1] - JPEG_QUALITY[0] + 1)
                draw(kind, image_seed).save(place / f"{index:04d}.jpg", quality=quality)
                done += 1
                if on_image is not None:
                    on_image(done, total)


def derive(*parts: str | int) -> int:
    """A 32-bit integer from `parts`, equal in every process (Python's own hash() of a string is not)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


# --- the stage: from a food's own frame to pixels -----------------------------------------------------------


@dataclass(frozen=True)
class Spine:
    """A bent line about which an elongated body lies; `at` and `normal` take t in [-1, 1] along it."""

    length: float  # half of it, in units of the food's frame
    bend: float = 0.0
    angle: float = 0.0  # radians
    centre: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0  # distance moved across itself

    def at(self, t: Points) -> Points:
        """Points (n, 2) for positions t (n,)."""
        x = self.length * t
        y = self.bend * (t * t - 0.4)
        return self.turn(np.stack([x, y], axis=-1) + self.drop * self.straight_normal(t)) + self.centre

    def normal(self, t: Points) -> Points:
        """Unit normals (n, 2) for positions t (n,)."""
        return self.turn(self.straight_normal(t))

    def straight_normal(self, t: Points) -> Points:
        slope = 2 * self.bend * t / self.length
        return np.stack([-slope, np.ones_like(t)], axis=-1) / np.sqrt(1 + slope * slope)[:, None]

    def turn(self, points: Points) -> Points:
        return points @ rotation(self.angle)

    def shifted(self, distance: float) -> Spine:
        return replace(self, drop=self.drop + distance)

    def scaled(self, factor: float) -> Spine:
        return replace(self, length=self.length * factor, bend=self.bend * factor * factor)


def rotation(angle: float) -> Points:
    """The (2, 2) matrix M for which rows `p @ M` are turned by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s], [-s, c]])


TUBE_STEPS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 25))  # dense at both ends, where a tube is round
TURN_STEPS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
SHADES = ((1.0, 0.62), (0.88, 0.82), (0.7, 1.0), (0.45, 1.1))  # (shrink, brightness), outermost first


@dataclass(frozen=True)
class Stage:
    """Where shapes are drawn: a random stream, a pen, the way from the food's frame to pixels, the light."""

    random: np.random.RandomState
    pen: ImageDraw.ImageDraw
    matrix: Points  # (2, 2): points (n, 2) @ matrix + origin are pixels
    origin: Points  # (2,)
    light: Points  # (2,): pixels by which the top of a body of unit radius appears moved

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random_sample()

    def chance(self, probability: float) -> bool:
        return bool(self.random.random_sample() < probability)

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.random.randint(low, high + 1))

    def pick(self, ingredient: str) -> Colour:
        return pick(self.random, ingredient)

    def polygon(self, points: Points, colour: Colour, move: Points | float = 0.0) -> None:
        pixels = points @ self.matrix + self.origin + move
        self.pen.polygon(pixels.ravel().tolist(), fill=colour)

    def shaded(self, outline: Callable[[float], Points], colour: Colour, height: float, gloss: float) -> None:
        """Fill `outline(shrink)` from its rim (shrink 1) to its top, brighter and nearer to the light."""
        for shrink, brightness in SHADES:
            self.polygon(outline(shrink), lit(colour, brightness), self.light * height * (1 - shrink))
        if gloss > 0:
            self.polygon(outline(0.16), lit(colour, 1.1 + gloss), self.light * height * 0.95)

    def tube(
        self, spine: Spine, radius: float, colour: Colour, *, blunt: float = 5, gloss: float = 0, ripple: float = 0
    ) -> None:
        """An elongated body: a small `blunt` tapers it (2: an ellipse), `ripple` is the roughness of its edge."""
        profile = radius * np.sqrt(1 - np.abs(TUBE_STEPS) ** blunt)
        rough = 1 + ripple * self.random.uniform(-1, 1, (2, len(TUBE_STEPS))) if ripple else np.ones((2, 1))

        def outline(shrink: float) -> Points:
            t = TUBE_STEPS * (1 - (1 - shrink) * min(0.9, 1.5 * radius / spine.length))
            middle, across = spine.at(t), spine.normal(t) * (shrink * profile)[:, None]
            return np.concatenate([middle + across * rough[0][:, None], (middle - across * rough[1][:, None])[::-1]])

        self.shaded(outline, colour, radius, gloss)

    def blob(
        self,
        centre: Sequence[float] | Points,
        radius: float,
        colour: Colour,
        *,
        squash: float = 1,
        angle: float = 0,
        wobble: float = 0.05,
        gloss: float = 0,
    ) -> None:
        """A roundish body; `squash` is its height over its width, `wobble` the roughness of its edge."""
        ring = np.stack([np.cos(TURN_STEPS), squash * np.sin(TURN_STEPS)], axis=-1) @ rotation(angle) * radius
        phases = self.random.uniform(0, 2 * np.pi, 3)
        bumps = sum(np.sin((k + 2) * TURN_STEPS + phases[k]) for k in range(3))
        ring = ring * (1 + wobble * np.asarray(bumps))[:, None]
        self.shaded(lambda shrink: ring * shrink + np.asarray(centre), colour, radius * min(1.0, squash), gloss)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """A line of sauce, (n, 2) in the food's frame, with a dark lower and a bright upper edge."""
        pixels = points @ self.matrix + self.origin
        thick = max(2, round(width * math.sqrt(abs(np.linalg.det(self.matrix)))))
        for move, brightness, share in ((-0.3, 0.7, 1.1), (0, 1.0, 1.0), (0.3, 1.15, 0.4)):
            line = pixels + self.light * width * move
            self.pen.line(line.ravel().tolist(), lit(colour, brightness), max(1, round(thick * share)), "curve")

    def squiggle(self, spine: Spine, amplitude: float, width: float, colour: Colour) -> None:
        """Sauce along a spine: a zigzag, a wave, or (amplitude near 0) a line."""
        turns = self.between(3, 9)
        t = np.linspace(-1, 1, 48)
        wave = np.sin(t * turns * np.pi + self.between(0, 6))
        points = spine.at(t) + spine.normal(t) * (amplitude * wave)[:, None]
        self.stroke(points, width, colour)

    def scatter(self, spine: Spine, spread: float, ingredient: str, size: float, number: int) -> None:
        """`number` bits of an ingredient along a spine, up to `spread` from it."""
        t = self.random.uniform(-0.92, 0.92, number)
        places = spine.at(t) + spine.normal(t) * (spread * self.random.uniform(-1, 1, number))[:, None]
        for place in places:
            ring = self.random.uniform(0.5, 1, (6, 1)) * HEXAGON * size + place
            colour = self.pick(ingredient)
            self.polygon(ring, lit(colour, 0.7), self.light * size * -0.3)
            self.polygon(ring, colour)


HEXAGON = np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], axis=-1)


def pick(random: np.random.RandomState, ingredient: str) -> Colour:
    """A colour of an ingredient: between two entries of its palette, and a little off."""
    choices = PALETTE[ingredient]
    first, second = random.randint(len(choices)), random.randint(len(choices))
    share, noise = random.random_sample(), random.uniform(-12, 12, 3)
    mixed = np.array(choices[first]) * share + np.array(choices[second]) * (1 - share) + noise
    return lit((mixed[0], mixed[1], mixed[2]), 1.0)


def lit(colour: Sequence[float], brightness: float) -> Colour:
    red, green, blue = (min(255, max(0, int(channel * brightness))) for channel in colour)
    return red, green, blue


# --- the scene ----------------------------------------------------------------------------------------------


def canvas_size(random: np.random.RandomState) -> tuple[int, int]:
    """(width, height) in supersampled pixels, either way up."""
    long = random.randint(LONG_SIDE[0], LONG_SIDE[1] + 1)
    short = round(long * random.uniform(*ASPECT))
    width, height = (long, short) if random.random_sample() < 0.7 else (short, long)
    return SUPERSAMPLING * width, SUPERSAMPLING * height


def set_stage(random: np.random.RandomState, image: Image.Image, *, scale: float, off_centre: float) -> Stage:
    """A stage turned at random and seen from a random height; `scale` and `off_centre` are shares of the image."""
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
    paint(set_stage(random, layer, scale=random.uniform(0.46, 0.74), off_centre=0.13))
    return layer


def with_shadow(image: Image.Image, layer: Image.Image, random: np.random.RandomState) -> Image.Image:
    """`layer` (RGBA) laid on `image` with a soft shadow beneath it."""
    alpha = layer.getchannel("A")
    blurred = alpha.reduce(4).filter(ImageFilter.GaussianBlur(random.uniform(1, 4)))
    dx, dy = random.uniform(-0.04, 0.04, 2) * image.width / 4
    moved = ImageChops.offset(blurred, round(dx), round(dy)).resize(image.size)
    image.paste((24, 16, 12), mask=moved.point([round(v * 0.55) for v in range(256)]))
    image.paste(layer, mask=alpha)
    return image


def background(random: np.random.RandomState, size: tuple[int, int]) -> Image.Image:
    """A table (plain, planks or cloth), perhaps clutter, perhaps a plate, tray or board."""
    image = Image.new("RGB", size, pick(random, "table"))
    stage = set_stage(random, image, scale=0.6, off_centre=0.2)
    (plain, plain, planks, planks, checks, stripes)[random.randint(6)](stage)
    for _ in range(random.randint(0, 4)):
        clutter(stage)
    if stage.chance(0.6):
        dish(stage)
    return image


def plain(stage: Stage) -> None:
    """Nothing but the table's colour."""


def planks(stage: Stage) -> None:
    wood = stage.pick("table")
    for x in np.arange(-3, 3, stage.between(0.3, 0.7)):
        stage.polygon(np.array([[x, -3], [x + 0.7, -3], [x + 0.7, 3], [x, 3]]), lit(wood, stage.between(0.75, 1.1)))
        for _ in range(4):
            at = x + stage.between(0, 0.5)
            stage.polygon(np.array([[at, -3], [at + 0.02, -3], [at + 0.05, 3]]), lit(wood, stage.between(0.6, 0.9)))


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


SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
CLUTTER = ("bread", "sausage", "ketchup", "mustard", "lettuce", "plate", "steel", "cloth", "chocolate", "meat")


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
    stage.tube(replace(spine, length=0.6), stage.between(0.12, 0.25), stage.pick("lettuce"), blunt=2, ripple=0.2)


def photograph(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """What light and camera add: uneven light, a colour cast, contrast, grain, blur."""
    if random.random_sample() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2)))
    width, height = image.size
    slope_x, slope_y = random.uniform(-0.3, 0.3, 2)
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    light = 1 + slope_x * across[None, :] + slope_y * down[:, None]
    cast = random.uniform(0.8, 1.2) * random.uniform(0.92, 1.08, 3)
    grain = (random.random_sample((height, width)) - 0.5) * random.uniform(4, 24)
    pixels = np.asarray(image, dtype=np.float32) * light[:, :, None] * cast.astype(np.float32)
    pixels = (pixels - 110) * np.float32(random.uniform(0.8, 1.2)) + 110 + grain.astype(np.float32)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# --- ingredients that several foods share -------------------------------------------------------------------


def spine_of(stage: Stage, low: float, high: float, bend: float = 0.12) -> Spine:
    return Spine(stage.between(low, high), stage.between(-bend, bend))


def side_by_side(stage: Stage, number: int, width: float, paint: Callable[[Stage, Spine], None]) -> None:
    """Paint `number` elongated foods next to each other, about the middle."""
    length = stage.between(0.7, 0.95)
    for place in range(number):
        centre = (stage.between(-0.08, 0.08), (place - (number - 1) / 2) * width)
        tilt = stage.between(-0.12, 0.12)
        paint(stage, Spine(length, stage.between(-0.14, 0.14), tilt, centre))


def roll(stage: Stage, spine: Spine, filling: Callable[[Stage, Spine, float], None]) -> None:
    """A split bun and what is in it: seen from above (both halves beneath) or from the side (one in front)."""
    bread, width = stage.pick("bread"), stage.between(0.17, 0.25)
    gap = width * stage.between(0.45, 0.9)
    ripple = stage.between(0, 0.06)
    stage.tube(spine.shifted(-gap), width, bread, blunt=6, ripple=ripple)
    from_above = stage.chance(0.5)
    if from_above:
        stage.tube(spine.shifted(gap), width, bread, blunt=6, ripple=ripple)
    stage.tube(spine.scaled(0.95), gap, stage.pick("crumb"), blunt=8)
    filling(stage, spine, width * stage.between(0.55, 0.85))
    if not from_above:
        stage.tube(spine.shifted(gap * 1.25), width * 0.95, lit(bread, 1.05), blunt=6, ripple=ripple)
        if stage.chance(0.25):
            stage.scatter(spine.shifted(gap * 1.4), width * 0.5, "crumb", 0.022, 24)


def frank(stage: Stage, spine: Spine, radius: float) -> None:
    """A sausage, perhaps grilled."""
    colour = stage.pick("sausage")
    stage.tube(spine, radius, colour, blunt=stage.between(6, 12), gloss=stage.between(0.1, 0.6))
    if stage.chance(0.4):
        slashes(stage, spine, radius * 0.7, lit(colour, 0.55), stage.count(3, 7))


def slashes(stage: Stage, spine: Spine, reach: float, colour: Colour, number: int) -> None:
    """Slanted marks across a body: grill marks, or the cuts of a loaf."""
    slant = stage.between(0.02, 0.12)
    for t in np.linspace(-0.75, 0.75, number):
        ends = spine.at(np.array([t - slant, t, t + slant]))
        across = spine.normal(np.array([t, t, t])) * (reach * np.array([-1, 0, 1]))[:, None]
        stage.stroke(ends + across, 0.03, colour)


def sauces(stage: Stage, spine: Spine, reach: float, choices: Sequence[str], most: int = 2) -> None:
    """From none to `most` sauces, squeezed along a spine."""
    for _ in range(stage.count(0, most)):
        sauce = choices[stage.random.randint(len(choices))]
        amplitude = reach * stage.between(0, 0.8)
        stage.squiggle(spine.scaled(0.88), amplitude, stage.between(0.03, 0.07), stage.pick(sauce))


def salad(stage: Stage, spine: Spine, reach: float) -> None:
    """A ruffled leaf, or bits of something, along a spine."""
    if stage.chance(0.5):
        stage.tube(spine, reach * 1.1, stage.pick("lettuce"), blunt=8, ripple=0.3)
    else:
        bits = ("lettuce", "onion", "relish", "tomato", "cheese")[stage.random.randint(5)]
        stage.scatter(spine, reach, bits, stage.between(0.03, 0.06), 26)


def stack(stage: Stage, layers: Sequence[str], length: float) -> None:
    """Layers seen from the side, the first at the bottom."""
    heights = [stage.between(0.07, 0.11) if layer == "bread" else stage.between(0.03, 0.08) for layer in layers]
    y = sum(heights)
    for layer, height in zip(layers, heights, strict=True):
        y -= height
        ripple = 0.3 if layer in ("lettuce", "ham") else 0.04
        spine = Spine(length * stage.between(0.95, 1.05), 0, stage.between(-0.03, 0.03), (0, y))
        stage.tube(spine, height * 1.2, stage.pick(layer), blunt=12, ripple=ripple)
        y -= height


# --- the target: hot dogs and what resembles them -----------------------------------------------------------

SAUCES = ("mustard", "mustard", "ketchup", "mayonnaise", "relish")


def hotdog(stage: Stage) -> None:
    number = 2 if stage.chance(0.2) else 1
    side_by_side(stage, number, 0.8, lambda stage, spine: roll(stage, spine, frank_and_toppings))


def frank_and_toppings(stage: Stage, spine: Spine, radius: float) -> None:
    if stage.chance(0.35):
        salad(stage, spine, radius * 1.2)
    sausage = spine.scaled(stage.between(0.92, 1.12))
    frank(stage, sausage, radius)
    if stage.chance(0.25):
        stage.scatter(sausage, radius * 0.7, ("onion", "relish", "cheese")[stage.random.randint(3)], 0.04, 22)
    sauces(stage, sausage, radius * 0.8, SAUCES)


def not_hotdog(stage: Stage) -> None:
    NEGATIVES[stage.random.randint(len(NEGATIVES))](stage)


def baguette(stage: Stage) -> None:
    def loaf(stage: Stage, spine: Spine) -> None:
        bread = stage.pick("bread")
        stage.tube(spine, stage.between(0.16, 0.26), bread, blunt=stage.between(3, 6), ripple=0.04)
        slashes(stage, spine, 0.1, lit(bread, stage.between(1.15, 1.4)), stage.count(3, 6))

    side_by_side(stage, stage.count(1, 2), 0.5, loaf)


def banana(stage: Stage) -> None:
    colour, bend = stage.pick("banana"), stage.between(0.25, 0.5)
    for place in range(stage.count(1, 3)):
        spine = Spine(0.85, bend, 0.1 * place, (0, 0.26 * place - 0.2))
        stage.tube(spine, stage.between(0.14, 0.19), lit(colour, stage.between(0.9, 1.05)), blunt=3)
        stage.stroke(spine.at(TUBE_STEPS * 0.85), 0.02, lit(colour, 0.75))
        for end in (-0.97, 0.97):
            stage.blob(spine.at(np.array([end]))[0], 0.05, stage.pick("meat"))


def submarine(stage: Stage) -> None:
    """A sandwich in the hot dog's bun, with everything but the sausage."""

    def fill(stage: Stage, spine: Spine, radius: float) -> None:
        for ingredient in ("lettuce", "ham", "cheese", "tomato", "meat"):
            if stage.chance(0.55):
                layer = spine.shifted(stage.between(-0.6, 0.6) * radius).scaled(stage.between(0.85, 1.05))
                stage.tube(layer, radius * 0.6, stage.pick(ingredient), blunt=10, ripple=0.35)
        for t in np.linspace(-0.75, 0.75, stage.count(3, 6)):
            slice_colour = stage.pick(("tomato", "cheese", "relish")[stage.random.randint(3)])
            stage.blob(spine.at(np.array([t]))[0], radius * stage.between(0.7, 1), slice_colour)
        sauces(stage, spine, radius, SAUCES, most=1)

    side_by_side(stage, 1, 1, lambda stage, spine: roll(stage, spine, fill))


def empty_bun(stage: Stage) -> None:
    """The hot dog without its sausage; the sauce may be there."""

    def fill(stage: Stage, spine: Spine, radius: float) -> None:
        if stage.chance(0.4):
            salad(stage, spine, radius)
        sauces(stage, spine, radius, SAUCES)

    side_by_side(stage, stage.count(1, 2), 0.75, lambda stage, spine: roll(stage, spine, fill))


def sausages(stage: Stage) -> None:
    """The hot dog without its bun, or with the bun beside it."""
    number = stage.count(1, 3)
    if number == 1 and stage.chance(0.6):
        stage.tube(Spine(0.7, 0.05, 0, (0.1, -0.42)), 0.2, stage.pick("bread"))
    side_by_side(stage, number, 0.34, lambda stage, spine: frank(stage, spine, stage.between(0.1, 0.16)))
    sauces(stage, Spine(0.8, 0, 0.2, (0, 0.15)), 0.15, SAUCES)
    if stage.chance(0.4):
        stage.scatter(Spine(0.6, 0, 0, (0, 0.5)), 0.2, "potato", 0.1, 16)


def taco(stage: Stage) -> None:
    shell = lit(stage.pick("potato"), stage.between(0.85, 1.05))
    arc = Spine(0.85, 1.0, 0, (0, -0.1))
    half = np.concatenate([arc.at(TUBE_STEPS), [[0.75, 0.55], [-0.75, 0.55]]]) * (1, -1)
    stage.polygon(half + (0, -0.12), lit(shell, 0.75))
    rim = replace(arc, bend=-1.0, centre=(0, 0.02))
    for ingredient in ("meat", "lettuce", "tomato", "cheese"):
        stage.scatter(rim, 0.14, ingredient, 0.09, stage.count(6, 16))
    stage.shaded(lambda shrink: (half - (0, 0.1)) * shrink + (0, 0.2), shell, 0.3, 0)
    stage.scatter(Spine(0.5, 0, 0, (0, 0.2)), 0.25, "meat", 0.02, 12)


def eclair(stage: Stage) -> None:
    """A bun with a glaze as long, dark and glossy as a sausage."""

    def cake(stage: Stage, spine: Spine) -> None:
        radius = stage.between(0.2, 0.28)
        stage.tube(spine, radius, stage.pick("bread"), blunt=6)
        if stage.chance(0.4):
            stage.tube(spine.shifted(radius * 0.5), radius * 0.5, stage.pick("mayonnaise"), ripple=0.3)
        top = spine.scaled(0.9).shifted(-radius * 0.25)
        stage.tube(top, radius * stage.between(0.55, 0.8), stage.pick("glaze"), blunt=6, gloss=0.5, ripple=0.1)
        sauces(stage, top, radius * 0.5, ("mayonnaise", "chocolate"), most=1)

    side_by_side(stage, stage.count(1, 2), 0.6, cake)


def sandwich(stage: Stage) -> None:
    fillings = ("lettuce", "ham", "cheese", "tomato", "meat")
    chosen = [fillings[stage.random.randint(5)] for _ in range(stage.count(2, 4))]
    stack(stage, ("bread", *chosen, "bread"), stage.between(0.6, 0.85))


NEGATIVES = (baguette, banana, submarine, empty_bun, sausages, taco, eclair, sandwich)


# --- the source: other foods, from the same ingredients -----------------------------------------------------


def burger(stage: Stage) -> None:
    bread, length = stage.pick("bread"), stage.between(0.5, 0.7)
    stage.tube(Spine(length, 0, 0, (0, 0.35)), 0.2, lit(bread, 0.95), blunt=8)
    stack(stage, ("meat", "cheese", "lettuce", "tomato")[: stage.count(2, 4)], length * 1.08)
    stage.tube(Spine(length, -0.2, 0, (0, -0.4)), stage.between(0.3, 0.4), bread, blunt=3)
    stage.scatter(Spine(length * 0.7, -0.2, 0, (0, -0.5)), 0.12, "crumb", 0.03, stage.count(0, 24))


def burrito(stage: Stage) -> None:
    def wrap(stage: Stage, spine: Spine) -> None:
        stage.tube(spine, 0.27, stage.pick("crumb"), blunt=9)
        stage.scatter(spine, 0.2, "bread", 0.05, 18)
        end = spine.at(np.array([0.97]))[0]
        stage.blob(end, 0.25, stage.pick("bread"), angle=spine.angle)
        for ingredient in ("meat", "rice", "tomato", "lettuce"):
            stage.scatter(Spine(0.15, 0, 0, (end[0], end[1])), 0.15, ingredient, 0.06, 7)

    side_by_side(stage, stage.count(1, 2), 0.62, wrap)


def churros(stage: Stage) -> None:
    def stick(stage: Stage, spine: Spine) -> None:
        bread = stage.pick("bread")
        stage.tube(spine, 0.11, bread, blunt=10, ripple=0.12)
        for ridge in (-0.05, 0.01, 0.06):
            stage.stroke(spine.shifted(ridge).at(TUBE_STEPS * 0.9), 0.02, lit(bread, 0.7))
        stage.scatter(spine, 0.1, "rice", 0.015, 20)

    side_by_side(stage, stage.count(2, 5), 0.26, stick)
    if stage.chance(0.6):
        stage.squiggle(spine_of(stage, 0.5, 0.9), 0.2, 0.06, stage.pick("chocolate"))


def corn(stage: Stage) -> None:
    spine, colour = spine_of(stage, 0.75, 0.95), stage.pick("corn")
    for side in (-0.15, 0.15) if stage.chance(0.6) else ():
        stage.tube(replace(spine, centre=(0.4, 0)).shifted(side), 0.16, stage.pick("lettuce"), blunt=2)
    radius = stage.between(0.2, 0.28)
    stage.tube(spine, radius, colour, blunt=4, gloss=0.2)
    for row in np.linspace(-0.75, 0.75, 5):
        t = np.linspace(-0.85, 0.85, 18)
        for place in spine.shifted(row * radius).at(t):
            stage.polygon(HEXAGON * 0.032 + place, lit(colour, stage.between(0.7, 1.2)))
    sauces(stage, spine, radius * 0.6, ("mayonnaise", "mustard", "cheese"), most=1)


def croissant(stage: Stage) -> None:
    bread = stage.pick("bread")
    spine = Spine(0.8, stage.between(0.3, 0.7))
    stage.tube(spine, 0.3, bread, blunt=2)
    for t in (-0.75, 0.75, -0.5, 0.5, -0.25, 0.25, 0):
        radius = 0.34 * math.sqrt(1.05 - abs(t))
        centre = spine.at(np.array([t]))[0]
        slope = math.atan2(2 * spine.bend * t, spine.length)
        colour = lit(bread, stage.between(0.9, 1.08))
        stage.blob(centre, radius, colour, squash=0.5, angle=slope + np.pi / 2, gloss=0.15)


def donut(stage: Stage) -> None:
    radius = stage.between(0.6, 0.85)
    stage.blob((0, 0), radius, stage.pick("bread"))
    if stage.chance(0.85):
        stage.blob((0, 0), radius * 0.88, stage.pick("glaze"), wobble=0.04, gloss=0.1)
        sauces(stage, Spine(radius * 0.8), radius * 0.6, ("mayonnaise", "chocolate", "ketchup"), most=1)
        stage.scatter(Spine(radius * 0.8), radius * 0.6, "sprinkles", 0.035, stage.count(0, 60))
    ring = np.stack([np.cos(TURN_STEPS), np.sin(TURN_STEPS)], axis=-1) * radius * stage.between(0.25, 0.36)
    stage.polygon(ring * 1.2, stage.pick("bread"))
    stage.pen.polygon((ring @ stage.matrix + stage.origin).ravel().tolist(), fill=(0, 0, 0, 0))


def fries(stage: Stage) -> None:
    for _ in range(stage.count(14, 30)):
        angle = stage.between(0, np.pi) if stage.chance(0.4) else stage.between(1.2, 1.9)
        spine = Spine(stage.between(0.3, 0.55), 0, angle, (stage.between(-0.55, 0.55), stage.between(-0.4, 0.3)))
        stage.tube(spine, 0.055, stage.pick("potato"), blunt=14)
    if stage.chance(0.4):
        box = np.array([[-0.7, 0.1], [0.7, 0.1], [0.5, 0.9], [-0.5, 0.9]])
        stage.polygon(box, stage.pick("cloth"))
    sauces(stage, Spine(0.6), 0.3, ("ketchup", "mayonnaise"), most=1)


def kebab(stage: Stage) -> None:
    def skewer(stage: Stage, spine: Spine) -> None:
        stage.stroke(spine.scaled(1.25).at(TUBE_STEPS), 0.03, stage.pick("steel"))
        pieces = ("meat", "meat", "tomato", "onion", "relish", "sausage")
        for t in np.linspace(-0.85, 0.85, stage.count(5, 9)):
            piece = pieces[stage.random.randint(len(pieces))]
            stage.blob(spine.at(np.array([t]))[0], stage.between(0.12, 0.17), stage.pick(piece), gloss=0.2, wobble=0.1)

    side_by_side(stage, stage.count(1, 3), 0.42, skewer)


def lobster_roll(stage: Stage) -> None:
    def fill(stage: Stage, spine: Spine, radius: float) -> None:
        if stage.chance(0.5):
            salad(stage, spine, radius * 1.3)
        t = stage.random.uniform(-0.9, 0.9, 16)
        for place in spine.at(t) + stage.random.uniform(-0.5, 0.5, (16, 2)) * radius:
            stage.blob(place, stage.between(0.06, 0.13), stage.pick("lobster"), wobble=0.12, gloss=0.2)
        sauces(stage, spine, radius, ("mayonnaise", "relish", "mustard"), most=1)

    side_by_side(stage, 1, 1, lambda stage, spine: roll(stage, spine, fill))


def pancakes(stage: Stage) -> None:
    squash, radius = stage.between(0.4, 0.8), stage.between(0.6, 0.85)
    number = stage.count(2, 6)
    for place in range(number):
        centre = (stage.between(-0.06, 0.06), 0.1 * (number / 2 - place))
        brown = stage.pick("bread")
        stage.blob(centre, radius, lit(brown, 1.2), squash=squash, wobble=0.02)
        stage.blob((centre[0], centre[1] - 0.02), radius * 0.93, lit(brown, 0.85), squash=squash, wobble=0.03)
    top = 0.1 * (1 - number / 2)
    sauces(stage, Spine(radius * 0.6, 0, 0, (0, top)), 0.2, ("chocolate", "mayonnaise", "ketchup", "mustard"))
    butter, melted = SQUARE @ rotation(0.5) * stage.between(0.1, 0.16), stage.pick("cheese")
    stage.polygon(butter + (0, top), lit(melted, 0.7))
    stage.polygon(butter + (0, top - 0.06), melted)


def pizza(stage: Stage) -> None:
    radius = stage.between(0.75, 1.0)
    stage.blob((0, 0), radius, stage.pick("bread"), wobble=0.03)
    stage.blob((0, 0), radius * 0.87, stage.pick("ketchup"), wobble=0.02)
    stage.blob((0, 0), radius * 0.84, stage.pick("cheese"), wobble=0.05)
    for topping in ("sausage", "tomato", "relish"):
        for _ in range(stage.count(0, 7)):
            angle, distance = stage.between(0, 6.3), stage.between(0.1, 0.7) * radius
            place = (distance * math.cos(angle), distance * math.sin(angle))
            stage.blob(place, stage.between(0.07, 0.14), stage.pick(topping))
    for angle in np.arange(4) * np.pi / 4 + 0.3:
        stage.stroke(Spine(radius, 0, angle).at(np.array([-1.0, 1.0])), 0.015, stage.pick("meat"))


def sushi(stage: Stage) -> None:
    maki = stage.chance(0.5)
    for place in range(stage.count(2, 5)):
        x, y = 0.55 * (place % 3) - 0.5 + stage.between(-0.05, 0.05), 0.6 * (place // 3) - 0.25
        if maki:
            for radius, part in ((0.27, "seaweed"), (0.23, "rice")):
                stage.blob((x, y), radius, stage.pick(part), wobble=0.02)
            stage.blob((x, y), 0.11, stage.pick(("salmon", "relish", "cheese")[stage.random.randint(3)]))
        else:
            spine = Spine(0.36, 0.04, np.pi / 2 + stage.between(-0.2, 0.2), (x * 0.8, y + 0.2))
            stage.tube(spine, 0.2, stage.pick("rice"), ripple=0.06)
            fish = stage.pick("salmon")
            stage.tube(spine.scaled(1.08), 0.16, fish, blunt=7, gloss=0.3)
            slashes(stage, spine, 0.12, lit(fish, 1.25), 5)


FOODS: dict[str, Callable[[Stage], None]] = {
    "hotdog": hotdog,
    "not-hotdog": not_hotdog,
    "burger": burger,
    "burrito": burrito,
    "churros": churros,
    "corn": corn,
    "croissant": croissant,
    "donut": donut,
    "fries": fries,
    "kebab": kebab,
    "lobster-roll": lobster_roll,
    "pancakes": pancakes,
    "pizza": pizza,
    "sushi": sushi,
}
