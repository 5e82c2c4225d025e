from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.__main__ import main
from benchmarks.harness import record
from benchmarks.harness.record import RangeTest
from benchmarks.harness.running.run import Run
from benchmarks.report import illustrations, plots
from benchmarks.report.plots import style
from benchmarks.report.plots.parts import SEGMENTS
from benchmarks.report.sections import curves as curves_section
from benchmarks.report.sections import parts
from tests.benchmarks.report.documents import report_of
from tests.benchmarks.report.samples import NOISY, point


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


class TestEpochParts:
    def test_it_names_what_it_shows(self, three_variants):
        found = texts(plots.epoch_parts(parts.panels(three_variants)))
        assert {*parts.SEGMENTS, "epoch as measured", "milliseconds per image"} <= set(found)
        assert {"PyTorch, default", "PyTorch, tuned", "PyTorch, tuned bfloat16"} <= set(found)
        assert "matched resnet18, finetune, 64 px" in found and found.count("10.00") == 3

    def test_parts_are_told_apart_without_colour(self):
        hatches = [hatch for _, hatch in SEGMENTS.values()]
        assert tuple(SEGMENTS) == parts.SEGMENTS and len(set(hatches)) == len(hatches)

    def test_the_same_figures_give_the_same_bytes(self, three_variants):
        made = plots.epoch_parts(parts.panels(three_variants))
        assert made == plots.epoch_parts(parts.panels(three_variants))
        assert b"fill: #ffffff" not in made


class TestCurve:
    def plot(self, *measured) -> curves_section.Plot:
        return curves_section.plots(measured)[0]

    def test_it_names_what_it_shows(self, curves):
        found = texts(plots.curve(self.plot(curves(), curves("keras", variant="tuned"))))
        assert {"training", "inference", "images/s", "batch size", "1", "16", "64"} <= set(found)
        assert {"PyTorch, default", "Keras (TensorFlow), tuned"} <= set(found)
        assert "matched resnet18: 48 px, 2 threads" in found

    def test_lines_are_told_apart_without_colour(self, curves):
        lines = [
            line
            for backend in ("pytorch", "gluon", "keras", "another")
            for variant, precision in (("default", "float32"), ("tuned", "float32"), ("tuned", "bfloat16"))
            for line in self.plot(curves(backend, variant=variant, precision=precision)).lines
        ]
        styles = {
            (drawn["marker"], drawn["linestyle"])
            for drawn in (style.line_style(line.backend, line.variant) for line in lines)
        }
        assert len(styles) == len(lines) == 12

    def test_what_is_not_to_be_relied_on_is_hollow(self, curves):
        points = (point(1, 48, 2, 10.0), point(2, 48, 2, 20.0, noisy=NOISY.noisy))
        doubtful, sound = (
            plots.curve(self.plot(curves(points=several)))
            for several in (points, (points[0], point(2, 48, 2, 20.0)))
        )
        assert any("hollow: not steady, or noisy" in text for text in texts(doubtful))
        assert not any("hollow" in text for text in texts(sound))
        assert doubtful.count(b"fill-opacity: 0") > sound.count(b"fill-opacity: 0")

    def test_the_same_figures_give_the_same_bytes(self, curves):
        made = plots.curve(self.plot(curves()))
        assert made == plots.curve(self.plot(curves()))
        assert b"fill: #ffffff" not in made

    @pytest.mark.parametrize("name", ["<b> & $x$", "a\x00\nb", "_x"])
    def test_a_name_is_text_and_nothing_else(self, curves, name):
        found = texts(plots.curve(self.plot(curves(architecture=name, backend=name))))
        shown = "a\ufffd b" if "\n" in name else name
        assert any(text.replace(" ", "").startswith(f"matched{shown.replace(' ', '')}:") for text in found)


class TestIllustrations:
    def test_the_report_shows_what_is_drawn(self, three_variants, curves):
        measured = [curves(), curves("keras", architecture="vgg16")]
        text = report_of(three_variants, measured)
        shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert (
            sorted(shown) == sorted(illustrations.draw(three_variants, measured))
            and len(shown) == len(set(shown)) == 12
        )

    def test_old_records_have_no_parts(self, ok_record):
        assert parts.PLOT not in illustrations.draw([ok_record], [])

    def test_what_failed_has_none(self, failed_record):
        assert illustrations.draw([failed_record], []) == {}

    def test_the_command_writes_them(self, three_variants, curves, tmp_path, monkeypatch):
        run = Run(str(tmp_path / "x"))
        for finished in three_variants:
            run.records.mkdir(parents=True, exist_ok=True)
            record.write(run.records, finished)
        record.write_curves(run.folder / "curves" / "x.json", curves())
        monkeypatch.setattr("sys.argv", ["benchmarks", "report", str(run.folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        drawn = illustrations.draw(three_variants, [curves()])
        assert len(drawn) == 9
        assert {path: (run.folder / path).read_bytes() for path in drawn} == drawn
        assert all(path in (run.folder / "report.md").read_text() for path in drawn)
