"""The order of cells, and how long they will take."""

from __future__ import annotations

import msgspec
import pytest

import backends
from benchmarks.harness import plan
from benchmarks.harness.matrix import Estimate, duration

pytestmark = pytest.mark.once


def cells(**options) -> list[plan.Cell]:
    return plan.plan(plan.parse(options), tuple(backends.known().values()))


def order(planned: list[plan.Cell]) -> list[str]:
    return [cell.backend for cell in plan.alternating(planned)]


class TestAlternation:
    def test_every_second_comparison_runs_backwards(self):
        matched = cells(track=["matched"], protocol=["frozen"], seeds=3)
        assert order(matched) == [
            "gluon", "keras", "pytorch", "pytorch", "keras", "gluon", "gluon", "keras", "pytorch",
        ]  # fmt: skip

    def test_native_networks_of_one_protocol_are_a_comparison(self):
        native = plan.alternating(cells(track=["native"], seeds=2))
        comparisons = [native[place : place + 3] for place in range(0, len(native), 3)]
        for comparison in comparisons:
            assert len({(cell.recipe.protocol, cell.seed) for cell in comparison}) == 1
            assert {cell.backend for cell in comparison} == {"gluon", "keras", "pytorch"}
        assert [comparison[0].backend for comparison in comparisons] == ["pytorch", "keras"] * 3

    def test_none_is_lost_and_none_twice(self):
        planned = cells(recipe=["*"], seeds=2, variant=["default,reproducible"])
        assert sorted(cell.id for cell in plan.alternating(planned)) == sorted(cell.id for cell in planned)


class TestEstimate:
    def test_nothing_is_said_before_anything_is_known(self):
        assert Estimate().left(cells()) is None
        assert duration(None) == ""

    def test_it_takes_the_mean_of_the_nearest_likes(self):
        keras, torch = (cells(backend=[name], track=["native"], seeds=3) for name in ("keras", "torch"))
        estimate = Estimate()
        estimate.learn(keras[0], 100)
        assert estimate.left(torch[:2]) == 200  # of any there are
        estimate.learn(torch[0], 10)
        assert estimate.left(torch[:2]) == 20  # of its backend
        estimate.learn(torch[1], 30)
        frozen = [cell for cell in torch if cell.recipe == torch[1].recipe]
        assert estimate.left(frozen) == 30 * len(frozen)  # of its recipe
        other = [cell for cell in torch if cell.recipe not in (torch[0].recipe, torch[1].recipe)]
        assert estimate.left(other) == 20 * len(other)  # of its architecture

    def test_seeds_are_likes_and_variants_are_not(self):
        first, second = cells(backend=["torch"], recipe=["native-resnet18-frozen"], seeds=2)
        quick = msgspec.structs.replace(first, variant="reproducible")
        estimate = Estimate()
        estimate.learn(first, 10)
        estimate.learn(quick, 30)
        assert estimate.left([second]) == 10
        assert estimate.left([quick]) == 30

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "1 s"), (59, "59 s"), (600, "10 min"), (3 * 3600, "3.0 h"), (40 * 3600, "40.0 h")],
    )
    def test_it_is_said_in_a_fitting_unit(self, seconds, text):
        assert duration(seconds) == f"about {text} left"
