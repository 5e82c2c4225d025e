"""The page without a browser: what is in it, and what nothing in a record can bring into it."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness.record import Failure
from benchmarks.report import illustrations, page
from benchmarks.report.document import Cell, Document, Headline, Section, Table
from benchmarks.report.page.pictures import picture
from benchmarks.report.page.provenance import anchor
from benchmarks.report.page.tables import view
from tests.benchmarks.report.documents import document_of
from tests.benchmarks.report.samples import variant_of

pytestmark = pytest.mark.once

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    '" onmouseover="alert(1)',
    "</style></svg></title><b>",
    "{{ 7 * 7 }} {% raw %} $x$ &lt;",
    "txt.\u202egnp\x00",
    "a\n\n# b\n\n- c",
)


TAGS = frozenset(
    (
        *(
            "html",
            "head",
            "meta",
            "title",
            "link",
            "style",
            "body",
            "header",
            "main",
            "aside",
            "nav",
            "footer",
        ),
        *(
            "a",
            "p",
            "h1",
            "h2",
            "h3",
            "h4",
            "div",
            "section",
            "ul",
            "li",
            "dl",
            "dt",
            "dd",
            "details",
            "summary",
        ),
        *("span", "strong", "em", "code", "cite", "figure", "script"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("svg", "g", "path", "defs", "clippath", "rect", "use", "text", "pattern"),
    )
)
"""Of which a report is made: a heading, a table, a picture and so on."""


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside of scripts and style sheets."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._within = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within == "script":
            self.scripts[-1] += data
        elif not self._within:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def address(identity: str) -> str:
    return f"records/{identity.encode().hex()}.json"


def page_of(records, measured=()) -> str:
    plots = illustrations.draw(records, measured)
    return page.render(document_of(records, measured), records=records, plots=plots, link=address).decode()


def shown(document: Document) -> str:
    return page.render(document, records=(), plots={}, link=address).decode()


@pytest.fixture
def html(a_run) -> str:
    return page_of(*a_run)


def hostile_records(record, text: str) -> list:
    """As much of a record as is text, replaced."""
    data = msgspec.structs.replace(record.cell.data, name=text, classes=(text, text))
    weights = msgspec.structs.replace(record.cell.weights, name=text)
    cell = msgspec.structs.replace(
        record.cell, id=text, backend=text, architecture=text, recipe=text, protocol=text,
        framework_version=text, data=data, weights=weights, device=text, profile=text,
    )  # fmt: skip
    environment = msgspec.structs.replace(
        record.environment, cpu=text, os=text, gpu=text, packages={text: text}, git_commit=text, python=text
    )
    ok = msgspec.structs.replace(
        record,
        cell=cell,
        environment=environment,
        settings={"compiled": text, text: {text: [text]}},
        started=text,
    )
    failed = msgspec.structs.replace(
        ok, cell=msgspec.structs.replace(cell, id=f"{text}2"), status="failed", accuracy=None,
        error=Failure(type=text, message=text),
    )  # fmt: skip
    return [ok, failed]


class TestHostileRecords:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_their_texts_are_texts(self, measured_record, text):
        made = Elements(page_of(hostile_records(measured_record, text)))
        assert {tag for tag, _ in made.elements} <= TAGS
        assert made.scripts == [page._script()]
        names = {name for _, attributes in made.elements for name in attributes}
        assert not [name for name in names if name.startswith("on") or name == "src"]
        assert all(value.startswith(("#", "records/", "data:,")) for value in made.values("href"))

    def test_what_they_say_is_shown(self, measured_record):
        text = Elements(page_of(hostile_records(measured_record, HOSTILE[0]))).text
        assert text.count(HOSTILE[0]) > 10

    def test_a_name_whose_direction_turns_is_seen_to_be_one(self, measured_record):
        made = page_of(hostile_records(measured_record, "txt.\u202egnp"))
        assert "\u202e" not in made and "txt.\ufffdgnp" in made

    def test_a_headline_and_a_heading_are_plain(self):
        text = HOSTILE[1]
        made = Elements(
            shown(
                Document(
                    title=text,
                    headlines=(Headline(text, (text, f"`{text}` `{text}")),),
                    sections=(Section(text, ("a",), (Section(text, ("b",)),)),),
                )
            )
        )
        assert made.text.count(text) > 6
        assert not [tag for tag, _ in made.elements if tag in ("img", "b")]

    @pytest.mark.parametrize("text", ["<b>x</b>", "<http://x.org>", "![x](data:,)", "[x](javascript:y)"])
    def test_prose_has_no_markup_but_markdown(self, text):
        made = Elements(shown(Document(title="x", blocks=(text,))))
        assert not [tag for tag, _ in made.elements if tag in ("b", "img")]
        assert not [value for value in made.values("href") if not value.startswith(("#", "data:,"))]


class TestSelfContained:
    def test_nothing_is_fetched(self, html):
        made = Elements(html)
        assert not {tag for tag, _ in made.elements} & {"iframe", "img", "object", "embed", "base", "form"}
        assert [value for value in made.values("href") if not value.startswith(("#", "records/"))] == [
            "data:,"
        ]
        styles = "".join(re.findall(r"<style>.*?</style>", html, re.DOTALL))
        assert "url(" not in styles and "@import" not in styles

    def test_the_policy_admits_its_one_script_and_nothing_from_elsewhere(self, html):
        made = Elements(html)
        (script,) = made.scripts
        (policy,) = [value for value in made.values("content") if "default-src" in value]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in policy
        assert policy.startswith("default-src 'none';") and "http" not in policy

    def test_the_bundle_keeps_its_licences(self, html):
        assert "MIT" in html and "SpryMedia" in html and "jQuery" in html

    def test_a_bundle_that_would_end_the_script_is_refused(self, monkeypatch):
        monkeypatch.setattr(page, "_own", lambda _: "'</script>'")
        page._script.cache_clear()
        with pytest.raises(page.PageError, match=r"dt_bundle\.js"):
            page._script()
        page._script.cache_clear()

    def test_the_same_records_give_the_same_bytes(self, a_run, html):
        assert page_of(*a_run) == html

    def test_a_thousand_records_are_less_than_six_megabytes(self, measured_record):
        settings = {f"setting {number}": "of some length" for number in range(60)}
        one = msgspec.structs.replace(measured_record, settings=settings)
        records = [variant_of(one, seed=seed) for seed in range(1000)]
        made = page.render(
            msgspec.structs.replace(document_of(records[:1]), sections=()),
            records=records,
            plots={},
            link=address,
        )
        assert 1e6 < len(made) < 6e6


class TestLinks:
    def test_a_figure_is_a_click_from_its_record(self, html, a_run):
        records, _ = a_run
        made = Elements(html)
        links = [value for value in made.values("href") if value.startswith("#record-")]
        assert {f"#{anchor(record.cell.id)}" for record in records} == set(links)
        assert {value for value in made.values("href") if value.startswith("records/")} == {
            address(record.cell.id) for record in records
        }

    def test_every_link_within_the_page_leads_somewhere_and_every_name_is_one_element_s(self, html):
        made = Elements(html)
        names = made.values("id")
        assert len(names) == len(set(names))
        within = [value[1:] for value in made.values("href") if value.startswith("#")]
        within += made.values("aria-labelledby")
        within += [value[1:] for value in made.values("xlink:href")]
        within += re.findall(r"url\(#([^)]+)\)", html.split("<main")[1].split("<script")[0])
        assert within and set(within) <= set(names)

    def test_a_record_s_name_that_is_no_address_has_another(self):
        assert anchor("a-b_c.d/e") == "record-a-b_c.d/e"
        assert re.fullmatch(r"record-[0-9a-f]{16}", anchor("a b"))
        assert anchor("a b") != anchor("a  b")

    def test_provenance_is_told(self, html, measured_record):
        text = Elements(html).text
        for told in (
            measured_record.cell.data.sha256, measured_record.batches_sha256[0], "torch 2.9.0",
            "commit 0123456789", measured_record.cell.weights.initial_sha256, "gradients 2.0e-13",
            "took 30 s", "WeightsError: no tensor 'block1_conv1.weight'",
        ):  # fmt: skip
            assert told in text


class TestStructure:
    def test_one_heading_of_the_first_level_and_none_left_out_between(self, html):
        levels = [int(tag[1]) for tag, _ in Elements(html).elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))

    def test_tables_and_plots_are_told_to_who_cannot_see_them(self, html):
        made = Elements(html)
        tags = [tag for tag, _ in made.elements]
        assert tags.count("table") == tags.count("caption") > 5
        headings = [attributes for tag, attributes in made.elements if tag == "th"]
        assert headings and all(attributes["scope"] == "col" for attributes in headings)
        plots = [attributes for tag, attributes in made.elements if tag == "svg"]
        assert plots and all(plot["role"] == "img" and plot["aria-labelledby"] for plot in plots)

    def test_every_plot_is_in_the_page(self, html, a_run):
        assert html.split("<script")[0].count("<svg") == len(illustrations.draw(*a_run))

    def test_verdicts_come_first(self):
        made = shown(
            Document(
                title="x",
                headlines=(Headline("Accuracy", tuple(f"sentence {number}." for number in range(8))),),
                sections=(Section("Other", ("text",)),),
            )
        )
        main = made.split("<main")[1]
        assert main.index("Accuracy") < main.index("sentence 0.") < main.index("Other")
        assert "<summary>3 more</summary>" in main and "sentence 7." in main

    def test_what_is_to_be_typed_is_code_and_numbers_stay_whole(self):
        made = shown(
            Document(title="x", headlines=(Headline("Not run", ("GPU: `run --x` would, to 7e-07.",)),))
        )
        assert "<code>run --x</code>" in made and '<span class="whole">7e-07</span>' in made

    def test_a_section_with_nothing_in_it_is_not_shown(self):
        assert "Nothing" not in shown(Document(title="x", sections=(Section("Nothing", ("",)),)))


def table(headings: str, *rows: tuple[Cell, ...], right: frozenset[int] = frozenset()) -> Table:
    return Table(name="x", headings=tuple(headings.split()), rows=rows, right=right)


class TestTables:
    def test_a_condition_that_is_the_same_in_all_rows_is_said_once(self):
        made = view(table("seed verdict rate", *[(Cell("0"), Cell("none"), Cell("1"))] * 3))
        assert made.folded == "seed 0" and [heading.text for heading in made.headings] == ["verdict", "rate"]
        assert [[cell.text for cell in row] for row in made.rows] == [["none", "1"]] * 3

    def test_one_row_and_what_differs_stay(self):
        assert view(table("seed", (Cell("0"),))).folded == ""
        assert view(table("seed", (Cell("0"),), (Cell("1"),))).folded == ""
        assert view(table("seed", (Cell("0", record="a"),), (Cell("0", record="b"),))).folded == ""

    def test_numbers_are_sorted_as_numbers_and_none_stands_first(self):
        orders = [1.5, None, math.inf, 2.0]
        made = view(table("rate", *[(Cell("~1.5 [1, 2]", order),) for order in orders]))
        assert [row[0].order for row in made.rows] == ["1.5", "", "1e+300", "2.0"]
        assert [row[0].order for row in view(table("name", (Cell("a"),))).rows] == [None]

    def test_sentences_are_broken_into_lines_and_numbers_stand_to_the_right(self):
        made = view(table("a b c", (Cell("x" * 60), Cell("1"), Cell("y")), right=frozenset({1})))
        assert [cell.style for cell in made.rows[0]] == ["long", "number", ""]

    def test_large_ones_are_filtered(self):
        rows = [(Cell(str(number)),) for number in range(10)]
        assert view(table("rate", *rows)).filtered and not view(table("rate", *rows[1:])).filtered


class TestPictures:
    SVG = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="300pt"'
        b' height="200pt" viewBox="0 0 300 200"><style>svg{color:red}</style><metadata>m</metadata>'
        b'<defs><path id="m1" d="M 0 0"/></defs><g id="axes_1"><use xlink:href="#m1"/>'
        b'<path clip-path="url(#m1)"/><text>a &lt; b</text></g></svg>'
    )

    def test_names_are_its_own(self):
        made = picture(self.SVG, name="plot7", text="What <it> shows").markup
        assert 'id="plot7-m1"' in made and 'xlink:href="#plot7-m1"' in made and "url(#plot7-m1)" in made
        assert "axes_1" not in made and "style" not in made and "metadata" not in made
        assert '<title id="plot7-title">What &lt;it&gt; shows</title>' in made and "a &lt; b" in made

    def test_wide_ones_stand_by_themselves(self):
        assert not picture(self.SVG, name="x", text="").wide
        assert picture(self.SVG.replace(b'"300pt"', b'"600pt"'), name="x", text="").wide


class TestFirstScreen:
    @pytest.mark.parametrize(
        ("sentence", "strong"),
        [
            ("scratch: no difference shown (could have shown 4.1 points).", []),
            ("the 3 frameworks are equivalent within 2 points.", ["equivalent within 2 points"]),
            ("Keras higher by 7.6 [3.7, 11.3] points; finetune higher.", ["higher by 7.6", "higher"]),
            ("frozen higher by 24.3 to 24.8 points in each", ["higher by 24.3 to 24.8"]),
            ("97.3 images/s, 2.38 [2.20, 2.58] x Gluon, Keras: could have", ["2.38 [2.20, 2.58] x"]),
            ("PyTorch trains 306.7 images/s.", []),
        ],
    )
    def test_what_was_shown_stands_out(self, sentence, strong):
        made = shown(Document(title="x", headlines=(Headline("Accuracy", (sentence,)),)))
        assert re.findall(r"<strong>(.*?)</strong>", made.split("<main")[1]) == strong

    def test_words_that_are_used_are_explained_and_no_others(self, measured_record, ok_record):
        text = Elements(page_of([measured_record])).text
        assert "matched: one network, the same weights" in text and "finetune: everything is trained" in text
        assert "scratch: everything" not in text and "native: each" not in text
        assert "native: each framework with its own" in Elements(page_of([ok_record])).text
