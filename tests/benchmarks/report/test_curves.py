"""Which points are drawn against what, and what is said of the others."""

from __future__ import annotations

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness import record
from benchmarks.harness.record import RecordError
from benchmarks.report import markdown
from benchmarks.report.document import Document
from benchmarks.report.sections import curves as report
from tests.benchmarks.report.samples import point


def drawn(plot: report.Plot) -> list[list[tuple[int, float]]]:
    return [
        [(getattr(one, plot.axis.field), one.train_images_per_second) for one in line.points]
        for line in plot.lines
    ]


class TestPlots:
    def test_each_axis_holds_the_others_where_most_points_lie(self, curves):
        batch, size, threads = report.plots([curves()])
        assert drawn(batch) == [[(1, 100.0), (16, 300.0), (64, 320.0)]]
        assert drawn(size) == [[(48, 300.0), (96, 80.0)]]
        assert drawn(threads) == [[(1, 160.0), (2, 300.0)]]
        assert batch.title == "matched resnet18: 48 px, 2 threads"
        assert size.title == "matched resnet18: batch 16, 2 threads"
        assert threads.title == "matched resnet18: batch 16, 48 px"

    def test_backends_and_variants_are_lines_of_one_plot(self, curves):
        several = [
            curves("pytorch", variant="tuned", precision="bfloat16"),
            curves("pytorch"),
            curves("gluon"),
        ]
        assert [line.label for line in report.plots(several)[0].lines] == [
            "MXNet Gluon, default",
            "PyTorch, default",
            "PyTorch, tuned bfloat16",
        ]

    def test_networks_have_plots_of_their_own(self, curves):
        made = report.plots([curves(), curves(first_trained="head"), curves("keras", architecture="vgg16")])
        assert len(made) == 9 and len({plot.path for plot in made}) == 9
        assert all(len(plot.lines) == 1 for plot in made)

    def test_an_axis_with_one_value_has_none(self, curves):
        points = (point(1, 48, 2, 10.0), point(2, 48, 2, 20.0))
        assert [plot.axis.field for plot in report.plots([curves(points=points)])] == ["batch_size"]

    def test_of_several_as_good_ones_the_most_threads_are_held(self, curves):
        points = tuple(point(size, 48, threads, 10.0 * threads) for threads in (1, 2) for size in (1, 2))
        batch, _ = report.plots([curves(points=points)])
        assert batch.title == "matched resnet18: 48 px, 2 threads" and drawn(batch) == [
            [(1, 20.0), (2, 20.0)]
        ]

    def test_no_points_are_no_plots(self, curves):
        assert report.plots([curves(points=())]) == [] and report.plots([]) == []

    @pytest.mark.parametrize("name", ["../../x", "a b", "x](y)", "<b>|`"])
    def test_a_file_s_name_is_harmless_whatever_the_network_s_is(self, curves, name):
        for plot in report.plots([curves(architecture=name)]):
            assert plot.path.startswith("plots/curves-matched-") and plot.path.endswith(".svg")
            assert not set(plot.path[len("plots/") :]) & set("/ ]()<>|`") and ".." not in plot.path


def told(measured) -> str:
    return markdown.render(Document(title="x", sections=report.sections(measured)))


class TestSection:
    def test_it_shows_every_plot(self, curves):
        text = told([curves()])
        for plot in report.plots([curves()]):
            assert f"]({plot.path})" in text
        assert "against batch size" in text and "against threads" in text

    def test_what_was_left_out_is_listed(self, curves):
        text = told([curves("gluon", left_out=("batch 64, 224 px: a step takes 14 s",))])
        assert "Left out:\n\n- MXNet Gluon, default: batch 64, 224 px: a step takes 14 s" in text
        assert "Left out" not in told([curves()])

    def test_what_is_not_to_be_relied_on_is_listed(self, curves):
        points = (point(1, 48, 2, 10.0, steady=False), point(2, 48, 2, 20.0, noisy=("a neighbour",)))
        text = told([curves(points=points)])
        assert "- PyTorch, default: batch 1, 48 px, 2 threads: not steady" in text
        assert "- PyTorch, default: batch 2, 48 px, 2 threads: a neighbour" in text
        assert "noisy" not in told([curves()])

    def test_a_point_in_no_plot_is_told_in_words(self, curves):
        lone = point(4, 160, 1, 12.5)
        text = told([curves(points=(*curves().points, lone))])
        assert (
            "- PyTorch, default: batch 4, 160 px, 1 threads: training 12.5, inference 50.0 images/s" in text
        )
        assert "In no plot" not in told([curves()])

    @pytest.mark.parametrize("text", ["<script>x</script>", "a\n\n# b", "`code`", "[x](javascript:y)"])
    def test_nothing_in_a_file_can_inject_markup(self, curves, text):
        made = told([curves(architecture=text, backend=text, variant=text, left_out=(text,))])
        assert "<" not in made and "`" not in made and "(javascript" not in made.replace("] (", "")
        assert not [
            line for line in made.splitlines() if line.startswith("#") and not line.startswith(("## ", "# x"))
        ]


class TestReading:
    def test_they_are_read_in_order_of_name(self, curves, tmp_path):
        for name, backend in (("b", "pytorch"), ("a", "gluon")):
            record.write_curves(tmp_path / "curves" / f"{name}.json", curves(backend))
        assert [one.backend for one in report.read_all(tmp_path)] == ["gluon", "pytorch"]
        assert report.read_all(tmp_path / "none") == []

    @pytest.mark.parametrize("content", ["{", "[]", '{"backend": 3}'])
    def test_a_damaged_file_is_one_line(self, tmp_path, content):
        (tmp_path / "curves").mkdir()
        (tmp_path / "curves" / "x.json").write_text(content)
        with pytest.raises(RecordError, match=r"x\.json: ") as caught:
            report.read_all(tmp_path)
        assert "\n" not in str(caught.value)
