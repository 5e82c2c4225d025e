"""The foods of the sketched data set: what each class looks like, composed of shared ingredients.

Each food is a function that paints on a `Stage`, in the food's own frame; `FOODS` names them. Hot dogs and
what resembles them (`NEGATIVES`) come first, then the source classes, from the same buns, sauces and salads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.harness.images.sketch_stage import (
    HEXAGON,
    SQUARE,
    TUBE_STEPS,
    TURN_STEPS,
    Colour,
    Spine,
    Stage,
    lit,
    rotation,
)

# --- ingredients that several foods share ---------------------------------------------------------


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
    """A split bun and what is in it: from above (both halves beneath) or from the side (one in front)."""
    bread, width = stage.pick("bread"), stage.between(0.17, 0.25)
    gap = width * stage.between(0.6, 1.0)
    ripple = stage.between(0, 0.06)
    stage.tube(spine.shifted(-gap), width, bread, blunt=6, ripple=ripple)
    from_above = stage.chance(0.65)
    if from_above:
        stage.tube(spine.shifted(gap), width, bread, blunt=6, ripple=ripple)
    stage.tube(spine.scaled(0.95), gap, stage.pick("crumb"), blunt=8)
    filling(stage, spine, width * stage.between(0.7, 0.95))
    if not from_above:
        stage.tube(spine.shifted(gap * 1.4), width * 0.95, lit(bread, 1.05), blunt=6, ripple=ripple)
        if stage.chance(0.25):
            stage.scatter(spine.shifted(gap * 1.5), width * 0.5, "crumb", 0.022, 24)


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
    heights = [
        stage.between(0.07, 0.11) if layer == "bread" else stage.between(0.03, 0.08) for layer in layers
    ]
    y = sum(heights)
    for layer, height in zip(layers, heights, strict=True):
        y -= height
        ripple = 0.3 if layer in ("lettuce", "ham") else 0.04
        spine = Spine(length * stage.between(0.95, 1.05), 0, stage.between(-0.03, 0.03), (0, y))
        stage.tube(spine, height * 1.2, stage.pick(layer), blunt=12, ripple=ripple)
        y -= height


# --- the target: hot dogs and what resembles them -------------------------------------------------

SAUCES = ("mustard", "mustard", "ketchup", "mayonnaise")


def hotdog(stage: Stage) -> None:
    number = 2 if stage.chance(0.2) else 1
    side_by_side(stage, number, 0.8, lambda stage, spine: roll(stage, spine, frank_and_toppings))


def frank_and_toppings(stage: Stage, spine: Spine, radius: float) -> None:
    if stage.chance(0.35):
        salad(stage, spine, radius * 1.2)
    sausage = spine.scaled(stage.between(0.98, 1.16))
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
        for ingredient in ("lettuce", "ham", "cheese", "lettuce", "meat"):
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
        sauces(stage, spine, radius, ("mustard", "mayonnaise", "relish"))

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
    stage.polygon(np.add(half, (0, -0.12)), lit(shell, 0.75))
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
        stage.tube(
            top, radius * stage.between(0.55, 0.8), stage.pick("glaze"), blunt=6, gloss=0.5, ripple=0.1
        )
        sauces(stage, top, radius * 0.5, ("mayonnaise", "chocolate"), most=1)

    side_by_side(stage, stage.count(1, 2), 0.6, cake)


def sandwich(stage: Stage) -> None:
    """From the side, or cut in two triangles."""
    fillings = ("lettuce", "ham", "cheese", "tomato", "meat")
    chosen = [fillings[stage.random.randint(5)] for _ in range(stage.count(2, 4))]
    if stage.chance(0.4):
        stack(stage, ("bread", *chosen, "bread"), stage.between(0.6, 0.85))
        return
    bread, crumb = stage.pick("bread"), stage.pick("crumb")
    for side in (1, -1):
        half = np.array([[-0.75, -0.6], [0.75, -0.6], [0.0, 0.55]]) * side + (0.35 * side, 0)
        for depth, layer in enumerate((bread, *map(stage.pick, chosen), bread)):
            stage.polygon(np.add(half, (0, 0.3 - 0.06 * depth)), layer)
        stage.polygon(half * 0.85 + (0.05 * side, 0.24 - 0.06 * len(chosen)), crumb)


NEGATIVES = (baguette, banana, submarine, empty_bun, sausages, taco, eclair, sandwich)


# --- the source: other foods, from the same ingredients -------------------------------------------


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
        spine = Spine(
            stage.between(0.3, 0.55), 0, angle, (stage.between(-0.55, 0.55), stage.between(-0.4, 0.3))
        )
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
            stage.blob(
                spine.at(np.array([t]))[0],
                stage.between(0.12, 0.17),
                stage.pick(piece),
                gloss=0.2,
                wobble=0.1,
            )

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
    stage.polygon(np.add(butter, (0, top)), lit(melted, 0.7))
    stage.polygon(np.add(butter, (0, top - 0.06)), melted)


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
