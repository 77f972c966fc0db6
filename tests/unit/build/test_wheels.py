"""Wheels that no index has: taken out, asked of the cache, and else of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.build import wheels
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.request import Platform
from plugins.module_utils.build.requirements import Pin
from plugins.module_utils.build.sdists import Sdist
from plugins.module_utils.build.uv import BuildError, Uv, UvError
from plugins.module_utils.build.wheels import WheelsNeededError, install, key_of

PLATFORM = Platform("3.12", "x86_64", ["web1", "web2"])
LOCK = """pure==1.0 ; python_version < '3.13' --hash=sha256:aa
h11==0.16 --hash=sha256:bb
pure==1.0 --hash=sha256:aa
"""


class Picky(Uv):
    """Installs what has a wheel; `pure` has none on the index."""

    def __init__(self) -> None:
        super().__init__("/no/uv")
        self.installed: list[str] = []

    def run(self, *args: str, cwd: Path, indexed: bool = True) -> str:
        if "-r" not in args:
            self.installed.append(args[-1])
            return ""
        text = Path(args[args.index("-r") + 1]).read_text()
        if "pure==1.0" in text:
            raise UvError("Because pure==1.0 has no usable wheels and you require pure==1.0")
        self.installed.append(text)
        return ""


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(pin: Pin, *_: object) -> Sdist:
        return Sdist(pin.name, pin.version, "5d" * 32, "/cache/pure-1.0.tar.gz", ["flit"], "flit.api", [])

    monkeypatch.setattr(wheels, "fetch", fetch)
    monkeypatch.setattr(wheels, "tools", lambda *_: Path("/cache/tools.tar.gz"))


def test_hosts_may_not_build_unless_asked_to(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"pure 1\.0 has no wheel for Python 3\.12 on x86_64 \(web1, web2\)"):
        install(LOCK, PLATFORM, [], Cache(tmp_path / "cache"), Picky(), tmp_path, False)


def test_a_host_is_asked_once_for_what_no_index_has(tmp_path: Path) -> None:
    """Although the lock names it twice: for some platforms by the app, and by the engine."""
    uv = Picky()
    with pytest.raises(WheelsNeededError, match=r"^pure 1\.0 on web1$") as raised:
        install(LOCK, PLATFORM, [], Cache(tmp_path / "cache"), uv, tmp_path, True)
    (build,) = raised.value.builds
    assert (build["key"], build["host"], build["have"]) == (f"{'5d' * 32}-3.12-x86_64", "web1", ["flit"])
    assert uv.installed == ["h11==0.16 --hash=sha256:bb\n"]


def test_what_a_host_has_built_is_taken_from_the_cache(tmp_path: Path) -> None:
    cache, uv = Cache(tmp_path / "cache"), Picky()
    with cache.put("built", key_of("5d" * 32, PLATFORM)) as new:
        (new / "pure-1.0-py3-none-any.whl").write_bytes(b"")
    install(LOCK, PLATFORM, [], cache, uv, tmp_path, True)
    assert uv.installed == ["h11==0.16 --hash=sha256:bb\n", "pure==1.0"]
