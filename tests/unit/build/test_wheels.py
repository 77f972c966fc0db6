"""Wheels that no index has: taken out, asked of the cache, and else of a host."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from plugins.module_utils.build import wheels
from plugins.module_utils.build.cache import Cache, save
from plugins.module_utils.build.request import Platform
from plugins.module_utils.build.requirements import Pin
from plugins.module_utils.build.sdists import Sdist
from plugins.module_utils.build.uv import BuildError, Uv, UvError
from plugins.module_utils.build.wheels import WheelsNeededError, accept, install, key_of

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


@pytest.mark.parametrize(
    ("inside", "built", "noted"),
    [
        ("src/_fast.c", "pure.py", True),
        ("src/_fast.pyx", "_fast.cpython-312-x86_64-linux-gnu.so", False),
        ("pure.py", "pure.py", False),
        ("tests/data/x.c", "pure.py", False),
    ],
)
def test_build_that_fell_back_to_pure_python_is_told(tmp_path: Path, inside: str, built: str, noted: bool) -> None:
    """As crcmod's does where there is no compiler: it ends well, and the code is a hundred times slower."""

    class Takes(Uv):
        def run(self, *args: str, cwd: Path, indexed: bool = True) -> str:
            target = Path(args[args.index("--target") + 1])
            target.mkdir()
            (target / built).touch()
            return ""

    cache = Cache(tmp_path / "cache")
    with cache.put("sdists", "5d" * 32) as new:
        (new / "file").mkdir()
        with tarfile.open(new / "file/pure-1.0.tar.gz", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(f"pure-1.0/{inside}"))
        about = {"name": "pure", "version": "1.0", "sha256": "5d" * 32, "requires": [], "backend": "b:b"}
        save(new / "about.json", {**about, "backend_path": []})
    wheel = tmp_path / "made/pure-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(built, "")
    result = {"key": f"{'5d' * 32}-3.12-x86_64", "host": "web1", "have": [], "seconds": 2.0, "wheel": str(wheel)}
    (note,) = accept([result], cache, Takes("/no/uv"))
    assert note.startswith("pure 1.0 was built from source in 2 s, for Python 3.12 on x86_64 (web1).")
    assert (f"It holds code to compile ({inside}), but the wheel has none that is compiled" in note) is noted
