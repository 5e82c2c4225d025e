"""Options as the words of a command line."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.harness.plan import FLAGS, Options


def words_of(options: Options) -> tuple[str, ...]:
    """The command line that means these options, but for `--resume`."""
    usual = Options()
    words: list[str] = []
    for flag in FLAGS:
        value = getattr(options, flag.key)
        if value == getattr(usual, flag.key) or flag.name == "--resume":
            continue
        words.append(flag.name)
        if not flag.switch:
            words.append(",".join(value) if flag.many else str(value))
    return tuple(words)


def asked(options: Options) -> tuple[str, ...]:
    """What of a command line decides the cells, for who wants to run them again: files by their names alone,
    wherever they lay."""
    return words_of(
        msgspec.structs.replace(
            options,
            data=Path(options.data).name,
            weights=options.weights and Path(options.weights).name,
            run=Options().run,
            allow_dirty=False,
            cell_timeout=Options().cell_timeout,
        )
    )
