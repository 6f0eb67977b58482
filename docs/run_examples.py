"""Run the examples of a page and write below each what it prints:  python docs/run_examples.py docs/analysing.md

Run it from the top of the repository when a study that a page quotes was published anew: analysing.md and using.md
have such examples. tests/unit/test_docs.py checks that the pages say what the examples print.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import sys
from pathlib import Path
from typing import Any


def refreshed(page: str) -> str:
    """The page with the outputs that its examples have now."""
    parts: list[str] = []
    names: dict[str, Any] = {}
    for piece in doctest.DocTestParser().parse(page):
        if isinstance(piece, str):
            parts.append(piece)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(piece.source, "<page>", "single"), names)
        first, *more = piece.source.rstrip("\n").split("\n")
        parts += [f">>> {first}\n", *(f"... {line}\n" for line in more)]
        parts += [f"{line.rstrip()}\n" for line in printed.getvalue().rstrip("\n").split("\n") if line]
    return "".join(parts)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
