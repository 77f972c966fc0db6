"""What a log has of exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEADING = "Traceback (most recent call last)"
#: A frame, or what belongs to one.
_FRAME = re.compile(r"\s|$")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(:|$)")


def last_exception(lines: Iterable[str]) -> str:
    """Return the last line of the last traceback in a log, as `RuntimeError: no database`; "" where it has none."""
    last, inside = "", False
    for line in lines:
        if _HEADING in line:
            inside = True
        elif inside and not _FRAME.match(line):
            last = line.strip() if _EXCEPTION.match(line) else last
            inside = False
    return last
