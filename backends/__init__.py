"""The backends that exist: every folder here is one, and each says who it is without importing its
framework."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from functools import cache

from backends.base import Backend, BackendInfo, UsageError


@cache
def known() -> dict[str, BackendInfo]:
    """Every backend's card by name, in order of name."""
    folders = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    cards = [importlib.import_module(f"{__name__}.{folder}").INFO for folder in folders]
    return {card.name: card for card in cards}


def resolve(name: str) -> BackendInfo:
    """The card behind a name or an alias.

    Raises:
        UsageError: names the backends there are.
    """
    for card in known().values():
        if name == card.name or name in card.aliases:
            return card
    names = ", ".join("/".join((card.name, *card.aliases)) for card in known().values())
    raise UsageError(f"no backend '{name}'; there are: {names}")


def installed(card: BackendInfo) -> bool:
    """Whether this interpreter could import the framework; it is not imported."""
    return importlib.util.find_spec(card.module) is not None


def version(card: BackendInfo) -> str:
    """Version of the framework installed in this interpreter.

    Raises:
        UsageError: it is not installed.
    """
    for distribution in card.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise UsageError(f"{card.title} is not installed here; `pip install '.[{card.extra}]'` installs it")


def load(card: BackendInfo) -> type[Backend]:
    """Import the framework and return its backend class."""
    module = importlib.import_module(f"{__name__}.{card.name}.backend")
    backend: type[Backend] = module.FrameworkBackend
    return backend
