"""gunicorn with its own ASGI worker: the same main process, with gunicorn's parser in the place of Uvicorn's."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Engine, Start, major
from .gunicorn import Gunicorn

#: As roles/release/files/engine-asgi.in says: before it, gunicorn's own parser can be made to take one request for two.
GUNICORN_MIN = 27


class Asgi(Gunicorn):
    """gunicorn's `asgi` worker."""

    name = "asgi"
    packages = ("gunicorn", "uvloop")
    lacks = frozenset({"service_worker_memory_max_mib", "proxy_keepalive"})

    def worker_class(self, start: Start) -> str:
        """On a host, gunicorn's class with the libraries loaded once and systemd's socket."""
        return "fleetasgi.Worker" if start.classes else "asgi"

    def own_options(self, start: Start) -> list[list[str]]:
        """Behind nginx, as long a line as that lets through; gunicorn's default is half of it."""
        loop = [] if start.loop == "auto" else [["--asgi-loop", start.loop]]
        return loop if start.bind else [*loop, ["--limit-request-line", "8190"]]

    def refusal(self, packages: Mapping[str, str]) -> str:
        """Refuse a gunicorn whose parser has known holes; see the base class."""
        version = packages.get("gunicorn", "")
        number = major(version)
        if number is None or number >= GUNICORN_MIN:
            return ""
        return (
            f"gunicorn {version}, whose parser the engine {self.name} uses: {GUNICORN_MIN} or newer is needed, older "
            "ones can be made to take one request for two (CVE-2026-134820)"
        )


ENGINE: Engine = Asgi()
