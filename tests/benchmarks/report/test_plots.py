from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="the report's libraries are in the report's environment only")

from benchmarks.harness.record import RangeTest
from benchmarks.report import plots


def result(**fields) -> RangeTest:
    rates = tuple(10 ** (-6 + step / 10) for step in range(50))
    losses = tuple(2 - math.tanh(step / 20) for step in range(50))
    usual = {
        "cell": "pytorch-x-s0", "architecture": "vgg16", "data": "some <data> & more",
        "data_sha256": "d" * 64, "weights": "none", "batch_size": 32, "image_size": 64, "rates": rates,
        "losses": losses, "smoothed": losses, "suggestion": 1e-4,
    }  # fmt: skip
    return RangeTest(**{**usual, **fields})


def texts(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


class TestRangeTest:
    def test_it_names_what_it_shows(self):
        found = texts(plots.range_test(result()))
        assert "suggestion 0.0001" in found
        assert {"learning rate", "training loss", "each step", "smoothed"} <= set(found)
        assert "vgg16 on some <data> & more, 64 px, batches of 32" in found

    def test_the_same_figures_give_the_same_bytes(self):
        assert plots.range_test(result()) == plots.range_test(result())

    def test_its_ground_is_the_page_s_own(self):
        assert b"fill: #ffffff" not in plots.range_test(result())

    def test_a_loss_that_explodes_does_not_flatten_the_rest(self):
        losses = (*result().losses[:-1], 1e6)
        ticks = [float(text) for text in texts(plots.range_test(result(losses=losses))) if text[:1].isdigit()
                 and "." in text and " " not in text]  # fmt: skip
        assert ticks and max(ticks) < 10

    def test_no_suggestion_is_no_line(self):
        found = texts(plots.range_test(result(suggestion=None)))
        assert not any(text.startswith("suggestion") for text in found)
