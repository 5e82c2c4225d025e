"""An SVG file as a part of an HTML page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec
from markupsafe import Markup

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
WIDE = 460
"""Points: a wider picture stands by itself, and is scrolled on a phone."""
REFERENCE = re.compile(r"url\(#([^)]+)\)")


class Picture(msgspec.Struct, frozen=True):
    """A plot within the page."""

    markup: Markup
    wide: bool


def picture(svg: bytes, *, name: str, text: str) -> Picture:
    """The same picture with names of its own, that begin with `name`, without the style sheet that it has as
    a file, and with a title for who cannot see it."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    used = set(_references(root))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{name}-{identity}")
        for key, value in element.attrib.items():
            if key == f"{{{XLINK}}}href":
                element.set(key, f"#{name}-{value[1:]}")
            else:
                element.set(key, REFERENCE.sub(rf"url(#{name}-\1)", value))
    width = float(root.attrib["width"].removesuffix("pt"))
    del root.attrib["height"]
    root.attrib |= {"width": f"{width:g}pt", "role": "img", "aria-labelledby": f"{name}-title"}
    title = ElementTree.Element(f"{{{SVG}}}title", {"id": f"{name}-title"})
    title.text = text
    root.insert(0, title)
    markup = ElementTree.tostring(root, encoding="unicode")
    return Picture(Markup(SPACE.sub("><", markup)), width > WIDE)


# --- How ------------------------------------------------------------------------------------------


SPACE = re.compile(r">\s+<")


def _references(root: ElementTree.Element) -> list[str]:
    found: list[str] = []
    for element in root.iter():
        for key, value in element.attrib.items():
            found += [value[1:]] if key == f"{{{XLINK}}}href" else REFERENCE.findall(value)
    return found
