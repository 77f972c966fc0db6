"""Which texts of an environment file are secrets: docs/security.md, "What is masked"."""

from __future__ import annotations

import functools
import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

#: So many characters make a value a secret: where its name says so, of letters and others, of letters only.
LEAST_NAMED, LEAST_MIXED, LEAST_LETTERS = 4, 6, 8
#: Digits make a secret only where the name says so; fewer are a port, a size or a time.
LEAST_DIGITS = 6
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

#: The words of a name: API_KEY, apiKey, APIKey, API_KEYs, api-key.
_WORD = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+")
#: What says in any place of a name that its value is a secret, and which words of it do.
_SAYS = re.compile(r"PASS|PWD|SECRET|TOKEN|CREDENTIAL")
_WORDS = re.compile(
    r"(?!(?:MON|DON|TUR|HOC|JOC|WHIS)KEY)[A-Z]*KEYS?|KEY(?:PAIR|PHRASE|RING|SET|DATA|MATERIAL)S?"
    r"|[A-Z]*AUTH(?!OR(?!I[SZ]))[A-Z]*|SIGN(?:ING|ATURE|ER|ED)?S?|(?!BASALT)[A-Z]*SALTS?"
    r"|[A-Z]*COOKIES?|[A-Z]*DSNS?|PRIVATE[A-Z]*|CREDS?|PW"
)
#: A name that ends so tells of a secret, but its value is none.
_ABOUT = frozenset({
    "NAME", "USER", "USERNAME", "MODE", "TYPE", "PATH", "FILE", "DIR", "REALM", "TTL", "HOST", "HOSTS", "HOSTNAME",
    "DOMAIN", "PORT", "MODULE", "CLASS", "BACKEND", "HEADER", "ALGORITHM", "ARN", "SECONDS", "MINUTES", "HOURS", "DAYS",
})  # fmt: skip
_HOSTS = re.compile(
    r"\.?[\w-]{1,63}(?:\.[\w-]{1,63})*(?::\d{1,5})?(?:, ?\.?[\w-]{1,63}(?:\.[\w-]{1,63})*(?::\d{1,5})?)*"
)
_MODULE = re.compile(r"\w{1,63}(?:\.\w{1,63})*(?::\w{1,63})?")
#: A name that ends so, and what its value is then to look like to be shown.
_SHOWN = {"HOST": _HOSTS, "HOSTS": _HOSTS, "HOSTNAME": _HOSTS, "DOMAIN": _HOSTS, "MODULE": _MODULE}
_PATH = re.compile(r"(?:/[\w.@~-]+)+/?")
#: A component of a path that may have been drawn at random, as in the address of a webhook.
_RANDOM = re.compile(r"(?=.{20})(?:.*\d|(?=.*[a-z]).*[A-Z])")

#: NAME=, texts in quotes one after another (the last may lack its end), and the rest of the line.
_ASSIGNMENT = re.compile(
    r"""^[ \t]*([A-Za-z_]\w*)[ \t]*="""
    r"""((?:[ \t]*(?:"(?:\\[\s\S]|[^"\\])*(?:"|\\?\Z)|'[^']*(?:'|\Z)))*)[ \t]*((?:\\[\s\S]|[^\\\n\r])*)""",
    re.MULTILINE,
)
_QUOTED = re.compile(r""""((?:\\[\s\S]|[^"\\])*)"?|'([^']*)'?""")
#: NAME=VALUE inside a value: a query string, a connection string of libpq or ODBC.
_INNER = re.compile(r"""(?<![\w.-])([A-Za-z_][\w.-]*)\s*=\s*("[^"]*"|'[^']*'|[^\s,;&"']+)""")
_FRAME = " \t\r\n\"'()[]{}"


def values(text: str) -> Iterator[tuple[str, str]]:
    """Return names and values of an environment file, as systemd reads it (systemd.exec(5), EnvironmentFile=)."""
    for name, quoted, bare in _ASSIGNMENT.findall(text):
        parts = [_unescaped(double, r'["\\`$\n]') + single for double, single in _QUOTED.findall(quoted)]
        yield name, "".join(parts) + _unescaped(bare, r"[\s\S]").strip()


def _unescaped(text: str, escaped: str) -> str:
    """Return a text without backslashes before these characters; a line break behind one goes, too.

    In one pass: of two backslashes before a line break, the first one belongs to the second.
    """
    return re.sub(rf"\\({escaped})", lambda match: match[1].strip("\n"), text)


@functools.lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(word.upper() for word in _WORD.findall(name))


def is_named(name: str) -> bool:
    """Return whether a name says that its value is a secret."""
    words = _words(name)
    if not words or words[-1] in _ABOUT:
        return False
    return bool(_SAYS.search(name.upper())) or any(map(_WORDS.fullmatch, words))


def is_secret(name: str, value: str, public: frozenset[str] = frozenset()) -> bool:
    """Return whether a value is looked for at all; `public` are values that are shown elsewhere, as the app's name."""
    named = is_named(name)
    if value.lower() in COMMON or value in public or _is_place(name, value, named):
        return False
    if _DIGITS.fullmatch(value):
        return named and len(value) >= LEAST_DIGITS
    if named:
        return len(value) >= LEAST_NAMED
    return len(value) >= (LEAST_LETTERS if value.isalpha() else LEAST_MIXED)


def _is_place(name: str, value: str, named: bool) -> bool:
    """Return whether a value says where something is: a path, or what the name says is a host or a module.

    Of these an error tells which one is missing: without them, its cause could not be read.
    """
    if value.startswith("/"):
        plain = _PATH.fullmatch(value) and not any(map(_RANDOM.match, value.split("/")))
        return os.path.exists(value) or (not named and bool(plain))
    looks = _SHOWN.get((_words(name) or ("",))[-1])
    return looks is not None and looks.fullmatch(value) is not None


def parts(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Return a value, and what an app might print of it alone, each with the name to judge it by."""
    value = value.strip()
    yield name, value
    lines = _lines(value)
    yield from ((name, line) for line in lines)
    leaves = _leaves(name, value) if value[:1] in ("{", "[") else []
    for key, leaf in leaves:
        yield from parts(name if is_named(name) else key, leaf)
    inner = [(key, text.strip("\"'")) for key, text in _INNER.findall(value) if is_named(key)]
    if is_named(name) and not leaves:
        marks = ":" if inner else ":="
        yield from ((name, part) for line in lines[1:] or [value] for part in _listed(line, marks))
    yield from (("PASSWORD", each) for secret in _logins(value) for each in (secret, urllib.parse.unquote(secret)))
    yield from ((key, each) for key, text in inner for each in (text, urllib.parse.unquote_plus(text)))


def _lines(value: str) -> list[str]:
    r"""Return a value of several lines with plain line breaks, and each of its lines.

    `\n` may stand for a line break, as in a PEM file that was put in one line.
    """
    text = value.replace("\\r", "\r").replace("\\n", "\n").replace("\r\n", "\n")
    lines = text.splitlines()
    if lines in ([], [value]):
        return []
    return [text, *(line.strip() for line in lines if not line.startswith(("-----BEGIN ", "-----END ")))]


def _leaves(name: str, value: str) -> list[tuple[str, str]]:
    """Return the texts in a JSON value with their keys, as in the key file of a cloud account."""
    leaves: list[tuple[str, str]] = []
    try:
        pending: list[tuple[str, Any]] = [(name, json.loads(value))]
    except (ValueError, RecursionError):
        return leaves
    while pending:
        key, one = pending.pop()
        if isinstance(one, dict):
            pending += one.items()
        elif isinstance(one, list):
            pending += [(key, each) for each in one]
        elif isinstance(one, str):
            leaves.append((key, one))
    return leaves


def _listed(line: str, marks: str) -> Iterator[str]:
    """Return the entries of a list, and of NAME:SECRET what follows a mark, and what is between two of them."""
    for entry in re.split(r"[,;]", line):
        bare = entry.strip(_FRAME)
        yield entry.strip()
        yield bare
        for mark in "" if "://" in entry else marks:
            _unused, *pieces = bare.split(mark)
            yield from (piece.strip(_FRAME) for piece in {mark.join(pieces), *pieces})


def _logins(value: str) -> Iterator[str]:
    """Return the passwords of URLs; of a login without one, the user, which is a token then."""
    # Up to the last @, too: some write a password into a URL as it is.
    found = [*re.findall(r"://([^\s/?#@]*)@", value), *re.findall(r"://([^\s/?#]*)@", value)]
    for login in filter(None, [*found, value.partition("://")[2].rpartition("@")[0]]):
        user, colon, password = login.partition(":")
        yield password if colon else user
