"""Official ImageNet checkpoints: where each is published, and where its framework's loader keeps it."""

from __future__ import annotations

import os
from pathlib import Path
from string import Template

import msgspec


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An official ImageNet checkpoint: all that is known of it without importing its framework.

    Addresses and files are written with environment variables, as in a shell; of several the first counts
    whose variables are all set.
    """

    architecture: str
    head: bool = True
    """Whether the published 1000-way head is in it."""
    urls: tuple[str, ...] = ()
    """Where the framework's own loader fetches it."""
    files: tuple[str, ...] = ()
    """Where that loader keeps it."""
    package: str = ""
    """What to ask pip for, where a package brings it and there is nothing to fetch."""
    digest: str
    """Of the file: the algorithm, and how its hexadecimal digest begins (`sha256:f37072fd`)."""

    @property
    def url(self) -> str | None:
        """The address that is asked here and now."""
        return _first(self.urls)

    @property
    def file(self) -> Path | None:
        """The file that is looked for here and now."""
        file = _first(self.files)
        return Path(file).expanduser() if file else None


def _first(places: tuple[str, ...]) -> str | None:
    variables = {name: value.rstrip("/") for name, value in os.environ.items() if value}
    for place in places:
        try:
            return Template(place).substitute(variables)
        except KeyError:
            continue
    return None
