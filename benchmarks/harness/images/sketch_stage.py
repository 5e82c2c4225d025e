"""Where the sketched data set is drawn: a stage with a light, the shapes on it, and the palette.

A `Stage` maps the food's own frame (the food lies within about [-1, 1] on both axes, y downwards) to pixels.
Its bodies, `tube` along a `Spine` and `blob`, are piles of shrinking outlines that wander towards the light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2)

# What an ingredient may look like, in RGB: a colour is taken between two of its entries.
PALETTE: dict[str, tuple[Colour, ...]] = {
    "bread": ((238, 196, 128), (214, 150, 80), (178, 110, 56), (140, 84, 44), (246, 220, 170)),
    "crumb": ((252, 238, 206), (240, 216, 170)),
    "sausage": ((206, 66, 42), (176, 50, 34), (218, 96, 64), (132, 48, 34)),
    "mustard": ((240, 200, 40), (214, 164, 30)),
    "ketchup": ((196, 30, 24), (160, 20, 16)),
    "mayonnaise": ((250, 244, 220), (238, 228, 196)),
    "relish": ((120, 150, 40), (90, 120, 30)),
    "lettuce": ((130, 180, 60), (80, 140, 50), (170, 200, 100)),
    "onion": ((250, 246, 236), (226, 206, 220), (170, 90, 130)),
    "tomato": ((214, 60, 40), (226, 90, 60)),
    "cheese": ((252, 200, 70), (248, 224, 140)),
    "ham": ((240, 184, 170), (224, 160, 150)),
    "meat": ((120, 70, 44), (90, 52, 36), (150, 90, 56)),
    "chocolate": ((70, 38, 24), (110, 62, 36)),
    "glaze": ((70, 38, 24), (150, 70, 36), (226, 150, 160), (240, 220, 190)),
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
    "table": ((140, 104, 76), (96, 70, 52), (196, 168, 132), (70, 70, 74), (224, 220, 212), (120, 140, 150)),
    "cloth": ((176, 110, 104), (96, 116, 150), (240, 238, 230), (120, 142, 120), (214, 198, 160)),
}

TUBE_STEPS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 25))  # dense at both ends, where a tube is round
TURN_STEPS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
SHADES = ((1.0, 0.62), (0.88, 0.82), (0.7, 1.0), (0.45, 1.1))  # (shrink, brightness), outermost first
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


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
        self,
        spine: Spine,
        radius: float,
        colour: Colour,
        *,
        blunt: float = 5,
        gloss: float = 0,
        ripple: float = 0,
    ) -> None:
        """An elongated body; a small `blunt` tapers it (2: an ellipse), `ripple` roughens its edge."""
        profile = radius * np.sqrt(1 - np.abs(TUBE_STEPS) ** blunt)
        rough = 1 + ripple * self.random.uniform(-1, 1, (2, len(TUBE_STEPS))) if ripple else np.ones((2, 1))

        def outline(shrink: float) -> Points:
            t = TUBE_STEPS * (1 - (1 - shrink) * min(0.9, 1.5 * radius / spine.length))
            middle, across = spine.at(t), spine.normal(t) * (shrink * profile)[:, None]
            return np.concatenate(
                [middle + across * rough[0][:, None], (middle - across * rough[1][:, None])[::-1]]
            )

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
        self.shaded(
            lambda shrink: ring * shrink + np.asarray(centre), colour, radius * min(1.0, squash), gloss
        )

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """A line of sauce, (n, 2) in the food's frame, with a dark lower and a bright upper edge."""
        pixels = points @ self.matrix + self.origin
        thick = max(2, round(width * math.sqrt(abs(np.linalg.det(self.matrix)))))
        for move, brightness, share in ((-0.3, 0.7, 1.1), (0, 1.0, 1.0), (0.3, 1.15, 0.4)):
            line = pixels + self.light * width * move
            self.pen.line(
                line.ravel().tolist(), lit(colour, brightness), max(1, round(thick * share)), "curve"
            )

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
