"""What a load may be: its rate, its mix, its bounds and its target. Every value is checked here."""

from __future__ import annotations

import argparse
import ipaddress
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SHORT = ("get-new", "get-keep", "post-new", "post-keep")  # answered at once; the latencies are theirs
KINDS = (*SHORT, "long", "download")
DEFAULT_MIX = "get-new=40,get-keep=40,post-keep=15,post-new=4,long=1"
MAX_REQUESTS = 1_000_000  # every request is kept until the end, at about 200 bytes each
DOCKER_BRIDGE = re.compile(r"docker\d+|br-[0-9a-f]{12}")
BOUNDS: dict[str, tuple[float, float]] = {
    "seconds": (0.1, 3600),
    "rate": (0.1, 2000),
    "websockets": (0, 500),
    "connections": (1, 1000),
    "max_open": (1, 10_000),
    "timeout": (0.1, 600),
    "grace": (0, 600),
    "body_bytes": (0, 10_000_000),
    "long_seconds": (0, 60),
    "download_chunks": (1, 100),
    "download_pause": (0, 1),
    "details": (0, 10_000),
}


def _option(default: Any, text: str) -> Any:
    """Return a field that is an option of the command, too."""
    return field(default=default, metadata={"help": f"{text} ({default})" if default not in ("", False) else text})


@dataclass(frozen=True)
class Settings:
    """One run. ValueError says which value is not allowed and what is."""

    url: str
    seconds: float = _option(30.0, "how long requests are started")
    rate: float = _option(200.0, "requests started per second, of all kinds together")
    mix: str = _option(DEFAULT_MIX, "kinds and their shares: " + ", ".join(KINDS))
    websockets: int = _option(0, "WebSockets to hold open, beside the rate; each sends a text a second")
    host_header: str = _option("", "Host header, if not the URL's")
    connections: int = _option(20, "keep-alive connections to use in turn; more are made while all are busy")
    max_open: int = _option(500, "most open connections; a request that finds no room counts as failed")
    timeout: float = _option(30.0, "seconds for one request; longer ones count as failed")
    grace: float = _option(30.0, "seconds for what is open when the last request was started")
    get_path: str = _option("/health", "path of get-new and get-keep")
    any_body: bool = _option(False, "take any body for an answer to a get: for other apps than the sample")
    body_bytes: int = _option(2048, "size of a posted body")
    long_seconds: float = _option(5.0, "seconds that a long request takes; the sample app allows 10")
    download_chunks: int = _option(20, "pieces of a download, 16 KiB each")
    download_pause: float = _option(0.1, "seconds before each piece of a download")
    details: int = _option(50, "how many failures are kept with details; the reasons of all are kept")

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:  # also false for nan
                raise ValueError(f"{name} is {getattr(self, name)}: allowed is {least:g} to {most:g}")
        if self.rate * self.seconds > MAX_REQUESTS:
            raise ValueError(f"rate × seconds is {self.rate * self.seconds:g}: allowed is at most {MAX_REQUESTS}")
        if not self.get_path.startswith("/"):
            raise ValueError(f"get_path is {self.get_path!r}: it has to start with /")
        if re.search(r"[\s\x00-\x1f]", self.get_path + self.host_header):
            raise ValueError("get_path and host_header may hold no white space")
        slowest = {"long": self.long_seconds, "download": self.download_chunks * self.download_pause}
        for kind in self.shares:
            if slowest.get(kind, 0) >= self.timeout:
                raise ValueError(f"{kind} takes {slowest[kind]:g} s: timeout ({self.timeout:g} s) has to be longer")
        target(self.url)

    @property
    def shares(self) -> dict[str, float]:
        """The mix: a positive weight for each kind in it."""
        found: dict[str, float] = {}
        for part in self.mix.split(","):
            kind, _, weight = part.strip().partition("=")
            if kind not in KINDS or kind in found:
                raise ValueError(f"mix has {kind!r}: allowed are {', '.join(KINDS)}, each once")
            if not re.fullmatch(r"\d+(\.\d+)?", weight) or not float(weight):
                raise ValueError(f"mix has {part.strip()!r}: the share has to be a positive number")
            found[kind] = float(weight)
        return found

    def arguments(self) -> list[str]:
        """Return the command's arguments for these settings."""
        found = [self.url]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value is True:
                found.append(_flag(each.name))
            elif value is not False:
                found.append(f"{_flag(each.name)}={value}")
        return found

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Give a parser an option for each setting."""
        parser.add_argument("url", help="http://ADDRESS[:PORT]: loopback, or a host on a Docker bridge of this machine")
        for each in fields(cls)[1:]:
            how: dict[str, Any] = {"action": "store_true"} if each.default is False else {"type": type(each.default)}
            parser.add_argument(_flag(each.name), default=each.default, help=each.metadata["help"], **how)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def target(url: str) -> tuple[str, int]:
    """Return the address and port that a URL names. ValueError where a load may not go there.

    Only an address in digits (or localhost) is taken: a name could mean another host at the next look-up.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url} is no target: it has to be http://ADDRESS[:PORT]")
    try:
        address = ipaddress.ip_address("127.0.0.1" if parts.hostname == "localhost" else parts.hostname or "")
        port = parts.port or 80
    except ValueError as error:
        raise ValueError(f"{url} is no target: {error}") from error
    networks = [] if address.is_loopback else docker_networks()
    if not address.is_loopback and not any(address in network for network in networks):
        allowed = ", ".join(["loopback", *map(str, networks)])
        raise ValueError(f"{url} is no target: allowed are only this machine's own test hosts ({allowed})")
    return str(address), port


def docker_networks(
    routes: Path = Path("/proc/net/route"), interfaces: Path = Path("/sys/class/net")
) -> list[ipaddress.IPv4Network]:
    """Return the private networks on this machine's Docker bridges. Elsewhere than on Linux there are none."""
    found = []
    for line in routes.read_text().splitlines()[1:] if routes.exists() else []:
        name, destination, gateway, *_, mask = line.split()[:8]
        if gateway != "00000000" or not DOCKER_BRIDGE.fullmatch(name) or not (interfaces / name / "bridge").is_dir():
            continue
        # The kernel prints the four bytes as a number of this machine's byte order, which is little-endian.
        first, bits = (bytes.fromhex(word)[::-1] for word in (destination, mask))
        network = ipaddress.IPv4Network((first, str(ipaddress.IPv4Address(bits))))
        if network.is_private:
            found.append(network)
    return found
