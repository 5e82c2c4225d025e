"""Which protocol to try first, from the size of the data and its measured distance to the source.

The four cases are those of `003` (and of Stanford's CS231n, which it follows): little or much data, like or
unlike what the network was pretrained on. How alike is measured, not guessed: how well a linear classifier
does on the network's last features, on those of a block half-way, and on those of the same network with
random weights.
"""

from __future__ import annotations

import msgspec

from benchmarks.harness.recipe import all_recipes

SMALL = 5000
"""Training images. A convention: `003` draws no line; its own 2,000 are few to it, and the 1.2 million of
ImageNet fill these networks from nothing."""
HALF = 0.5
"""Data are like the source where pretraining takes away at least this share of the errors that a classifier
makes on random features."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A linear classifier, cross-validated on the training images."""

    what: str
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly by a classifier that had not seen them."""
        return self.correct / self.images


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; the test images were not looked at."""

    images: int
    classes: tuple[str, ...]
    smallest_class: int
    last: Probe
    """On what enters the head."""
    middle: Probe
    """On the averaged output of a block half-way."""
    random: Probe
    """On what enters the head of the same network with random weights."""
    middle_block: str
    shift: float | None
    """How far the means of these images lie from the source's within the network, in the standard deviations
    that batch norm has stored; null without batch norm."""

    @property
    def small(self) -> bool:
        """Whether there are few images."""
        return self.images < SMALL

    @property
    def errors_removed(self) -> float:
        """Share of the errors on random features that pretraining takes away."""
        random = 1 - self.random.accuracy
        return 1 - (1 - self.last.accuracy) / random if random else 0.0

    @property
    def similar(self) -> bool:
        """Whether the data are like the source."""
        return self.errors_removed >= HALF


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What to try first."""

    case: int
    """1 to 4, in the order of `003`."""
    protocol: str
    then: str
    why: str


def advise(evidence: Evidence) -> Advice:
    """The protocol of the case that the evidence makes."""
    if evidence.similar and evidence.small:
        return Advice(
            case=1,
            protocol="bottleneck",
            then="head-then-finetune",
            why="few images that are like the source: the last features fit as they are, and fine-tuning"
            " might overfit; train a linear head on them",
        )
    if evidence.similar:
        return Advice(
            case=2,
            protocol="finetune",
            then="bottleneck",
            why="many images that are like the source: there is enough to fine-tune all layers with",
        )
    if evidence.small:
        better = evidence.middle.accuracy >= evidence.last.accuracy
        return Advice(
            case=3,
            protocol="classifier",
            then="finetune",
            why="few images that are unlike the source: the last features are made for something else; put a"
            f" linear classifier on an earlier block ({evidence.middle_block}"
            f"{', which does better here' if better else '; here it does no better, so compare'})",
        )
    return Advice(
        case=4,
        protocol="finetune",
        then="scratch",
        why="many images that are unlike the source: enough to train from scratch, and pretrained weights are"
        " still the better start as a rule; compare the two",
    )


def selection(advice: Advice, architecture: str) -> str:
    """The options that choose what is advised; classifiers by their recipes, where the architecture has
    some."""
    classifiers = [
        recipe.id
        for recipe in all_recipes()
        if recipe.protocol == "classifier" and recipe.architecture == architecture
    ]
    if advice.protocol == "classifier" and classifiers:
        return f"--recipe {','.join(classifiers)}"
    protocol = "bottleneck" if advice.protocol == "classifier" else advice.protocol
    return f"--track matched --arch {architecture} --protocol {protocol}"


def explained(evidence: Evidence, advice: Advice) -> list[tuple[str, str]]:
    """The evidence and what follows from it, for a person: headings, and what stands under each."""
    size = "few" if evidence.small else "many"
    alike = "like" if evidence.similar else "unlike"
    lines = [
        (
            "images",
            f"{evidence.images} for training, {len(evidence.classes)} classes, the smallest has"
            f" {evidence.smallest_class}: {size} (the line is drawn at {SMALL})",
        ),
        ("probes", "a linear classifier, cross-validated on the training images, is right for"),
        *(
            ("", f"{probe.accuracy:.1%} of them on {probe.what}")
            for probe in (evidence.last, evidence.middle, evidence.random)
        ),
        (
            "distance",
            f"pretraining removes {evidence.errors_removed:.0%} of the errors on random features: {alike} the"
            f" source (the line is drawn at {HALF:.0%})",
        ),
    ]
    if evidence.shift is not None:
        shift = f"{evidence.shift:.2f} standard deviations from the source's"
        lines.append(("", f"within the network the channels' means lie {shift}"))
    case = f"try {advice.protocol} first, then {advice.then} (case {advice.case} of 4): {advice.why}"
    return [*lines, ("advice", case)]
