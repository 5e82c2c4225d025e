"""The page in a browser: it sorts and filters, fits on a phone, and is legible in light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is in the page's environment only: tox run -e test-page")
pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from playwright.sync_api import expect, sync_playwright

from benchmarks.report import illustrations, page
from benchmarks.report.document import Cell, Document, Headline, Section, Table
from tests.benchmarks.report.documents import document_of

pytestmark = pytest.mark.once

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CONTRAST = 4.5
"""Of text on its ground: WCAG 2.2, level AA, 1.4.3."""
GRAPHICS = 3.0
"""Of what a picture is understood by: 1.4.11."""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
RATES = ("~9.0", "100.0 noisy", "20.0 [19.0, 21.0]", "never", "-1.0")
ORDERS = (9.0, 100.0, 20.0, None, -1.0)
SORTED = ["never", "-1.0", "~9.0", "20.0 [19.0, 21.0]", "100.0 noisy"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        # A sandbox is refused to root, which a container's user often is; what is opened is our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def table_document() -> Document:
    """A table that is large enough to be filtered, and wider than a phone."""
    rows = [(Cell(f"name {number}"), Cell(text, order), Cell("word " * 12)) for number, (text, order) in
            enumerate(zip(RATES, ORDERS, strict=True))]  # fmt: skip
    rows += [(Cell(f"filler {number}"), Cell("500.0", 500.0 + number), Cell("x")) for number in range(8)]
    table = Table(name="Rates", headings=("name", "rate", "reason"), rows=tuple(rows), right=frozenset({1}))
    return Document(
        title="x",
        headlines=(Headline("Speed", ("None is faster.",)),),
        sections=(Section("Rates", (table,)),),
    )


@pytest.fixture
def of_a_run(a_run, tmp_path) -> str:
    records, measured = a_run
    document = document_of(records, measured)
    plots = illustrations.draw(records, measured)
    return written(tmp_path, page.render(document, records=records, plots=plots, link=address))


@pytest.fixture
def of_a_table(tmp_path) -> str:
    return written(tmp_path, page.render(table_document(), records=(), plots={}, link=address))


def address(identity: str) -> str:
    return f"records/{identity}.json"


def written(folder: Path, html: bytes) -> str:
    path = folder / "report.html"
    path.write_bytes(html)
    return path.as_uri()


class Opened:
    """A page, and what it said and asked for while it was open."""

    def __init__(
        self, browser, url: str, *, viewport=DESK, scheme: str = "light", script: bool = True
    ) -> None:
        self.context = browser.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=script, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        if script:
            self.page.wait_for_selector("html[data-ready]", state="attached")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def column(self, number: int) -> list[str]:
        return self.page.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_is_complained_of_and_nothing_fetched(chromium, of_a_run, viewport, scheme):
    with Opened(chromium, of_a_run, viewport=viewport, scheme=scheme) as opened:
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [of_a_run]


def test_what_a_record_brings_is_not_run(chromium, tmp_path):
    """The policy holds even for what got into the page."""
    html = page.render(table_document(), records=(), plots={}, link=address)
    evil = b"<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script></main>"
    url = written(tmp_path, html.replace(b"</main>", evil, 1))
    with Opened(chromium, url) as opened:
        opened.page.wait_for_load_state("load")
        assert opened.page.title().startswith("x")
        assert any("Content Security Policy" in text for text in opened.said)


class TestSorting:
    def test_by_click(self, chromium, of_a_table):
        with Opened(chromium, of_a_table) as opened:
            heading = opened.page.locator("th", has_text="rate")
            assert heading.get_attribute("aria-sort") is None
            heading.click()
            expect(heading).to_have_attribute("aria-sort", "ascending")
            assert opened.column(2)[: len(SORTED)] == SORTED
            heading.click()
            expect(heading).to_have_attribute("aria-sort", "descending")
            assert opened.column(2)[-len(SORTED) :] == SORTED[::-1]

    def test_by_keyboard(self, chromium, of_a_table):
        with Opened(chromium, of_a_table) as opened:
            heading = opened.page.locator("th", has_text="rate")
            for _ in range(30):
                opened.page.keyboard.press("Tab")
                if heading.evaluate("element => element.contains(document.activeElement)"):
                    break
            assert heading.evaluate("element => element.contains(document.activeElement)")
            opened.page.keyboard.press("Enter")
            expect(heading).to_have_attribute("aria-sort", "ascending")
            assert opened.column(2)[: len(SORTED)] == SORTED

    def test_texts_as_texts(self, chromium, of_a_table):
        with Opened(chromium, of_a_table) as opened:
            before = opened.column(1)
            heading = opened.page.locator("th", has_text="name")
            heading.click()
            expect(heading).to_have_attribute("aria-sort", "ascending")
            assert opened.column(1) == sorted(before) != before


def test_rows_are_filtered_and_counted(chromium, of_a_table):
    with Opened(chromium, of_a_table) as opened:
        opened.page.get_by_role("searchbox", name="Filter rows: Rates").fill("noisy")
        expect(opened.page.get_by_role("status")).to_have_text("1 of 13 rows")
        assert opened.column(2) == ["100.0 noisy"]
        opened.page.get_by_role("searchbox").fill("")
        expect(opened.page.get_by_role("status")).to_have_text("")
        assert len(opened.column(2)) == 13


def test_a_figure_leads_to_its_record(chromium, of_a_run):
    with Opened(chromium, of_a_run) as opened:
        link = opened.page.locator("td a[href^='#record-']").first
        name = link.get_attribute("href")[1:]
        record = opened.page.locator(f"[id='{name}']")
        assert not record.evaluate("element => element.open")
        link.click()
        opened.page.wait_for_function("id => document.getElementById(id).open", arg=name)
        assert record.locator("dl").is_visible()
        assert record.evaluate("element => element.contains(document.activeElement)")


def test_the_first_stop_of_the_keyboard_skips_to_the_verdicts(chromium, of_a_run):
    with Opened(chromium, of_a_run) as opened:
        opened.page.keyboard.press("Tab")
        skip = opened.page.locator(".skip")
        assert skip.evaluate("element => element === document.activeElement")
        box = skip.bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0
        assert skip.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_function("() => location.hash === '#main'")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_phone_scrolls_down_only(chromium, of_a_run, of_a_table, script):
    for url in (of_a_run, of_a_table):
        with Opened(chromium, url, viewport=PHONE, script=script) as opened:
            width = opened.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"]


def test_a_wide_table_is_scrolled_by_itself_and_by_keyboard(chromium, of_a_table):
    with Opened(chromium, of_a_table, viewport=PHONE) as opened:
        region = opened.page.get_by_role("region", name="Table: Rates")
        assert region.evaluate("element => element.scrollWidth > element.clientWidth")
        opened.page.wait_for_function("() => document.querySelector('.scroll').tabIndex === 0")
        region.focus()
        opened.page.keyboard.press("ArrowRight")
        opened.page.wait_for_function("() => document.querySelector('.scroll').scrollLeft > 0")


def test_a_table_that_fits_is_no_stop_of_the_keyboard(chromium, of_a_table):
    with Opened(chromium, of_a_table) as opened:
        opened.page.wait_for_function("() => document.querySelector('.scroll').tabIndex === -1")


def test_without_scripts_everything_is_there(chromium, of_a_run):
    with Opened(chromium, of_a_run) as opened:
        rows = opened.page.locator("tbody tr").count()
    with Opened(chromium, of_a_run, script=False) as opened:
        assert opened.page.locator("tbody tr").count() == rows > 10
        assert opened.page.locator("tbody tr").first.is_visible()
        assert opened.page.locator("svg").first.is_visible()
        opened.page.locator("details.record summary").first.click()
        assert opened.page.locator("details.record dl").first.is_visible()


# --- Contrast -------------------------------------------------------------------------------------

COLOURS = """() => {
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)|transparent/.test(color)) return color;
    }
    return 'none';
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest('script, title')) continue;
    const style = getComputedStyle(element), drawn = element.closest('svg');
    const ink = drawn ? style.fill : style.color;
    found[`${element.tagName} ${element.className.baseVal ?? element.className}`] = [ink, ground(element)];
  }
  for (const element of document.querySelectorAll('svg path[style*=stroke]')) {
    const ink = getComputedStyle(element).stroke;
    const whole = getComputedStyle(element).strokeOpacity === '1';
    if (ink !== 'none' && whole) found[`line ${ink}`] = [ink, ground(element)];
  }
  return found;
}"""
"""Of every kind of element with text, and of every line that is drawn: its colour, and that of its ground."""
HATCHING = "rgb(51, 51, 51)"
"""It lies on the tones of a plot's bars, and not on the page."""


def luminance(color: str) -> float:
    """WCAG 2.2's relative luminance of `rgb(r, g, b)`."""
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, ground: str) -> float:
    lighter, darker = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_the_standard_does():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_legible(chromium, of_a_run, scheme):
    with Opened(chromium, of_a_run, scheme=scheme) as opened:
        opened.page.locator("details.record summary").first.click()
        found = opened.page.evaluate(COLOURS)
    kinds = {kind.split(" ")[0] for kind in found}
    assert {"H1", "H2", "DT", "DD", "P", "TD", "TH", "A", "CODE", "SUMMARY", "text", "line"} <= kinds
    faint = {
        kind: colours
        for kind, colours in found.items()
        if colours[0] != HATCHING and contrast(*colours) < (GRAPHICS if kind.startswith("line") else CONTRAST)
    }
    assert not faint
    lightest = max(luminance(ground) for _, ground in found.values())
    assert lightest > 0.9 if scheme == "light" else lightest < 0.1
