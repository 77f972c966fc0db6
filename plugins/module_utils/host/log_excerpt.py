"""What of a long log is shown, and what in it says why: the last lines of a start, its tracebacks whole.

Processes of a unit write at the same time, so lines are put together by the process that wrote them. A traceback is
known by its heading; frames, chained exceptions, exception groups and the exception's own text follow it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import log_signs

#: Lines of the last traceback; of all tracebacks together; of what else was logged.
TRACEBACK_LINES, ALL_TRACEBACK_LINES, OTHER_LINES = 60, 90, 20
#: Lines of an exception's own text, and characters of the reason that is made of it.
TEXT_LINES, CAUSE_SIZE = 20, 300
HEADING = "Traceback (most recent call last)"
CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
#: How the program ended, not why: where a log has another exception, that one is the reason.
_ENDINGS = re.compile(r"(?:[\w.]+\.)?(?:KeyboardInterrupt|SystemExit|CancelledError)\b")
#: With this, gunicorn ends where a worker did not boot; why it did not is elsewhere.
_HALT = re.compile(r"gunicorn\.errors\.HaltServer\b")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: A frame, or what belongs to one: indented, or drawn by rich or loguru.
_FRAME = re.compile(r"[ \t>│╭╰├└]")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?::|$)")
#: What programs write before a message: gunicorn, uvicorn, logging's usual formats, one JSON object a line.
_LOGGED = re.compile(r"\[?\d{4}-\d\d-\d\d|\[\d+\] |\[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|\{")
_MARGIN = re.compile(r"\s+(?:\| ?|\+ |\+-[-+ .\d]*$)|\s+\|$")
_GROUP = "Exception Group Traceback"
_VALIDATION = re.compile(r"\d+ validation errors? for ")
#: What the servers log before the traceback of an exception that an app has let through: uvicorn's, gunicorn's.
_IN_REQUEST = re.compile(r"(?:Exception|Error) in ASGI application")


@dataclass(frozen=True)
class Entry:
    """A line of a log, and the process that wrote it: 1 is systemd, 0 where that is not known."""

    pid: int
    text: str


@dataclass(frozen=True)
class Excerpt:
    """What is shown of a log.

    cause: the last exception, "" where none was logged. of_request: the last one that ended a request. own_server: that
    the app's module starts a server by itself, where the log shows one. last_line: what the app itself printed last,
    not its server. death: what the server said of the last worker that had ended. starting: how far the workers' own
    start has come, "" where the server does not tell. ended: how systemd says that the main process ended, "" where it
    does not. by_result: that this is the unit's own result (endings.BY_RESULT).
    """

    lines: tuple[str, ...] = ()
    cause: str = ""
    of_request: str = ""
    own_server: str = ""
    last_line: str = ""
    death: str = ""
    starting: str = ""
    ended: str = ""
    by_result: bool = False


@dataclass(frozen=True)
class _Block:
    """A traceback: where it begins and ends (exclusive) among the lines of its process, and what it comes to."""

    start: int
    end: int
    cause: str

    def ended_a_request(self, lines: Sequence[str]) -> bool:
        """Return whether its server says so, above it or on the line with its heading."""
        return any(map(_IN_REQUEST.search, lines[max(0, self.start - 2) : self.start + 1]))


def plain(text: str) -> str:
    """Return a text without what would move a terminal's cursor or change its colours."""
    return _CONTROL.sub("", _ESCAPES.sub("", text))


def expanded(line: str) -> list[str]:
    """Return the lines that a line stands for: a JSON log has a whole traceback as one text."""
    if not line.startswith("{") or HEADING not in line:
        return [line]
    try:
        values = json.loads(line).values()
    except (ValueError, AttributeError, RecursionError):
        return [line]
    return [part for value in values if isinstance(value, str) for part in value.splitlines()]


def excerpt(entries: Iterable[Entry], ended: str = "") -> Excerpt:
    """Choose what is shown of a log: its last lines, and the last of its tracebacks whole, in the order of the log."""
    rows = list(entries)
    places: dict[int, list[int]] = {}
    for place, entry in enumerate(rows):
        places.setdefault(entry.pid, []).append(place)
    found: list[tuple[list[int], str]] = []
    of_request: list[tuple[int, str]] = []
    for own in places.values():
        lines = [rows[place].text for place in own]
        blocks = _blocks(lines)
        found += [(own[block.start : block.end], block.cause) for block in blocks]
        of_request += [(own[block.end - 1], block.cause) for block in blocks if block.ended_a_request(lines)]
    found.sort(key=lambda block: block[0][-1])
    inside = {place for block, _unused in found for place in block}
    # A traceback without its exception, where a process has no more lines: the log was read while it was written.
    ends = {own[-1] for own in places.values()}
    others = [place for place in range(len(rows)) if place not in inside]
    shown: dict[int, list[str]] = {place: [rows[place].text] for place in others[-OTHER_LINES:]}
    for block in _chosen([block for block in found if block[1] or block[0][-1] not in ends] or found):
        shown[block[-1]] = _shortened([rows[place].text for place in block])
    texts = [row.text for row in rows]
    causes = [cause for _unused, cause in found if cause]
    said = [rows[place].text for place in others if rows[place].pid != 1 and _is_said(rows[place].text)]
    return Excerpt(
        lines=tuple(line for place in sorted(shown) for line in shown[place]),
        cause=_last(causes),
        of_request=_last([cause for _unused, cause in sorted(of_request) if cause]),
        own_server=log_signs.own_server(texts),
        last_line=cut(said[-1].strip()) if said else "",
        death=log_signs.death(texts),
        starting=log_signs.starting(texts),
        ended=ended,
    )


def of_output(output: str) -> Excerpt:
    """Return the excerpt of what one program printed."""
    return excerpt(Entry(0, line) for text in output.splitlines() for line in expanded(plain(text)))


def last_exception(entries: Iterable[Entry]) -> str:
    """Return the last exception that a unit logged, as `RuntimeError: no database`; "" where it logged none."""
    return excerpt(entries).cause


def _is_said(line: str) -> bool:
    return bool(line.strip()) and not _LOGGED.match(line)


def _last(causes: Sequence[str]) -> str:
    told = [cause for cause in causes if not _HALT.match(cause)]
    meant = [cause for cause in told if not _ENDINGS.match(cause)]
    cause = next(iter([*reversed(meant), *reversed(told)]), "")
    return f"{cause}{log_signs.meaning(cause)}"


def _chosen(found: Sequence[tuple[list[int], str]]) -> list[list[int]]:
    """Return the tracebacks that are shown: of those that say the same the last one; the newest, as far as they fit."""
    left, seen, chosen = ALL_TRACEBACK_LINES, set(), []
    for block, cause in reversed(found):
        size = min(len(block), TRACEBACK_LINES)
        if cause not in seen and size <= left:
            seen.add(cause)
            chosen.append(block)
            left -= size
    return chosen


def _shortened(lines: list[str]) -> list[str]:
    """Return a traceback with its heading and its last lines: those are nearest to what went wrong."""
    if len(lines) <= TRACEBACK_LINES:
        return lines
    kept = TRACEBACK_LINES - 2
    return [lines[0], f"  … {len(lines) - 1 - kept} lines of this traceback are left out here …", *lines[-kept:]]


def cut(text: str) -> str:
    """Return a text as long as a reason may be."""
    return text if len(text) <= CAUSE_SIZE else f"{text[:CAUSE_SIZE]} …"


def _blocks(lines: list[str]) -> list[_Block]:
    """Find the tracebacks among the lines of one process."""
    blocks, at = [], 0
    while at < len(lines):
        if HEADING in lines[at]:
            blocks.append(_Reader(lines, at).block())
            at = blocks[-1].end
        else:
            at += 1
    return blocks


class _Reader:
    """Reads one traceback, with what is chained to it."""

    def __init__(self, lines: list[str], start: int) -> None:
        self.lines, self.start, self.at = lines, start, start
        self.in_group = _GROUP in lines[start]
        #: What a formatter puts before each line, where it does.
        before = lines[start].partition(HEADING)[0]
        repeats = before.strip() and start + 1 < len(lines) and lines[start + 1].startswith(before)
        self.prefix = before if repeats and not self.in_group else ""
        self.group = self.cause = ""

    def block(self) -> _Block:
        """Read to the end of the traceback."""
        while self.at < len(self.lines) and HEADING in self.lines[self.at]:
            is_group = _GROUP in self.lines[self.at]
            self.in_group = is_group or (self.in_group and _MARGIN.match(self.lines[self.at]) is not None)
            self.at += 1
            self._exception(is_group)
            self._chain()
        return _Block(self.start, self.at, self.cause)

    def _line(self) -> str | None:
        """Return the present line without prefix and margin, None behind the last one."""
        if self.at >= len(self.lines):
            return None
        line = self.lines[self.at]
        if self.in_group and not _MARGIN.match(line):
            return None
        line = _MARGIN.sub("", line, count=1) if self.in_group else line
        return line.removeprefix(self.prefix)

    def _exception(self, is_group: bool) -> None:
        """Read the frames and the exception's text; keep what it says."""
        while (line := self._line()) is not None and HEADING not in line and (not line.strip() or _FRAME.match(line)):
            self.at += 1
        if line is None or not _EXCEPTION.match(line):
            return
        text = [line]
        self.at += 1
        while (line := self._line()) is not None and line.strip() and self._continues(line, text):
            text.append(line)
            self.at += 1
        said = _said(text)
        if is_group:
            self.group = said
        self.cause = cut(f"{self.group}: {said}" if self.in_group and not is_group and self.group else said)

    @staticmethod
    def _continues(line: str, text: list[str]) -> bool:
        return HEADING not in line and not _LOGGED.match(line) and len(text) < TEXT_LINES

    def _chain(self) -> None:
        """Go to the heading that follows by a chain, or inside a group; where none does, to the traceback's end."""
        chained = self.in_group
        for ahead in range(self.at, min(self.at + 5, len(self.lines))):
            line = self.lines[ahead].removeprefix(self.prefix)
            line = (_MARGIN.sub("", line, count=1) if self.in_group else line).strip()
            if HEADING in line and chained:
                self.at = ahead
                return
            chained = chained or line in CHAINED
            if line and line not in CHAINED:
                break
        while self.in_group and self.at < len(self.lines) and _MARGIN.match(self.lines[self.at]):
            self.at += 1


def _said(text: list[str]) -> str:
    """Return an exception's text as one line: its first one, and more where that alone says nothing."""
    first = text[0].strip()
    if _VALIDATION.search(first):
        rest = [line.strip() for line in text[1:] if "For further information visit" not in line]
        return " ".join([first, *rest])
    return " ".join([first, *(line.strip() for line in text[1:2])]) if first.endswith(":") else first
