"""nginx on this host: its own test of its files, and the app asked through it."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
#: How long nginx may take to read its files, in seconds.
TEST_SECONDS = 30


@dataclass(frozen=True)
class Entrance:
    """Where an app is reached through nginx on this host, by nginx's own file: address, port, name, whether by TLS."""

    address: str
    port: int
    tls: bool
    name: str

    @property
    def text(self) -> str:
        """Return it as it is shown."""
        return f"{'https' if self.tls else 'http'}://{self.name}{'' if self.port in (80, 443) else f':{self.port}'}"


def entrances(text: str) -> list[Entrance]:
    """Return where the first server in a file of nginx's listens, but for IPv6: plain HTTP and TLS."""
    text = re.sub(r"#[^\n]*", "", text)
    names = re.search(r"\bserver_name\s+([^;]+);", text)
    name = re.sub(r"^(\*|(?=\.))", "verify", names[1].split()[0]) if names else "localhost"
    found: dict[bool, Entrance] = {}
    for match in re.finditer(r"\blisten\s+([^;]+);", text):
        place, *options = match[1].split()
        if place.startswith(("[", "unix:")):
            continue
        address, _unused, port = place.rpartition(":") if ":" in place else ("", "", place)
        if not port.isdigit():
            address, port = port, "80"
        address = LOOPBACK if address in ("", "*", "0.0.0.0") else address  # noqa: S104 (asked, not bound)
        tls = "ssl" in options
        found.setdefault(tls, Entrance(address, int(port), tls, name))
    return [found[tls] for tls in sorted(found)]


class Proxy:
    """What is asked of nginx. Tests put a fake in its place."""

    def test(self) -> str:
        """Return what nginx says against its files, "" where it would start with them."""
        try:
            done = subprocess.run(
                ["nginx", "-t"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=TEST_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = [line for line in done.stderr.splitlines() if "[emerg]" in line] or done.stderr.splitlines()[-1:]
        if done.returncode == 0:
            return ""
        # Before the message stands which process of nginx's it was.
        return re.sub(r"^.*\[emerg\] (\d+#\d+: )?", "", lines[0]) if lines else f"exit code {done.returncode}"

    def ask(self, entrance: Entrance, path: str, seconds: float) -> tuple[int, str]:
        """Ask as a client on this host does; return the status, or 0 and why there was no answer.

        The certificate is not looked at: it need not be for this host's own eyes.
        """
        connection = http.client.HTTPConnection(entrance.address, entrance.port, timeout=seconds)
        try:
            connection.sock = socket.create_connection((entrance.address, entrance.port), timeout=seconds)
            if entrance.tls:
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
                connection.sock = tls.wrap_socket(connection.sock, server_hostname=entrance.name)
            connection.request("GET", path, headers={"Host": entrance.name, "Connection": "close"})
            return connection.getresponse().status, ""
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        finally:
            connection.close()


def read(path: str) -> str | None:
    """Return the text of nginx's file for the app, None where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else None
    except OSError:
        return None
