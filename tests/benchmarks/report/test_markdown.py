"""A document as Markdown, and how texts are disarmed."""

from __future__ import annotations

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from markdown_it import MarkdownIt

from benchmarks.report import markdown
from benchmarks.report.document import (
    Cell,
    Column,
    Document,
    Headline,
    Plot,
    Section,
    Table,
    first_number,
    plain,
    table_of,
)
from benchmarks.report.markdown_table import escape, table

pytestmark = pytest.mark.once

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tags(text: str) -> set[str]:
    """What Markdown makes of it, but for paragraphs."""
    tokens = GITHUB.parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    return {token.type for token in (*tokens, *inner)} - {
        "paragraph_open",
        "paragraph_close",
        "inline",
        "text",
    }


class TestEscape:
    @pytest.mark.parametrize(
        "text",
        ["*a*", "**a**", "_a_", "__a__ b", "`a`", "[a](b)", "![a](b)", "<b>", "<!-- a -->", "&lt;", "~~a~~",
         "# a", "## a", "- a", "+ a", "1. a", "12) a", "> a", "===", "---", "a\\", "\\*a*", "<http://a.b>",
         "a|b", "a\n\n# b", "&copy;", "| a |", "#", "-", "***", "[a]: b"],
    )  # fmt: skip
    def test_nothing_in_it_is_a_mark(self, text):
        assert tags(escape(text)) <= {"text_special"}

    @pytest.mark.parametrize("text", ["a\\|b", "a|b", "\\", "\\\\|", "a\\"])
    def test_a_cell_stays_one(self, text):
        content = Table(name="x", headings=("h", "i"), rows=((Cell(text), Cell("z")),))
        tokens = GITHUB.parse(table(content))
        cells = [token.content for token in tokens if token.type == "inline"]
        assert len(cells) == 4 and cells[-1] == "z"
        inline = next(token for token in tokens if token.type == "inline" and token.content == cells[2])
        assert "".join(child.content for child in inline.children) == text

    @pytest.mark.parametrize(
        "text", ["resnet18_v2", "~1.5 [1, 2]", "0.75", "-1.5", "a - b", "2 * 3", "C#", "+3.1"]
    )
    def test_what_is_harmless_reads_as_it_did(self, text):
        assert escape(text).replace("\\*", "*") == text

    def test_letters_that_are_not_seen_are(self):
        assert plain("a\u202eb\x00\u200dc\n d") == "a\ufffdb\ufffd\u200dc d"


class TestRender:
    def test_sections_nest_and_empty_ones_are_left_out(self):
        document = Document(
            title="A *run*",
            headlines=(
                Headline("Accuracy", ("as good; `run --x` and `*`.", "And _more_.")),
                Headline("Speed", ("none.",)),
            ),
            blocks=("Shared.",),
            sections=(
                Section("One", ("text", ""), (Section("Inner", (Plot(path="plots/x.svg", text="What"),)),)),
                Section("None", ("",), (Section("Neither"),)),
            ),
        )
        assert markdown.render(document) == (
            "# A \\*run\\*\n\n- **Accuracy**\n  - as good; `run --x` and `*`.\n  - And \\_more\\_.\n"
            "- **Speed** none.\n\nShared.\n\n## One\n\ntext\n\n### Inner\n\n![What](plots/x.svg)\n"
        )

    def test_figures_are_linked_to_their_records(self):
        content = Table(name="x", headings=("a",), rows=((Cell("0.7 [0.6, 0.8]", record="r"),), (Cell("b"),)))
        text = markdown.blocks([content], link=lambda record: f"records/{record}.json")
        assert "| [0.7 [0.6, 0.8]](records/r.json) |" in text
        tokens = GITHUB.parse(text)
        links = [child for token in tokens for child in token.children or () if child.type == "link_open"]
        assert [link.attrs["href"] for link in links] == ["records/r.json"]
        assert "](" not in markdown.blocks([content])

    def test_a_backtick_alone_is_no_code(self):
        assert tags(markdown.headlines([Headline("a", ("it's ` alone",))])) & {"code_inline"} == set()


class TestColumns:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("~256.0 noisy", 256.0),
            ("-1.5 [1, 2]", -1.5),
            ("2e-13", 2e-13),
            ("+3", 3.0),
            ("never", None),
            ("", None),
        ],
    )
    def test_a_number_is_found_in_its_text(self, text, number):
        assert first_number(text) == number

    def test_what_a_column_says_of_an_item(self):
        columns = (
            Column[str]("name", lambda item: item, record=lambda item: f"record of {item}"),
            Column[str]("rate", lambda item: f"~{len(item)}.0", number=True),
            Column[str]("own", lambda item: "x", number=True, order=lambda item: -1.0),
        )
        made = table_of("t", ["abc"], columns)
        assert made.headings == ("name", "rate", "own") and made.right == {1, 2}
        assert made.rows == ((Cell("abc", None, "record of abc"), Cell("~3.0", 3.0), Cell("x", -1.0)),)
