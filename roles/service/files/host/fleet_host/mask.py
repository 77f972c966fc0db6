"""Hides the values of service_env in text that the app has printed, before it becomes part of a result.

Which values count, and in which forms they are looked for: docs/security.md, "What is masked". The values are those of
every environment file that is kept for the app: the wanted one, both slots' copies, those kept for going back.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.parse
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .config import Config

MASKED = "***"
#: So many characters make a value a secret: where its name says so, of letters and others, of letters only.
LEAST_NAMED, LEAST_MIXED, LEAST_LETTERS = 4, 6, 8
#: Digits make a secret only where the name says so; fewer are a port, a size or a time.
LEAST_DIGITS = 6
#: Of a value in another form, or a part of one that was cut with "...", fewer characters could be anything.
LEAST_PART = 6
#: A name that says that its value is a secret.
NAMED = re.compile(r"PASS|PWD|SECRET|TOKEN|KEY|CREDENTIAL|AUTH|DSN|SALT|SIGN|PRIVATE|COOKIE", re.IGNORECASE)
#: Values that everybody has. Masking these would take the sense out of messages and protect nothing.
COMMON = frozenset({
    "true", "false", "yes", "no", "on", "off", "none", "null", "default", "enabled", "disabled", "auto", "always",
    "production", "prod", "development", "dev", "staging", "stage", "testing", "test", "local", "localhost", "demo",
    "debug", "info", "notice", "warning", "warn", "error", "critical", "fatal", "trace", "verbose", "public", "never",
    "required", "preferred", "optional", "require", "disable", "prefer", "allow", "readonly", "sandbox", "preview",
    "memory", "redis", "postgres", "postgresql", "mysql", "mariadb", "sqlite", "mongodb", "rabbitmq", "kafka",
    "memcached", "celery", "nginx", "gunicorn", "uvicorn", "uvloop", "asyncio", "fastapi", "starlette", "django",
    "sqlalchemy", "python", "python3", "json", "text", "plain", "utf-8", "utf8", "ascii", "internal",
})  # fmt: skip
_DIGITS = re.compile(r"[-+\d.,:_/ ]+")
_ASSIGNMENT = re.compile(
    r"""^[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*(?:"((?:\\[\s\S]|[^"\\])*)"|'([^']*)'|((?:\\[\s\S]|[^\\\n])*))""",
    re.MULTILINE,
)
#: NAME=VALUE inside a value: a query string, a connection string of libpq or ODBC.
_INNER = re.compile(r"""(?<![\w.-])([A-Za-z_][\w.-]*)\s*=\s*("[^"]*"|'[^']*'|[^\s,;&"']+)""")
#: The password in a URL, whoever made the URL: an app puts it together of parts that are too short to be looked for.
_LOGIN = re.compile(r"://[^\s/:@'\"]*:([^\s/@'\"]+)@")
#: What stands around a line break: nothing, where journald has cut at 48 KiB; quotes and frames, where a program has.
_EDGES = ("\r", " \t\r'\"│┃|\\")
_CUT = re.compile(r"\.{3,}|…")


def values(text: str) -> Iterator[tuple[str, str]]:
    """Return names and values of an environment file, as systemd reads it (systemd.exec(5), EnvironmentFile=)."""
    for name, double, single, bare in _ASSIGNMENT.findall(text):
        if double:
            yield name, re.sub(r'\\(["\\`$])', r"\1", double.replace("\\\n", ""))
        else:
            yield name, single or re.sub(r"\\([\s\S])", r"\1", bare).strip()


def is_secret(name: str, value: str, public: frozenset[str] = frozenset()) -> bool:
    """Return whether a value is looked for at all; `public` are values that are shown elsewhere, as the app's name."""
    if value.lower() in COMMON or value in public or (value.startswith("/") and os.path.exists(value)):
        return False
    if _DIGITS.fullmatch(value):
        return bool(NAMED.search(name)) and len(value) >= LEAST_DIGITS
    if NAMED.search(name):
        return len(value) >= LEAST_NAMED
    return len(value) >= (LEAST_LETTERS if value.isalpha() else LEAST_MIXED)


def parts(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Return a value, and what an app might print of it alone, each with the name to judge it by."""
    value = value.strip()
    yield name, value
    lines = value.splitlines()
    if len(lines) > 1:
        yield from ((name, line.strip()) for line in lines if not line.startswith("-----"))
    if value[:1] in ("{", "["):
        yield from _leaves(name, value)
    if NAMED.search(name):
        yield from ((name, part.strip()) for part in re.split(r"[,;]", value))
    # Also up to the last @: some write a password into a URL as it is.
    logins = [*re.findall(r"://([^\s/?#@]*)@", value), value.partition("://")[2].rpartition("@")[0]]
    for login in filter(None, logins):
        user, colon, password = login.partition(":")
        secret = password if colon else user
        yield from (("PASSWORD", each) for each in (secret, urllib.parse.unquote(secret)))
    for inner, text in _INNER.findall(value):
        if NAMED.search(inner):
            yield from ((inner, each) for each in (text.strip("\"'"), urllib.parse.unquote_plus(text.strip("\"'"))))


def _leaves(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Return the texts in a JSON value, as in the key file of a cloud account."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return
    pending: list[tuple[str, Any]] = [(name, found)]
    while pending:
        key, one = pending.pop()
        if isinstance(one, dict):
            pending += one.items()
        elif isinstance(one, list):
            pending += [(key, each) for each in one]
        elif isinstance(one, str):
            yield from ((key, line) for line in {one, *one.splitlines()} if not line.startswith("-----"))


def forms(value: str) -> set[str]:
    """Return a value in the forms in which programs print it."""
    raw = value.encode("utf-8", "surrogateescape")
    # Of a URL: whole, its path, as encodeURIComponent of JavaScript has it, a field of a form.
    quoted = {urllib.parse.quote(raw, safe=safe) for safe in ("", "/", "!'()*")} | {urllib.parse.quote_plus(raw)}
    found = {
        repr(value)[1:-1], repr(raw)[2:-1], ascii(value)[1:-1],
        json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
        *quoted, *(re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in quoted),
        html.escape(value), html.escape(value, quote=False),
        # A shell's: in single quotes, in double quotes, behind backslashes.
        value.replace("'", "'\\''"), value.replace("'", "'\"'\"'"), re.sub(r'(["\\`$])', r"\\\1", value),
        re.sub(r"([^\w@%+=:,./-])", r"\\\1", value),
        raw.hex(), raw.hex().upper(),
    }  # fmt: skip
    # base64 of it, alone and inside of something longer, as in a header of basic authentication: what neither the
    # bytes before nor those behind it have a part in.
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found |= {encode(raw).decode(), encode(raw).decode().rstrip("=")}
        for before in range(3):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            found.add(text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6])
    # Of base64's inner part, too little may be left to tell it from other text.
    return {value} | {form for form in found if len(form) >= min(LEAST_PART, len(value))}


class Mask:
    """Replaces secrets in a text by `***`, and leaves the rest as it is."""

    def __init__(self, secrets: Iterable[tuple[str, str]], public: frozenset[str] = frozenset()) -> None:
        plain = {
            part for name, value in secrets for key, part in parts(name, value) if part and is_secret(key, part, public)
        }
        self._forms = {form for part in plain for form in forms(part)}
        #: What may be cut in its middle: `'postgresql://app:hun...@db/shop'`.
        self._long = {form for part in plain for form in (part, repr(part)[1:-1]) if len(part) > LEAST_PART}

    def __call__(self, text: str) -> str:
        """Return the text without secrets. One that a line break cuts in two takes the break with it."""
        found = [*self._whole(text), *self._cut(text), *(match.span(1) for match in _LOGIN.finditer(text))]
        made, end = [], 0
        for start, stop in _merged(found):
            made += [text[end:start], MASKED]
            end = stop
        return "".join([*made, text[end:]])

    def _whole(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where secrets are, those with a line break inside included."""
        for form in self._forms:
            yield from ((at, at + len(form)) for at in _all(text, form))
        for edge in _EDGES if "\n" in text else ():
            joined, starts, places = _joined(text, edge)
            for form in self._forms:
                for at in _all(joined, form):
                    first, last = (bisect_right(starts, place) - 1 for place in (at, at + len(form) - 1))
                    yield places[first] + at - starts[first], places[last] + at + len(form) - starts[last]

    def _cut(self, text: str) -> Iterator[tuple[int, int]]:
        """Return where the beginning of a secret stands before an ellipsis, or its end behind one."""
        for match in _CUT.finditer(text):
            for form in self._long:
                before = max(0, match.start() - len(form))
                at = text.find(form[:LEAST_PART], before, match.start())
                if at >= 0 and form.startswith(text[at : match.start()]):
                    yield at, match.start()
                at = text.rfind(form[-LEAST_PART:], match.end(), match.end() + len(form))
                if at >= 0 and form.endswith(text[match.end() : at + LEAST_PART]):
                    yield match.end(), at + LEAST_PART


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


def _all(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + len(form))


def _merged(found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return places in their order, those that overlap or touch as one: no secret hides the rest of another one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(found):
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
            secrets += values(path.read_text(encoding="utf-8", errors="surrogateescape"))
        except OSError:  # pruned meanwhile
            continue
    public = frozenset({config.app, config.user, config.health_host, config.health_path})
    return Mask(secrets, public)(text)
