"""What a log has of exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEADING = "Traceback (most recent call last)"
#: A frame, or what belongs to one.
_FRAME = re.compile(r"\s|$")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(:|$)")
#: How the program ended, not why: where a log has another exception, that one is the reason.
_ENDING = re.compile(r"([\w.]+\.)?(KeyboardInterrupt|SystemExit|CancelledError|HaltServer)\b")


def last_exception(lines: Iterable[str]) -> str:
    """Return the last line of the last traceback in a log, as `RuntimeError: no database`; "" where it has none."""
    found, inside = [""], False
    for line in lines:
        if _HEADING in line:
            inside = True
        elif inside and not _FRAME.match(line):
            found += [line.strip()] if _EXCEPTION.match(line) else []
            inside = False
    reasons = [line for line in found if line and not _ENDING.match(line)]
    return reasons[-1] if reasons else found[-1]
