"""Hides the values of service_env in text that the app has printed, before it becomes part of a result.

Which values count, and in which forms they are looked for: docs/security.md, "What is masked". The values are those of
every environment file that is kept for the app: the wanted one, both slots' copies, those kept for going back.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

from .config import Config
from .mask_forms import LEAST_PART, forms
from .mask_values import is_secret, parts, values

MASKED = "***"
#: The password in a URL, whoever made the URL: an app puts it together of parts that are too short to be looked for.
#: A quote in it is one; one before what follows a text in quotes ends the URL.
_LOGIN = re.compile(r"""://(?:[^\s/:'"]|['"](?![\s,;:)\]}>]|\Z))*:((?:[^\s/'"]|['"](?![\s,;:)\]}>]|\Z))+)@""")
#: What stands around a line break: nothing, where journald has cut at 48 KiB; quotes and frames, where a program has.
_EDGES = ("\r", " \t\r'\"│┃|\\")
_CUT = re.compile(r"(?:\.{3,}|…)+")
#: Of so many characters of a form, at most, a text of as many is looked up at once; the rest is compared then.
_HEAD = 64


class _Index:
    """Finds any of many forms in a text, in a time that hardly grows with how many they are."""

    def __init__(self, forms: Iterable[str]) -> None:
        #: Forms by their heads; the sizes of heads by what they begin with.
        self._heads: dict[str, list[str]] = {}
        self._sizes: dict[str, set[int]] = {}
        for form in forms:
            head = form[:_HEAD]
            self._heads.setdefault(head, []).append(form)
            self._sizes.setdefault(form[:LEAST_PART], set()).add(len(head))
        self._sorted = sorted(form for each in self._heads.values() for form in each)
        self._longest = max(map(len, self._sorted), default=0)

    def whole(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where forms are."""
        for width in {len(begin) for begin in self._sizes}:
            for at in self._begins(text, width):
                for size in self._sizes[text[at : at + width]]:
                    for form in self._heads.get(text[at : at + size], ()):
                        if text.startswith(form, at):
                            yield at, at + len(form)

    def cut(self, text: str, ends: list[int]) -> Iterator[tuple[int, int]]:
        """Return where beginnings of forms are that end at one of these places, which are in order."""
        for at in self._begins(text, LEAST_PART):
            near = bisect_left(ends, at + LEAST_PART)
            if near < len(ends) and ends[near] <= at + self._longest:
                last = bisect_right(ends, at + self._agrees(text[at : at + self._longest])) - 1
                if last >= near:
                    yield at, ends[last]

    def _begins(self, text: str, width: int) -> list[int]:
        known = self._sizes
        return [at for at in range(len(text) - width + 1) if text[at : at + width] in known]

    def _agrees(self, text: str) -> int:
        """Return with how many characters, at most, the text begins as a form does: one of its neighbours in order."""
        place = bisect_left(self._sorted, text)
        return max(_common(text, form) for form in self._sorted[max(0, place - 1) : place + 1])


class Mask:
    """Replaces secrets in a text by `***`, and leaves the rest as it is."""

    def __init__(self, secrets: Iterable[tuple[str, str]], public: frozenset[str] = frozenset()) -> None:
        plain = {
            part for name, value in secrets for key, part in parts(name, value) if part and is_secret(key, part, public)
        }
        self._forms = {form for part in plain for form in forms(part)}
        self._index = _Index(self._forms)

    def __call__(self, text: str) -> str:
        """Return the text without secrets. One that a line break cuts in two takes the break with it."""
        spans = [*self._whole(text), *self._cut(text), *(match.span(1) for match in _LOGIN.finditer(text))]
        made, end = [], 0
        for start, stop in _merged(spans):
            made += [text[end:start], MASKED]
            end = stop
        return "".join([*made, text[end:]])

    def _whole(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where secrets are, those with a line break inside included."""
        yield from self._index.whole(text)
        for edge in _EDGES if "\n" in text else ():
            joined, starts, places = _joined(text, edge)
            for start, stop in self._index.whole(joined):
                first, last = (bisect_right(starts, place) - 1 for place in (start, stop - 1))
                yield places[first] + start - starts[first], places[last] + stop - starts[last]

    def _cut(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where the beginning of a secret stands before an ellipsis, or its end behind one."""
        ellipses = [match.span() for match in _CUT.finditer(text)]
        if ellipses:
            yield from self._index.cut(text, [start for start, _unused in ellipses])
            # The end of a secret is the beginning of the secret that is read from its end.
            size, backwards = len(text), _Index(form[::-1] for form in self._forms)
            ends = [size - stop for _unused, stop in reversed(ellipses)]
            yield from ((size - stop, size - start) for start, stop in backwards.cut(text[::-1], ends))


def _common(one: str, other: str) -> int:
    """Return with how many characters two texts begin in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _joined(text: str, edge: str) -> tuple[str, list[int], list[int]]:
    """Return the lines as one, without what stands at their edges; where each begins there, and in the text."""
    bare, starts, places = [], [], []
    length = at = 0
    for line in text.split("\n"):
        inner = line.lstrip(edge)
        places.append(at + len(line) - len(inner))
        starts.append(length)
        bare.append(inner.rstrip(edge))
        length += len(bare[-1])
        at += len(line) + 1
    return "".join(bare), starts, places


def _merged(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return places in their order, those that overlap or touch as one: no secret hides the rest of another one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def kept_files(config: Config) -> list[Path]:
    """Return every environment file that is kept for the app: a rollback's log may hold an older secret."""
    return [*config.etc.glob("environment*"), *config.etc.glob("releases/*/environment")]


def mask(config: Config, text: str) -> str:
    """Return what the app has printed, without the values of its environment as it is kept now."""
    secrets: list[tuple[str, str]] = []
    for path in kept_files(config):
        try:
            secrets += values(path.read_bytes().decode("utf-8", "surrogateescape"))
        except OSError:  # pruned meanwhile
            continue
    public = frozenset({config.app, config.user, config.health_host, config.health_path})
    return Mask(secrets, public)(text)
