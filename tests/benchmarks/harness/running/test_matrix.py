"""The order of cells, and how long they will take."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

import backends
from benchmarks.harness import plan
from benchmarks.harness.record import Record, Turn
from benchmarks.harness.running.matrix import Estimate, alternating, duration, new_sitting, run_all
from benchmarks.harness.running.progress import Display
from benchmarks.harness.running.run import Head

pytestmark = pytest.mark.once


def cells(**options) -> list[plan.Cell]:
    return plan.plan(plan.parse(options), tuple(backends.known().values()))


def order(planned: list[plan.Cell]) -> list[str]:
    return [cell.backend for cell in alternating(planned)]


class TestAlternation:
    def test_every_second_comparison_runs_backwards(self):
        matched = cells(track=["matched"], protocol=["frozen"], seeds=3)
        assert order(matched) == [
            "gluon", "keras", "pytorch", "pytorch", "keras", "gluon", "gluon", "keras", "pytorch",
        ]  # fmt: skip

    def test_native_networks_of_one_protocol_are_a_comparison(self):
        native = alternating(cells(track=["native"], seeds=2))
        comparisons = [native[place : place + 3] for place in range(0, len(native), 3)]
        for comparison in comparisons:
            assert len({(cell.recipe.protocol, cell.seed) for cell in comparison}) == 1
            assert {cell.backend for cell in comparison} == {"gluon", "keras", "pytorch"}
        assert [comparison[0].backend for comparison in comparisons] == ["pytorch", "keras"] * 3

    def test_variants_follow_each_other_and_the_next_seed_reverses_them_all(self):
        both = cells(track=["matched"], protocol=["frozen"], variant=["default,tuned"], seeds=2)
        found = [(cell.seed, cell.variant, cell.backend) for cell in alternating(both)]
        assert found == [
            (0, "default", "gluon"), (0, "default", "keras"), (0, "default", "pytorch"),
            (0, "tuned", "pytorch"), (0, "tuned", "keras"), (0, "tuned", "gluon"),
            (1, "tuned", "gluon"), (1, "tuned", "keras"), (1, "tuned", "pytorch"),
            (1, "default", "pytorch"), (1, "default", "keras"), (1, "default", "gluon"),
        ]  # fmt: skip

    @pytest.mark.parametrize("protocols", [["frozen"], ["frozen,finetune"], ["frozen,finetune,scratch"]])
    def test_of_any_two_that_are_compared_each_goes_first_in_every_second_seed(self, protocols):
        asked = {"variant": ["default,tuned"], "precision": ["float32,bfloat16"], "seeds": 4}
        planned = alternating(cells(protocol=protocols, **asked))
        comparisons: dict[tuple[str, str], dict[int, list[tuple[str, str, str]]]] = {}
        for cell in planned:
            seeds = comparisons.setdefault((cell.recipe.track, cell.recipe.protocol), {})
            seeds.setdefault(cell.seed, []).append((cell.backend, cell.variant, cell.precision))
        assert len(comparisons) == 2 * len(protocols[0].split(","))
        for seeds in comparisons.values():
            assert len(seeds[0]) == 9
            assert seeds[1] == seeds[0][::-1]
            assert (seeds[2], seeds[3]) == (seeds[0], seeds[1])

    def test_the_cells_of_a_comparison_stand_beside_each_other(self):
        planned = alternating(cells(variant=["default,tuned"], seeds=2))
        for place in range(0, len(planned), 3):
            own = planned[place : place + 3]
            assert len({(cell.recipe.protocol, cell.variant, cell.seed) for cell in own}) == 1
            assert {cell.backend for cell in own} == {"gluon", "keras", "pytorch"}

    def test_none_is_lost_and_none_twice(self):
        planned = cells(recipe=["*"], seeds=2, variant=["default,reproducible"])
        assert sorted(cell.id for cell in alternating(planned)) == sorted(cell.id for cell in planned)


class Running:
    """As much of a session as the matrix asks for; its cells end at once."""

    def __init__(self, cells: list[plan.Cell], finished: Record, *, answered: int = 0) -> None:
        self.cells, self.display = cells, Display(Console(file=io.StringIO()))
        kept = alternating(cells)[:answered]
        self.answered = {cell.id: Head(status="ok", seconds=1.0) for cell in kept}
        self.given: list[tuple[str, Turn | None]] = []
        self._finished = finished

    def run(self, cell: plan.Cell, _title: str, *, turn: Turn | None) -> Record:
        self.given.append((cell.id, turn))
        return self._finished


class TestTurns:
    def turns(self, finished: Record, *, sitting: str | None, answered: int = 0) -> list:
        planned = cells(track=["matched"], protocol=["frozen"], seeds=2)
        session: Any = Running(planned, finished, answered=answered)
        *_, tally = run_all(session, sitting=sitting)
        assert len(tally.records) == len(session.given) == len(planned) - answered
        order = [cell.id for cell in alternating(planned)][answered:]
        assert [name for name, _ in session.given] == order
        return [turn for _, turn in session.given]

    def test_cells_are_counted_in_the_order_in_which_they_are_run(self, ok_record):
        assert self.turns(ok_record, sitting="one") == [
            Turn(sitting="one", place=place) for place in range(6)
        ]

    def test_another_sitting_counts_what_it_runs_itself(self, ok_record):
        found = self.turns(ok_record, sitting="two", answered=4)
        assert found == [Turn(sitting="two", place=0), Turn(sitting="two", place=1)]

    def test_a_part_of_a_plan_has_no_turns(self, ok_record):
        assert set(self.turns(ok_record, sitting=None)) == {None}

    def test_no_two_sittings_have_one_name(self):
        assert len({new_sitting() for _ in range(100)}) == 100


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
