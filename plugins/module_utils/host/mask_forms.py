"""The forms in which programs print a value."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator

#: Of a value in another form, or a part of one that was cut with "...", fewer characters could be anything.
LEAST_PART = 6


def forms(value: str) -> set[str]:
    """Return a value in the forms in which programs print it."""
    raw = value.encode("utf-8", "surrogateescape")
    found = {
        *_of_python(value, raw), *_of_json(value), *_of_html(value), *_of_urls(raw), *_of_shells(value),
        *_of_base64(raw), raw.hex(), raw.hex().upper(),
    }  # fmt: skip
    # Of base64's inner part, too little may be left to tell it from other text.
    return {value} | {form for form in found if len(form) >= min(LEAST_PART, len(value))}


def _of_python(value: str, raw: bytes) -> Iterator[str]:
    yield from (repr(value)[1:-1], repr(raw)[2:-1], ascii(value)[1:-1])
    # Inside of a text that has both kinds of quotes.
    yield from (repr(f"'\"{value}")[4:-1], repr(b"'\"" + raw)[5:-1], ascii(f"'\"{value}")[4:-1])


def _of_json(value: str) -> Iterator[str]:
    for text in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield from (text, text.replace("/", "\\/"))
        # As templates write it into HTML.
        safe = re.sub("[<>&']", lambda match: f"\\u{ord(match[0]):04x}", text)
        yield from (safe, re.sub(r"\\u[0-9a-f]{4}", lambda match: "\\u" + match[0][2:].upper(), safe))
        yield json.dumps(text, ensure_ascii=False)[1:-1]  # JSON as a text in JSON


def _of_html(value: str) -> Iterator[str]:
    text = html.escape(value, quote=False)
    yield text
    for double, single in (("&quot;", "&#x27;"), ("&#34;", "&#39;"), ("&quot;", "&#39;"), ("&quot;", "&apos;")):
        yield text.replace('"', double).replace("'", single)


def _of_urls(raw: bytes) -> Iterator[str]:
    # Whole, its path, as encodeURIComponent of JavaScript has it, a field of a form.
    quoted = {urllib.parse.quote(raw, safe=safe) for safe in ("", "/", "!'()*")} | {urllib.parse.quote_plus(raw)}
    yield from quoted
    yield from (re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in quoted)


def _of_shells(value: str) -> Iterator[str]:
    # In single quotes, in double quotes, behind backslashes.
    yield from (value.replace("'", "'\\''"), value.replace("'", "'\"'\"'"), re.sub(r'(["\\`$])', r"\\\1", value))
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", value)


def _of_base64(raw: bytes) -> Iterator[str]:
    """Return it alone, and inside of something longer, as in a header of basic authentication.

    That is what neither the bytes before nor those behind it have a part in.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield from (encode(raw).decode(), encode(raw).decode().rstrip("="))
        for before in range(3):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            yield text[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
