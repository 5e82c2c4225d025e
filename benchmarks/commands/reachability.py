"""Whether addresses answer: all asked at once, and none waited for longer than a few seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from http.client import HTTPException, HTTPMessage
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from backends.base import one_line

PATIENCE = 4.0
"""Seconds until all have answered or are given up. A name server alone may take longer to say that there is
no network."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking for the file at an address."""

    url: str
    reached: bool
    """It is there."""
    text: str
    """In a few words."""
    bytes: int | None = None
    """The file's size, where the server tells it."""


def ask(urls: Iterable[str], patience: float = PATIENCE) -> tuple[Answer, ...]:
    """Ask for the first byte of each file."""
    answers: dict[str, Answer] = {}

    def note(url: str) -> None:
        answers[url] = _ask(url, patience)

    # Not a pool, which would wait at the end of the process for whoever never answers.
    asking = [threading.Thread(target=note, args=(url,), daemon=True) for url in dict.fromkeys(urls)]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    answered = dict(answers)
    return tuple(answered.get(url) or _unreached(url, _silence(patience)) for url in urls)


def _ask(url: str, patience: float) -> Answer:
    # GET, since this is what the loaders will send; not every server knows HEAD.
    try:
        with urlopen(Request(url, headers={"Range": "bytes=0-0"}), timeout=patience) as response:
            if response.headers.get_content_type() == "text/html":
                return _unreached(url, "a web page instead of the file: a log-in, or a proxy?")
            return Answer(url=url, reached=True, text="reachable", bytes=_size(response.headers))
    except HTTPError as error:
        return _unreached(url, f"HTTP {error.code} {error.reason}")
    except (OSError, HTTPException, ValueError) as error:  # a ValueError: what stands there is no address
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return _unreached(url, _silence(patience))
        if isinstance(reason, socket.gaierror):
            return _unreached(url, "no such host, or no network")
        if isinstance(reason, ConnectionRefusedError):
            return _unreached(url, "connection refused")
        return _unreached(url, one_line(reason) if isinstance(reason, BaseException) else str(reason))


def _unreached(url: str, text: str) -> Answer:
    return Answer(url=url, reached=False, text=text)


def _silence(patience: float) -> str:
    return f"no answer within {patience:g} s"


def _size(headers: HTTPMessage) -> int | None:
    """The whole file's, whether the server heeded the range or not."""
    ranged = headers["Content-Range"]
    size = ranged.rpartition("/")[2] if ranged else headers["Content-Length"]
    return int(size) if size and size.isdecimal() else None
