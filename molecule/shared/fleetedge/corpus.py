"""Raw requests that two HTTP parsers in a row may read differently, as the writes that a client makes of them.

Each case has a path of its own, `/case/N`. Many hide a second request in a body or in what one parser could take for
one; its path is `/hidden/N`, its Host and its client's address are made up. It is no fault where nginx itself answers
that one, or passes it on and logs it: then it is the attacker's own request, under the attacker's own address.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CRLF = b"\r\n"
KEY = base64.b64encode(b"sixteen bytes ok")
WEBSOCKET = (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY)
#: Bytes of bodies with something hidden behind them: below what is read in one go, around it, and far above.
SIZES = (0, 1_000, 60_000, 200_000, 500_000, 1_000_000)


@dataclass(frozen=True)
class Case:
    """One connection's bytes. `body` is what the app must get where it gets the request; None where nobody can say.

    `refused`: no app may ever see it. `served`: the app must see it. `target`: its path.
    """

    name: str
    writes: tuple[bytes, ...]
    body: bytes | None = None
    refused: bool = False
    served: bool = False
    target: str = ""


class Corpus:
    """Makes the cases for one server name. Numbers go up from `first`, so that no two have the same path."""

    def __init__(self, host: str, first: int = 0) -> None:
        self.host = host.encode()
        self.number = first
        self.made: list[Case] = []

    def hidden(self) -> bytes:
        """Return the request that must never come up by itself."""
        return b"GET /hidden/%d HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n" % self.number

    def line(self, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
        """Return the request line of the next case."""
        return b"%s /case/%d %s" % (method, self.number, version)

    def head(self, *headers: bytes, method: bytes = b"POST") -> bytes:
        """Return a well-formed head with a Host and these header lines."""
        return CRLF.join([self.line(method), b"Host: " + self.host, *headers, b"", b""])

    def add(
        self, name: str, *writes: bytes, body: bytes | None = None, refused: bool = False, served: bool = False
    ) -> None:
        """Make a case; see there what the words mean."""
        self.made.append(Case(name, writes, body, refused, served, f"/case/{self.number}"))
        self.number += 1


def pieces(data: bytes, count: int) -> tuple[bytes, ...]:
    """Cut data into about as many pieces of one size."""
    size = max(1, -(-len(data) // count))
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def chunked(body: bytes, size: int = 16_384) -> bytes:
    """Return a body in chunks, ended."""
    parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in (pieces(body, -(-len(body) // size)) if body else ())]
    return b"".join(parts) + b"0\r\n\r\n"


# --- Transfer-Encoding beside Content-Length -----------------------------------------------------------------------

#: Header lines that one parser may take for `Transfer-Encoding: chunked`, and another one not.
CODINGS = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding:chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding\x00: chunked",
    b"Transfer-Encoding\xa0: chunked",
    b"X-Transfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\n , identity",
    b"X: x\r\n\tTransfer-Encoding: chunked",
    b"X: x\nTransfer-Encoding: chunked",
    b"X: x\rTransfer-Encoding: chunked",
    b"X: x\r\rTransfer-Encoding: chunked",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
)


def codings(corpus: Corpus) -> None:
    """CL.TE, TE.CL and TE.TE: a length and a coding that contradict each other, in both orders."""
    for coding, cl_first in itertools.product(CODINGS, (True, False)):
        plain = coding.lower().replace(b" ", b"") == b"transfer-encoding:chunked"
        for shape in ("CL.TE", "TE.CL"):
            inner = corpus.hidden()
            if shape == "CL.TE":  # who goes by the coding is done after five bytes
                body = b"0\r\n\r\n" + inner
                length = len(body)
            else:  # who goes by the length is done before the chunk's data
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
                length = body.index(CRLF) + 2
            lines = [b"Content-Length: %d" % length, coding]
            head = corpus.head(*(lines if cl_first else reversed(lines)))
            corpus.add(f"{shape} {'CL first' if cl_first else 'TE first'}: {coding!r}", head + body, refused=plain)
    for coding in CODINGS:
        inner = corpus.hidden()
        corpus.add(f"TE alone: {coding!r}", corpus.head(coding) + b"3\r\nabc\r\n0\r\n\r\n" + inner)


# --- Content-Length ------------------------------------------------------------------------------------------------

LENGTHS = (
    (b"Content-Length: %d\r\nContent-Length: 0", True),
    (b"Content-Length: 0\r\nContent-Length: %d", True),
    (b"Content-Length: %d\r\nContent-Length: %d", True),
    (b"Content-Length: %d, %d", True),
    (b"Content-Length: 0, %d", True),
    (b"Content-Length: +%d", True),
    (b"Content-Length: -%d", True),
    (b"Content-Length: 0x%x", True),
    (b"Content-Length: %d.0", True),
    (b"Content-Length: %de0", True),
    (b"Content-Length: %d;", True),
    (b"Content-Length: %d\x00", True),
    (b"Content-Length: 18446744073709551616%d", True),
    (b"Content-Length: 9223372036854775807%d", True),
    (b"Content-Length: one%d", True),
    (b"Content-Length: ", None),
    (b"Content-Length: 0%d", None),
    (b"Content-Length:%d", False),
    (b"Content-Length:\t%d", None),
    (b"Content-Length: %d ", False),
    (b"Content-Length : %d", None),
    (b" Content-Length: %d", None),
    (b"Content-Length:\r\n %d", None),
    (b"Content_Length: %d", None),
    (b"Content-Length\x00: %d", None),
    (b"X: x\nContent-Length: %d", None),
    (b"X: x\rContent-Length: %d", None),
)


def lengths(corpus: Corpus) -> None:
    """Lengths that are given twice, wrongly, or so that only one of two parsers finds them."""
    for (line, refused), method in itertools.product(LENGTHS, (b"POST", b"GET", b"DELETE")):
        inner = corpus.hidden()
        given = line % ((len(inner),) * line.count(b"%")) if b"%" in line else line
        corpus.add(
            f"{method.decode()} {line!r}",
            corpus.head(given, method=method) + inner,
            body=inner if refused is False else None,
            refused=bool(refused),
        )


# --- Ends of lines -------------------------------------------------------------------------------------------------


def ends_of_lines(corpus: Corpus) -> None:
    """Lines that end in LF alone, CR alone, or more."""
    for end, last in itertools.product(
        (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\x0b\r\n", b"\x85"), (CRLF, b"\n", b"\r")
    ):
        inner = corpus.hidden()
        lines = [corpus.line(), b"Host: " + corpus.host, b"Content-Length: %d" % len(inner)]
        corpus.add(f"lines end with {end!r}, the head with {last!r}", end.join(lines) + end + last + inner)
    for place in range(3):
        for end in (b"\n", b"\r", b"\r\r\n", b"\n\n", b"\r\n\n", b"\x00\r\n"):
            inner = corpus.hidden()
            lines = [corpus.line(), b"Host: " + corpus.host, b"Content-Length: %d" % len(inner)]
            ends = [CRLF, CRLF, CRLF]
            ends[place] = end
            text = b"".join(line + after for line, after in zip(lines, ends, strict=True))
            corpus.add(f"line {place + 1} ends with {end!r}", text + CRLF + inner)
    for before in (CRLF, b"\n", CRLF * 3, b"\x00", b" "):
        corpus.add(f"{before!r} in front", before + corpus.head(method=b"GET"))


# --- Hosts ---------------------------------------------------------------------------------------------------------


def hosts(corpus: Corpus) -> None:
    """Names that are given twice, not at all, badly, or differently in line and header."""
    own = corpus.host
    for lines, refused in (
        ((b"Host: %s" % own, b"Host: %s" % own), True),
        ((b"Host: %s" % own, b"Host: evil.example"), True),
        ((b"Host: evil.example", b"Host: %s" % own), True),
        ((b"Host: %s, evil.example" % own,), True),
        ((b"Host: %s evil.example" % own,), True),
        ((b"Host: evil.example",), True),
        ((b"Host:",), True),
        ((b"Host: ",), True),
        ((), True),
        ((b"Host: %s\x00.evil.example" % own,), True),
        ((b"Host: %s/../x" % own,), True),
        ((b"Host: evil.example@%s" % own,), None),
        ((b"Host: %s@evil.example" % own,), True),
        ((b"Host: %s#@evil.example" % own,), None),
        ((b"Host: %s:80@evil.example" % own,), None),
        ((b"Host: %s:80" % own,), False),
        ((b"Host: %s:65536999" % own,), None),
        ((b"Host: %s:80:80" % own,), None),
        ((b"Host: %s." % own,), None),
        ((b"Host: %s" % own.upper(),), False),
        ((b"Host:\t%s" % own,), None),
        ((b"Host : %s" % own,), None),
        ((b" Host: %s" % own,), None),
        ((b"Host:\r\n %s" % own,), None),
        ((b"Host: %s\r\n evil.example" % own,), None),
        ((b"H\xf6st: %s" % own,), True),
        ((b"Host: [::1]",), True),
        ((b"Host: [%s" % own,), True),
    ):
        head = CRLF.join([corpus.line(b"GET"), *lines, b"X-Forwarded-Host: evil.example", b"", b""])
        corpus.add(f"{lines!r}", head, body=b"", refused=bool(refused))
    for target, header in itertools.product(
        (b"http://%s" % own, b"HTTP://%s" % own, b"https://%s" % own, b"http://evil.example", b"http://u:p@%s" % own,
         b"ftp://%s" % own, b"http:/%s" % own, b"http://%s@evil.example" % own, b"//evil.example"),
        (own, b"evil.example"),
    ):  # fmt: skip
        line = b"GET %s/case/%d HTTP/1.1" % (target, corpus.number)
        corpus.add(f"{target!r} with Host {header!r}", CRLF.join([line, b"Host: " + header, b"", b""]), body=b"")


# --- Request lines -------------------------------------------------------------------------------------------------


def request_lines(corpus: Corpus) -> None:
    """Versions, methods and targets as no browser sends them."""
    own = corpus.host
    corpus.add("HTTP/0.9", b"GET /case/%d\r\n" % corpus.number, refused=True)
    for version in (
        b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/11", b"HTTP/1.10", b"HTTP/1", b"http/1.1",
        b"HTTP/1.1x", b"HTTP/ 1.1", b"HTTP/1.1 HTTP/1.1", b"HTTPS/1.1", b"ICE/1.0", b"RTSP/1.0",
    ):  # fmt: skip
        for more in ((), (b"Connection: keep-alive",)):
            inner = corpus.hidden()
            lines = [corpus.line(version=version), b"Host: " + own, b"Content-Length: %d" % len(inner), *more, b"", b""]
            corpus.add(f"{version!r} {more!r}", CRLF.join(lines) + inner)
    inner = corpus.hidden()
    lines = [corpus.line(version=b"HTTP/1.0"), b"Host: " + own, b"Transfer-Encoding: chunked", b"", b""]
    corpus.add("HTTP/1.0 in chunks", CRLF.join(lines) + b"0\r\n\r\n" + inner)
    for method in (
        b"get", b"GeT", b"G ET", b"GET\t", b"G\x00T", b"", b"GET" * 500, b"TRACE", b"TRACK", b"PURGE", b"M-SEARCH",
        b"GET\x00", b"G@T", b"PROPFIND", b"PATCH", b"DEBUG", b"SOURCE", b"\xff\xfe",
    ):  # fmt: skip
        corpus.add(f"method {method[:20]!r}", CRLF.join([corpus.line(method), b"Host: " + own, b"", b""]))
    for target in (b"*", b"evil.example:443", b"/case/%d/" % corpus.number + b"a" * 9000):
        for method in (b"CONNECT", b"OPTIONS", b"GET"):
            inner = corpus.hidden()
            lines = [
                b"%s %s HTTP/1.1" % (method, target),
                b"Host: " + own,
                b"Content-Length: %d" % len(inner),
                b"",
                b"",
            ]
            corpus.add(f"{method!r} {target[:20]!r}", CRLF.join(lines) + inner)
    for path in (
        b"/case/%d?a=b&c=d#e", b"/case/%d%%00", b"/case/%d%%0d%%0aX:%%20y", b"/case/%d\x00", b"/case/%d\r",
        b"/case/%d\t", b"/case/%d x", b"/case/%d\xff", b"/case/%d/../../hidden", b"/case/%d/./", b"//case/%d",
        b"/case/%d\\..\\x", b"/case/%d;a=b", b"/case/%d%%2e%%2e%%2f", b"/case/%d%%", b"/case/%d%%zz", b"case/%d",
        b"?%d", b"/case/%d\x7f", b"/case/%d{}", b"/case/%d|", b"/case/%d\"", b"/case/%d<>", b"/case/%d^`",
    ):  # fmt: skip
        line = b"GET %s HTTP/1.1" % (path % corpus.number)
        corpus.add(f"target {path!r}", CRLF.join([line, b"Host: " + own, b"", b""]), body=b"")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    corpus.add("HTTP/2's preface", preface, refused=True)
    corpus.add("a PROXY header", b"PROXY TCP4 6.6.6.6 127.0.0.1 1 80\r\n" + corpus.head(method=b"GET"), refused=True)
    corpus.add("a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(160)), refused=True)


# --- Header fields -------------------------------------------------------------------------------------------------


def fields(corpus: Corpus) -> None:
    """Names and values as no client sends them; each with a body that hides something."""
    for line in (
        b"X Y: z", b"X\tY: z", b"X\x00Y: z", b"X: a\x00b", b"X: a\x01b", b"X: a\x7fb", b"X: a\xffb", b"\xc3\xa4: z",
        b": z", b"X", b"X;", b"X:", b"X: ", b"X:" + b" " * 2000 + b"z", b"X: " + b"z" * 7000, b"X: " + b"z" * 40_000,
        b"Y" * 300 + b": z", b"X-Forwarded-For : 6.6.6.6", b"X_Forwarded_For: 6.6.6.6",
        b"X-Forwarded-For\t: 6.6.6.6", b" X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For\x00: 6.6.6.6",
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7", b"X: x\r\n X-Forwarded-For: 6.6.6.6",
        b"X: x\nX-Forwarded-For: 6.6.6.6", b"X: x\rX-Forwarded-For: 6.6.6.6", b"X-Real-IP: 6.6.6.6",
        b"Forwarded: for=6.6.6.6", b"Connection: X-Forwarded-For", b"Connection: close, X-Real-IP, Host",
        b"Connection: Content-Length", b"Connection: Upgrade, Content-Length", b"Keep-Alive: timeout=9999",
        b"TE: trailers", b"Trailer: Host", b"Expect: 200-ok", b"Content-Length\r\n", b"X: (", b"X: \"",
        b"Cookie: a=b\r\nCookie: c=d", b"\x0bX: y", b"Content-Type: a\r\n\r\n\r\n",
    ):  # fmt: skip
        inner = corpus.hidden()
        corpus.add(f"{line[:60]!r}", corpus.head(line, b"Content-Length: %d" % len(inner)) + inner)
    for count in (90, 1000):
        inner = corpus.hidden()
        many = [b"X-%d: y" % number for number in range(count)]
        corpus.add(f"{count} fields", corpus.head(*many, b"Content-Length: %d" % len(inner)) + inner)


# --- Chunks --------------------------------------------------------------------------------------------------------


def chunks(corpus: Corpus) -> None:
    """Chunks with extensions, odd sizes, odd ends, trailers."""
    for good, text, body in (
        (True, b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (True, b"3;a=b\r\nabc\r\n0\r\n\r\n", b"abc"),
        (True, b'3;a="b;c"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
        (True, b"003\r\nabc\r\n00\r\n\r\n", b"abc"),
        (True, b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n", b"abc"),
        (
            True,
            b"3\r\nabc\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nHost: evil.example\r\nContent-Length: 50\r\n\r\n",
            b"abc",
        ),
        (None, b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3;\nxx\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3;\rxx\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3;\x00\r\nabc\r\n0\r\n\r\n", None),
        (None, b'3;a="\n"\r\nabc\r\n0\r\n\r\n', None),
        (None, b"3\nabc\n0\n\n", None),
        (None, b"3\rabc\r0\r\r", None),
        (None, b"3\r\nabc0\r\n\r\n", None),
        (None, b"3\r\nabcd\r\n0\r\n\r\n", None),
        (None, b"4\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3 \r\nabc\r\n0\r\n\r\n", None),
        (None, b" 3\r\nabc\r\n0\r\n\r\n", None),
        (None, b"+3\r\nabc\r\n0\r\n\r\n", None),
        (None, b"-3\r\nabc\r\n0\r\n\r\n", None),
        (None, b"0x3\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3h\r\nabc\r\n0\r\n\r\n", None),
        (None, b"\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3\x00\r\nabc\r\n0\r\n\r\n", None),
        (None, b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", None),
        (None, b"10000000000000003\r\nabc\r\n0\r\n\r\n", None),
        (None, b"80000000\r\nabc\r\n0\r\n\r\n", None),
        (None, b"3\r\nabc\r\n", None),
        (None, b"3\r\nabc\r\n0\r\n", None),
        (None, b"3\r\nabc\r\n0\r\n\n", None),
        (None, b"3\r\nabc\r\n0\r\nX\r\n\r\n", None),
        (None, b"3\r\nabc\r\n0\r\n X: y\r\n\r\n", None),
        (None, b"3\r\nabc\r\n0\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n", None),
    ):
        inner = corpus.hidden()
        corpus.add(
            f"chunks {text[:40]!r}",
            corpus.head(b"Transfer-Encoding: chunked", b"Connection: close") + text + inner,
            body=body,
            served=bool(good),
        )
    for size, count in itertools.product(SIZES, (1, 40)):
        body = CRLF * (size // 2) + corpus.hidden()
        data = corpus.head(b"Transfer-Encoding: chunked") + chunked(body)
        corpus.add(f"{size} bytes in chunks, {count} writes", *pieces(data, count), body=body, served=True)


# --- Upgrades ------------------------------------------------------------------------------------------------------

UPGRADES = (
    b"h2c", b"H2C", b"websocket", b"WebSocket", b"websocket, h2c", b"h2c, websocket", b"websocket/13", b"TLS/1.0",
    b"foo", b"", b"h2c\r\nUpgrade: websocket", b"websocket\r\nUpgrade: h2c",
)  # fmt: skip
CONNECTIONS = (b"Upgrade", b"keep-alive, Upgrade", b"Upgrade, HTTP2-Settings", b"close", b"upgrade, close")


def upgrades(corpus: Corpus) -> None:
    """Upgrades of every kind, with bodies; what is hidden in them is the end of the body, and nothing else."""
    for value, connection in itertools.product(UPGRADES, CONNECTIONS):
        for method in (b"POST", b"GET"):
            body = CRLF * 300 + corpus.hidden()
            lines = (b"Upgrade: " + value, b"Connection: " + connection, b"Content-Length: %d" % len(body), *WEBSOCKET)
            name = f"{method.decode()}, Upgrade {value!r}, Connection {connection!r}"
            corpus.add(name, corpus.head(*lines, method=method) + body, body=body, served=True)
    for method in (b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"QUERY"):
        body = CRLF * 300 + corpus.hidden()
        lines = (b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: %d" % len(body), *WEBSOCKET)
        corpus.add(
            f"{method.decode()} with a body, Upgrade", corpus.head(*lines, method=method) + body, body=body, served=True
        )


def upgrades_by_size(corpus: Corpus) -> None:
    """Upgrades with bodies of all sizes, in one write and in many."""
    for value, size, count in itertools.product((b"h2c", b"websocket", b"foo"), SIZES, (1, 40)):
        body = CRLF * (size // 2) + corpus.hidden()
        lines = (b"Upgrade: " + value, b"Connection: Upgrade", b"Content-Length: %d" % len(body))
        writes = pieces(corpus.head(*lines) + body, count)
        corpus.add(f"Upgrade {value!r}, {size} bytes, {count} writes", *writes, body=body, served=True)
    for size, count in itertools.product(SIZES, (1, 40)):
        body = CRLF * (size // 2) + corpus.hidden()
        lines = (b"Upgrade: h2c", b"Connection: Upgrade", b"Transfer-Encoding: chunked")
        writes = pieces(corpus.head(*lines) + chunked(body), count)
        corpus.add(f"Upgrade, {size} bytes in chunks, {count} writes", *writes, body=body, served=True)


def handshakes(corpus: Corpus) -> None:
    """Nearly a WebSocket's opening handshake, but none."""
    for given in (
        (b"Upgrade: websocket", b"Connection: Upgrade"),
        (b"Upgrade: websocket", b"Connection: Upgrade", WEBSOCKET[0]),
        (b"Upgrade: websocket", b"Connection: Upgrade", WEBSOCKET[1]),
        (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 8", WEBSOCKET[1]),
        (b"Upgrade: websocket", b"Connection: Upgrade", WEBSOCKET[0], b"Sec-WebSocket-Key: short"),
        (b"Upgrade: websocket", b"Connection: close", *WEBSOCKET),
        (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    ):
        corpus.add(
            f"no handshake: {given!r}", corpus.head(*given, method=b"GET") + corpus.hidden(), body=b"", served=True
        )
    for method, more in itertools.product((b"POST", b"HEAD", b"PUT", b"OPTIONS"), ((), (b"Content-Length: 0",))):
        lines = (b"Upgrade: websocket", b"Connection: Upgrade", *WEBSOCKET, *more)
        corpus.add(f"a handshake by {method!r} {more!r}", corpus.head(*lines, method=method), body=b"", served=True)
    old = corpus.head(b"Upgrade: websocket", b"Connection: Upgrade", *WEBSOCKET, method=b"GET").replace(
        b"HTTP/1.1", b"HTTP/1.0", 1
    )
    corpus.add("an upgrade with HTTP/1.0", old, body=b"", served=True)


# --- Several requests, and halves of one ---------------------------------------------------------------------------


def sequences(corpus: Corpus) -> None:
    """More behind a request, bodies that wait for 100 Continue, and what never comes as a whole."""
    for count in (1, 30):
        body = CRLF * 300 + corpus.hidden()
        head = corpus.head(b"Expect: 100-continue", b"Content-Length: %d" % len(body))
        corpus.add(f"Expect, body in {count} writes", head, *pieces(body, count), body=body, served=True)
    for more in (b"GET", b"\x00\x01\x02", b"GET / HTTP/1.1\r\n", b" " * 10, b"0\r\n\r\n"):
        corpus.add(f"{more!r} behind it", corpus.head(b"Content-Length: 3") + b"abc" + more, body=b"abc", served=True)
    for cut in (1, 20, 60):
        corpus.add(f"only {cut} bytes", corpus.head(b"Content-Length: 3")[:cut], refused=True)
    for size in (0, 1, 70_000):
        corpus.add(f"{size} of 100,000 bytes", corpus.head(b"Content-Length: 100000") + b"x" * size, refused=True)
    for method in (b"GET", b"HEAD", b"POST", b"DELETE"):
        inner = corpus.hidden()
        head = corpus.head(b"Content-Length: %d" % len(inner), method=method)
        corpus.add(f"{method.decode()} with a body", head + inner, body=inner, served=True)
        corpus.add(f"{method.decode()} and one more", corpus.head(method=method) + inner, body=b"", served=True)


GROUPS = (
    codings,
    lengths,
    ends_of_lines,
    hosts,
    request_lines,
    fields,
    chunks,
    upgrades,
    upgrades_by_size,
    handshakes,
    sequences,
)


def corpus(host: str, first: int = 0) -> list[Case]:
    """Return all cases for a server name, numbered from `first`."""
    made = Corpus(host, first)
    for group in GROUPS:
        group(made)
    return made.made


def hidden_bodies(host: str, sizes: Iterable[int], tries: int, first: int = 0) -> Iterator[tuple[int, Case]]:
    """Yield the same attack again and again, with its body's size: half in one write, half in many."""
    made = Corpus(host, first)
    for size in sizes:
        for attempt in range(tries):
            body = CRLF * (size // 2) + made.hidden()
            lines = (b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: %d" % len(body))
            count = 1 if attempt % 2 else 25
            made.add(f"{size} bytes, {count} writes", *pieces(made.head(*lines) + body, count), body=body, served=True)
            yield size, made.made[-1]
