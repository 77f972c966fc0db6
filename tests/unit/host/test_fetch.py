"""A host fetches a release's parts itself: the right bytes or no release, and every refusal says what to do."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plugins.action.release_unpack import split_login
from plugins.module_utils.host.fetch import Server, part_name, pull
from plugins.module_utils.host.unpack import BESIDE_BYTES, Order, UnpackError, needs, read_marker
from tests.unit.host.test_unpack import build

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def good(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name, value)
        request.end_headers()

    return answer


def truncated(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data[: len(data) // 2])


def endless(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(data + b"more")


def altered(request: BaseHTTPRequestHandler, data: bytes) -> None:
    good(request, data[:-1] + bytes([data[-1] ^ 1]))


def stalled(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data[:10])
    request.wfile.flush()
    time.sleep(1)


@dataclass
class Site:
    """A web server with the parts of one release; `plan` are its first answers, `good` the others."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    plan: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    listener: Any = None

    def server(self, login: str = "") -> Server:
        return Server(f"http://127.0.0.1:{self.port}/parts/", login, stall=0.3, pauses=(0.01, 0.01))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers["Authorization"]))
            data = made.files.get(self.path.removeprefix("/parts/"))
            answer = made.plan.pop(0) if made.plan else (status(404) if data is None else good)
            answer(self, data or b"")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port, made.listener = server.server_port, server
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that has left is none
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        yield made
        server.shutdown()


@pytest.fixture
def tls(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server speak HTTPS for localhost, with a certificate that hosts trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    chain, secret = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*form))
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    site.listener.socket = context.wrap_socket(site.listener.socket, server_side=True)


@pytest.fixture
def order(site: Site, tmp_path: Path) -> Order:
    made, files = build(tmp_path)
    for part, file in files.items():
        made.artifact[f"{part}_path"] = str(file)
        site.files[part_name("shop", made.artifact[f"{part}_sha256"])] = file.read_bytes()
    return made


def left(order: Order) -> list[str]:
    """What is in the releases' folder."""
    releases = order.root / "releases"
    return [path.name for path in releases.iterdir()] if releases.exists() else []


def test_fetches_what_is_lacking_and_no_more(site: Site, order: Order, tmp_path: Path) -> None:
    assert pull(order, site.server()) is True
    assert read_marker(order.folder)
    assert [path for path, _ in site.asked] == [
        f"/parts/shop/{order.artifact[f'{part}_sha256']}.tar.gz" for part in ("lib", "code")
    ]
    assert sorted(left(order)) == [".lock", order.release]
    assert pull(order, site.server()) is False
    other, files = build(tmp_path, "ba9876543210", b"app = 2\n")
    site.files[part_name("shop", other.artifact["code_sha256"])] = files["code"].read_bytes()
    site.asked.clear()
    assert pull(other, site.server()) is True
    assert len(site.asked) == 1
    assert (other.folder / "lib/dep/tool").samefile(order.folder / "lib/dep/tool")


@pytest.mark.parametrize(
    ("answer", "says", "times"),
    [
        (status(404), "the server answers 404 Not Found. The file is not there", 1),
        (status(401), "answers 401 Unauthorized. The server wants a login: put it into release_url", 1),
        (status(403), "answers 403 Forbidden. The server refuses it", 1),
        (status(503), "the server answers 503 Service Unavailable", 3),
        (truncated, r"only \d+ of \d+ bytes came", 3),
        (endless, r"it is longer than \d+ bytes", 1),
        (altered, r"its bytes are other ones \(sha256 [0-9a-f]{12}…\) than were built", 1),
        (stalled, r"the server sent nothing for 0\.3 s", 1),
        (status(302, Location="ftp://127.0.0.1/x"), "redirected to ftp|redirection error", 1),
    ],
    ids=["404", "401", "403", "503", "truncated", "longer", "altered", "stalled", "redirect to ftp"],
)
def test_refusals(site: Site, order: Order, answer: Answer, says: str, times: int) -> None:
    site.plan = [answer] * times
    with pytest.raises(UnpackError, match=says) as caught:
        pull(order, site.server("me:hush"))
    assert site.plan == []
    assert len(site.asked) == times
    said = str(caught.value)
    assert f"http://127.0.0.1:{site.port}/parts/shop/{order.artifact['lib_sha256']}.tar.gz" in said
    assert f"What must be there is {order.artifact['lib_path']} of the controller: upload it" in said
    assert "hush" not in said
    assert needs(order) == ["lib", "code"]
    assert left(order) == []


def test_what_passes_by_itself_is_tried_again(site: Site, order: Order) -> None:
    site.plan = [status(502), truncated]
    assert pull(order, site.server()) is True
    assert len(site.asked) == 4


def drip(request: BaseHTTPRequestHandler, data: bytes, start: bytes = b"") -> None:
    """Send each byte within the time that a server may be silent; whoever waits for the end waits for 2 s."""
    request.wfile.write(start)
    for byte in data:
        with contextlib.suppress(OSError):  # the client may be gone
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
        time.sleep(2 / len(data))


def drips_status(request: BaseHTTPRequestHandler, data: bytes) -> None:
    drip(request, b"HTTP/1.1 200 " + b"O" * 40)
    good(request, data)


def drips_headers(request: BaseHTTPRequestHandler, data: bytes) -> None:
    drip(request, b"X-Drip: " + b"drop" * 10, b"HTTP/1.1 200 OK\r\n")
    request.wfile.write(b"\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))


def drips_body(request: BaseHTTPRequestHandler, data: bytes) -> None:
    drip(request, data[:40], b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
    request.wfile.write(data[40:])


def redirects_slowly(request: BaseHTTPRequestHandler, data: bytes) -> None:
    time.sleep(0.2)
    status(302, Location=f"{request.path}?")(request, data)


def drips_redirects(request: BaseHTTPRequestHandler, data: bytes) -> None:
    drip(request, b"drop" * 10, b"HTTP/1.1 302 Found\r\nX-Drip: ")
    request.wfile.write(b"\r\nContent-Length: 0\r\nLocation: /parts/x\r\n\r\n")


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    "answer",
    [drips_status, drips_headers, drips_body, redirects_slowly, drips_redirects],
    ids=lambda made: made.__name__,
)
def test_server_that_drips_is_given_up(
    site: Site, order: Order, answer: Answer, secure: bool, request: pytest.FixtureRequest
) -> None:
    """The limit is for all of a try: 0.8 s here, while each byte comes within 0.3 s."""
    server = dataclasses.replace(site.server(), slowest=order.artifact["lib_size"] / 0.2)
    if secure:
        request.getfixturevalue("tls")
        server = dataclasses.replace(server, url=server.url.replace("http://127.0.0.1", "https://localhost"))
    site.plan = [answer] * 8
    with pytest.raises(UnpackError, match=r"it took longer than 1 s, in which \d+ of \d+ bytes came"):
        pull(order, server)
    assert left(order) == []


def test_https(site: Site, order: Order, tls: None) -> None:
    server = dataclasses.replace(site.server(), url=f"https://localhost:{site.port}/parts")
    assert pull(order, server) is True


def test_handshake_that_drips_is_given_up(order: Order) -> None:
    """A TLS record of 16 KiB is announced, of which a byte comes now and then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00\x02")
                while not done.wait(0.05):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = Server(f"https://127.0.0.1:{listener.getsockname()[1]}", stall=0.3, slowest=1e9, pauses=())
        with pytest.raises(UnpackError, match=r"it took longer than 1 s|the server sent nothing for 0\.3 s"):
            pull(order, server)
        done.set()
        thread.join(5)


def test_nobody_listens(site: Site, order: Order) -> None:
    with pytest.raises(UnpackError, match=r"could not be fetched from http://127\.0\.0\.1:9/shop/.* cannot be reached"):
        pull(order, Server("http://127.0.0.1:9", pauses=()))


def test_only_http(order: Order, tmp_path: Path) -> None:
    with pytest.raises(UnpackError, match="which is neither http:// nor https://"):
        pull(order, Server(f"file://{tmp_path}"))


def test_login_goes_to_its_server_only(site: Site, order: Order) -> None:
    wanted = "Basic " + base64.b64encode(b"me:hu@sh").decode()
    name = part_name("shop", order.artifact["lib_sha256"])
    elsewhere = f"http://localhost:{site.port}/parts/{name}"
    site.plan = [status(302, Location=f"/parts/{name}"), status(307, Location=elsewhere), good]
    assert pull(order, site.server("me:hu%40sh")) is True
    assert [login for _, login in site.asked] == [wanted, wanted, None, wanted]


@pytest.mark.parametrize(
    ("url", "clean", "login"),
    [
        ("https://me:hush@example.org/a@b", "https://example.org/a@b", "me:hush"),
        ("https://example.org:8443/x", "https://example.org:8443/x", None),
        ("http://token@example.org", "http://example.org", "token"),
        ("", "", None),
    ],
)
def test_login_is_split_off(url: str, clean: str, login: str | None) -> None:
    found = split_login(url)
    assert found == ({"url": clean, "url_login": login} if login else {"url": clean})


def test_space_for_what_is_fetched_is_counted(site: Site, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, unpacked = (
        sum(order.artifact[f"{part}_{kind}"] for part in ("lib", "code")) for kind in ("size", "bytes")
    )
    disk = SimpleNamespace(f_bavail=0, f_frsize=1, f_files=10**9, f_favail=10**9)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    disk.f_bavail = int(unpacked * 1.5) + BESIDE_BYTES + fetched - 1
    with pytest.raises(UnpackError, match="MiB free, the release needs"):
        pull(order, site.server())
    assert site.asked == []
    disk.f_bavail += 1
    assert pull(order, site.server()) is True
