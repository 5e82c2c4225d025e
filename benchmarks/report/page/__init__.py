"""A document as one HTML file that needs nothing else: no network, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from backends.base import BenchmarkError
from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Document, Plot, Section, Table, plain
from benchmarks.report.page.pictures import Picture, picture
from benchmarks.report.page.provenance import anchor, entry
from benchmarks.report.page.tables import view

BUNDLE = ("itables", "html/dt_bundle.js")
"""jQuery and DataTables (MIT), as itables brings them."""


MOST_SENTENCES = 5
"""Of one topic, on the first screen; the others are folded away."""
VERDICT = re.compile(
    r"(equivalent within [\d.]+ (?:points?|%)|(?:higher|lower) by [\d.]+(?: to [\d.]+)?|\bhigher\b"
    r"|[\d.]+ \[[\d.]+, [\d.]+\] x(?= ))"
)
"""The fixed words of what was shown; see `verdicts/words.py`."""
POWER = re.compile(r"(\d+e-\d+)")
"""A number that would be broken at its hyphen."""


class PageError(BenchmarkError):
    """What the page is made of is not as it should be."""


class Anchored(msgspec.Struct, frozen=True):
    """A section with the name by which it is linked to."""

    anchor: str
    section: Section
    inner: tuple[Anchored, ...]


def render(
    document: Document, *, records: Iterable[Record], plots: Mapping[str, bytes], link: Callable[[str], str]
) -> bytes:
    """The page.

    Args:
        records: whose provenance it tells, and which figures are linked to.
        plots: every plot of the document, by its path.
        link: from a record's id to its file.

    Raises:
        PageError: the bundle of scripts has changed its form.
    """
    script = _script()
    environment = Environment(
        loader=PackageLoader("benchmarks.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "prose": _prose,
        "coded": _coded,
        "anchor": anchor,
        "view": view,
    }
    environment.tests |= {"table": _is_table, "plot": _is_plot}
    page = environment.get_template("page.html.jinja").render(
        document=document,
        sections=_anchored(document.sections, set()),
        entries=[entry(record, link(record.cell.id)) for record in records],
        known={record.cell.id for record in records},
        picture=_pictures(plots),
        runs=_runs,
        most=MOST_SENTENCES,
        style=Markup(_own("page.css")),
        script=Markup(script),
        policy=_policy(script),
    )
    return page.encode()


# --- How ------------------------------------------------------------------------------------------


def _is_table(block: object) -> bool:
    return isinstance(block, Table)


def _is_plot(block: object) -> bool:
    return isinstance(block, Plot)


def _runs(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks one by one, but plots that follow upon each other together."""
    together: list[Block] = []
    for block in blocks:
        if not block:
            continue
        if together and not (_is_plot(block) and _is_plot(together[-1])):
            yield together
            together = []
        together.append(block)
    if together:
        yield together


def _anchored(sections: Iterable[Section], taken: set[str]) -> tuple[Anchored, ...]:
    found = []
    for section in sections:
        if section:
            name = re.sub(r"[^a-z0-9]+", "-", section.title.split(":")[0].lower()).strip("-") or "section"
            unique, number = name, 2
            while unique in taken:
                unique, number = f"{name}-{number}", number + 1
            taken.add(unique)
            found.append(Anchored(f"section-{unique}", section, _anchored(section.sections, taken)))
    return tuple(found)


def _coded(text: str) -> Markup:
    """A sentence, with what stands between backticks as code, and numbers in one piece."""
    parts = plain(text).split("`")
    code = len(parts) % 2 == 1
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if code and place % 2 else _whole(part)
        for place, part in enumerate(parts if code else [plain(text)])
    )


def _whole(text: str) -> Markup:
    """Verdicts stand out, and numbers are not broken."""
    shown = (
        Markup("<strong>{}</strong>").format(_unbroken(piece)) if place % 2 else _unbroken(piece)
        for place, piece in enumerate(VERDICT.split(text))
    )
    return Markup("").join(shown)


def _unbroken(text: str) -> Markup:
    shown = (
        Markup('<span class="whole">{}</span>').format(piece) if place % 2 else escape(piece)
        for place, piece in enumerate(POWER.split(text))
    )
    return Markup("").join(shown)


def _pictures(plots: Mapping[str, bytes]) -> Callable[[Plot], Picture]:
    made: dict[str, Picture] = {}

    def of(plot: Plot) -> Picture:
        if plot.path not in made:
            made[plot.path] = picture(plots[plot.path], name=f"plot{len(made) + 1}", text=plain(plot.text))
        return made[plot.path]

    return of


def _prose(text: str) -> Markup:
    """Markdown of our own: what came from a record was escaped when it was put in, and raw HTML, pictures and
    addresses are text here whatever was."""
    reader = MarkdownIt("commonmark", {"html": False}).disable(
        ["image", "autolink", "html_block", "html_inline"]
    )
    return Markup(reader.render(text))


def _own(name: str) -> str:
    return resources.files("benchmarks.report.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """The bundle as a module that exports nothing, and ours behind it.

    Raises:
        PageError: it exports no jQuery, or holds what would end the script.
    """
    package, name = BUNDLE
    bundle = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    exports = re.findall(r"export\s*\{([^{}]*)\}\s*;", bundle)
    jquery = re.search(r"([\w$]+) as jQuery\b", exports[-1]) if exports else None
    script = ""
    if jquery is not None:
        start = bundle.rindex("export", 0, bundle.rindex(exports[-1]))
        end = bundle.index(";", start) + 1
        script = f"{bundle[:start]}const jQuery={jquery[1]};{bundle[end:]}\n{_own('page.js')}"
        # Within a string or a pattern the same, but to a browser no comment, after which it would take the
        # bundle's own "<script" for one more that has to be ended.
        script = script.replace("<!--", "<\\!--")
    if not script or re.search(r"</script", script, re.IGNORECASE):
        raise PageError(f"{package}/{name}: not a bundle that this page can hold; install itables 2.9")
    return script


def _policy(script: str) -> str:
    """Content security: this script, styles within the page, and nothing from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
