"""What the plots of accuracy, rates and learning show."""

from __future__ import annotations

from xml.etree import ElementTree

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness.record import Accuracy, Record
from benchmarks.report import plots
from benchmarks.report.document import Plot
from benchmarks.report.plots.style import INK
from benchmarks.report.sections import accuracy, dots, learning, panels, rates
from benchmarks.report.statistics import wilson
from tests.benchmarks.report.samples import variant_of

pytestmark = pytest.mark.once


def of(record: Record, *, backend: str = "pytorch", seed: int = 0, correct: int = 150, **fields) -> Record:
    """The cell of another backend or seed, with so many of 200 images right."""
    cell = msgspec.structs.replace(
        record.cell, id=f"{backend}-{record.cell.recipe}-s{seed}", backend=backend, seed=seed
    )
    scores = Accuracy(test=correct / 200, correct=(1,) * correct + (0,) * (200 - correct), images=200)
    return msgspec.structs.replace(record, cell=cell, accuracy=scores, **fields)


def texts(svg: bytes) -> list[str]:
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


class TestPanels:
    def test_backends_and_variants_share_a_panel_and_protocols_do_not(self, three_variants, failed_record):
        other = of(three_variants[0], backend="keras")
        frozen = msgspec.structs.replace(
            other, cell=msgspec.structs.replace(other.cell, id="x-s0", recipe="matched-resnet18-frozen",
                                                protocol="frozen")
        )  # fmt: skip
        found = panels.panels([*three_variants, other, frozen, failed_record])
        assert [(panel.title, len(panel.groups)) for panel in found] == [
            ("matched resnet18, finetune", 4),
            ("matched resnet18, frozen", 1),
        ]
        assert panels.labels(found[0].groups) == [
            "Keras (TensorFlow)", "PyTorch", "PyTorch, tuned", "PyTorch, tuned bfloat16",
        ]  # fmt: skip

    def test_native_networks_are_named(self, ok_record):
        (panel,) = panels.panels([ok_record])
        assert panel.title == "native, finetune" and panels.labels(panel.groups) == ["PyTorch, resnet18"]

    def test_names_of_files_are_harmless_and_no_two_the_same(self):
        assert panels.file_names(["A, b/c", "a (b) c", "../..", "</x>"]) == ["a-b-c", "a-b-c-2", "x", "x-2"]

    def test_runs_are_named_where_nothing_else_tells_apart(self):
        assert panels.told_apart([("a", "x"), ("a", "y"), ("b", "x")]) == ["a (x)", "a (y)", "b"]

    def test_those_that_compare_most_are_kept_in_their_order(self, matched_record):
        def panel(title: str, *backends: str) -> panels.Panel:
            groups = panels.panels([of(matched_record, backend=name) for name in backends])[0].groups
            return panels.Panel(title=title, name=title, groups=groups)

        found = [panel("a", "keras"), panel("b", "keras", "gluon"), panel("c", "gluon"),
                 panel("d", "gluon", "keras", "pytorch")]  # fmt: skip
        assert [one.title for one in panels.of_most_weight(found, 2)] == ["b", "d"]
        assert panels.of_most_weight(found, 4) == found


class TestAccuracy:
    def test_one_seed_has_wilson_s_interval(self, matched_record):
        ((dot,),) = (panel.dots for panel in accuracy.drawn([of(matched_record)]).panels)
        interval = wilson(150, 200)
        assert (dot.value, dot.low, dot.high, dot.text) == (0.75, interval.low, interval.high, "0.750")

    def test_lines_upon_each_other_are_all_seen(self, matched_record):
        better = tuple(
            msgspec.structs.replace(row, test_accuracy=0.9, train_loss=9.0) for row in matched_record.curve
        )
        others = of(matched_record, backend="keras"), of(matched_record, backend="keras", curve=better)
        upon, apart = (
            plots.learning_curves(learning.drawn([matched_record, other])[0]).count(b"stroke-width: 3.3")
            for other in others
        )
        assert (upon, apart) == (2, 0)

    def test_several_seeds_have_that_of_their_mean(self, matched_record):
        """Student's t with 2 degrees of freedom, 4.303: 0.8 +- 4.303 * 0.05 / sqrt(3)."""
        several = [
            of(matched_record, seed=seed, correct=correct) for seed, correct in enumerate((150, 160, 170))
        ]
        ((dot,),) = (panel.dots for panel in accuracy.drawn(several).panels)
        assert (dot.value, dot.low, dot.high) == pytest.approx((0.8, 0.8 - 0.12421, 0.8 + 0.12421), abs=1e-4)
        assert "over seeds (Student's t)." in accuracy.blocks(several)[1]

    def test_no_interval_leaves_the_possible(self, matched_record):
        several = [of(matched_record, seed=seed, correct=correct) for seed, correct in enumerate((200, 150))]
        ((dot,),) = (panel.dots for panel in accuracy.drawn(several).panels)
        assert (dot.low, dot.high) == (0.0, 1.0)

    def test_what_failed_has_none(self, failed_record):
        assert accuracy.blocks([failed_record]) == () and accuracy.drawn([failed_record]) is None

    def test_the_picture_names_what_it_shows(self, matched_record):
        several = [of(matched_record), of(matched_record, backend="keras", correct=180)]
        found = texts(plots.dots(accuracy.drawn(several)))
        assert {
            "matched resnet18, finetune",
            "PyTorch",
            "Keras (TensorFlow)",
            "0.750",
            "0.900",
            "test accuracy",
        } <= set(found)


class TestDots:
    def panel(self, title: str, *backends: str) -> dots.DotsPanel:
        rows = tuple(
            dots.Dot(backend=name, variant="default", label=name, value=1.0, low=0.5, high=1.5, text="1.0")
            for name in backends
        )
        return dots.DotsPanel(title=title, dots=rows)

    def thinned(self, *several: dots.DotsPanel) -> dots.Dots:
        return dots.thinned(several, path="p", axis="a", from_zero=True)

    def test_what_compares_nothing_is_left_out_and_counted(self):
        made = self.thinned(self.panel("a", "keras"), self.panel("b", "keras", "gluon"))
        assert [panel.title for panel in made.panels] == ["b"] and made.left_out == 1
        assert made.said == " 1 more row is in the tables only."
        assert [panel.title for panel in self.thinned(self.panel("a", "keras")).panels] == ["a"]

    def test_what_shares_an_axis_is_compared_with_all(self):
        several = self.panel("a", "keras"), self.panel("b", "keras", "gluon")
        made = dots.thinned(several, path="p", axis="a", from_zero=False)
        assert [panel.title for panel in made.panels] == ["a", "b"] and made.said == ""

    def test_of_many_those_stay_that_compare_most(self):
        wide = self.panel("wide", *(str(number) for number in range(40)))
        made = self.thinned(self.panel("a", *["keras"] * 20), wide, self.panel("b", "keras", "gluon"))
        assert [(panel.title, len(panel.dots)) for panel in made.panels] == [("a", 6), ("wide", 40), ("b", 2)]
        assert made.left_out == 14


class TestRates:
    def test_a_dot_is_the_mean_and_its_line_the_range(self, measured_record):
        several = [
            variant_of(measured_record, "default", seed=seed, train_images_per_second=rate)
            for seed, rate in enumerate((100.0, 150.0, 110.0))
        ]
        training, inference = rates.drawn(several)
        ((dot,),) = (panel.dots for panel in training.panels)
        assert (dot.low, dot.value, dot.high, dot.text) == (
            100.0,
            pytest.approx(118.2, abs=0.05),
            150.0,
            "118.2",
        )
        assert inference.panels[0].dots[0].value == pytest.approx(512.0)
        assert "slowest seed to the fastest" in rates.blocks(several)[-1]

    def test_what_is_not_to_be_relied_on_is_marked(self, three_variants):
        training, inference = rates.drawn(three_variants)
        assert [dot.text for dot in training.panels[0].dots] == ["128.0", "160.0", "~256.0 noisy"]
        assert [dot.label for dot in inference.panels[0].dots] == [
            "PyTorch", "PyTorch, tuned", "PyTorch, tuned bfloat16",
        ]  # fmt: skip

    def test_nothing_timed_is_no_plot(self, failed_record):
        assert rates.blocks([failed_record]) == () and rates.drawn([failed_record]) == []

    def test_the_picture_names_what_it_shows(self, three_variants):
        found = texts(plots.dots(rates.drawn(three_variants)[0]))
        assert {"matched resnet18, finetune, 64 px", "training images/s", "~256.0 noisy", "0"} <= set(found)


class TestLearning:
    def test_seconds_add_up_and_seeds_end_with_the_shortest(self, matched_record):
        short = of(matched_record, seed=1, curve=matched_record.curve[:2])
        ((line,),) = (one.lines for one in learning.drawn([matched_record, short]))
        assert line.seconds == ((8.0, 12.0), (8.0, 12.0))
        assert line.train_loss == ((1.0, 0.5), (1.0, 0.5)) and line.label == "PyTorch"

    def test_one_epoch_is_no_curve(self, matched_record):
        assert learning.drawn([of(matched_record, curve=matched_record.curve[:1])]) == []
        assert learning.curves([]) == () and learning.times([]) == ()

    def test_many_are_not_all_drawn_and_that_is_said(self, matched_record, monkeypatch):
        monkeypatch.setattr(learning, "MOST", 1)
        frozen = msgspec.structs.replace(
            matched_record.cell, id="x-s0", recipe="matched-resnet18-frozen", protocol="frozen"
        )
        shown = learning.curves([matched_record, msgspec.structs.replace(matched_record, cell=frozen)])
        assert [type(block) for block in shown] == [Plot, str] and shown[1].startswith("1 more")

    def test_pictures_name_what_they_show(self, matched_record):
        (drawn,) = learning.drawn(
            [matched_record, of(matched_record, seed=1), of(matched_record, backend="<b> $x$ & y")]
        )
        for picture, axes in (
            (plots.learning_curves(drawn), {"test accuracy", "training loss", "epoch"}),
            (plots.time_to_accuracy(drawn), {"test accuracy", "seconds of training"}),
        ):
            assert {"matched resnet18, finetune", "PyTorch", "<b> $x$ & y", *axes} <= set(texts(picture))

    def test_lines_upon_each_other_are_all_seen(self, matched_record):
        better = tuple(
            msgspec.structs.replace(row, test_accuracy=0.9, train_loss=9.0) for row in matched_record.curve
        )
        others = of(matched_record, backend="keras"), of(matched_record, backend="keras", curve=better)
        upon, apart = (
            plots.learning_curves(learning.drawn([matched_record, other])[0]).count(b"stroke-width: 3.3")
            for other in others
        )
        assert (upon, apart) == (2, 0)

    def test_several_seeds_have_a_band_and_one_has_none(self, matched_record):
        one, several = (
            plots.learning_curves(learning.drawn(records)[0])
            for records in ([matched_record], [matched_record, of(matched_record, seed=1)])
        )
        assert several.count(b"FillBetween") == one.count(b"FillBetween") + 2


class TestStyle:
    def test_ink_is_the_page_s_and_a_file_brings_its_own_for_light_and_dark(self, matched_record):
        made = plots.time_to_accuracy(learning.drawn([matched_record])[0])
        assert INK.encode() not in made and b"currentColor" in made
        assert b"@media(prefers-color-scheme:dark)" in made and made.count(b"<style>") == 1

    def test_pictures_are_lean_and_the_same_each_time(self, matched_record):
        drawn = learning.drawn([matched_record])[0]
        made = plots.learning_curves(drawn)
        assert made == plots.learning_curves(drawn) and len(made) < 30_000
        assert b"<metadata>" not in made

    def test_what_is_written_is_not_rounded(self, matched_record):
        cell = msgspec.structs.replace(matched_record.cell, architecture="net 0.123456")
        made = plots.learning_curves(learning.drawn([msgspec.structs.replace(matched_record, cell=cell)])[0])
        assert "matched net 0.123456, finetune" in texts(made)
