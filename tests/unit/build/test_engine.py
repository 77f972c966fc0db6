"""What an engine adds to the app's requirements, and which versions it refuses."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from plugins.module_utils.build.engine import add_engine, check_complete, check_floors, floors, is_older, merge
from plugins.module_utils.build.requirements import Pin, all_hashed, parse_pins
from plugins.module_utils.build.uv import BuildError, Uv
from plugins.module_utils.workers.engines import ENGINES
from plugins.module_utils.workers.engines.asgi import GUNICORN_MIN

FILES = Path(__file__).parents[3] / "roles/release/files"


def pin(name: str, version: str, marker: str = "", digest: str = "new") -> Pin:
    return Pin(
        name, version, marker, f"{name}=={version}{' ; ' if marker else ''}{marker} \\\n    --hash=sha256:{digest}"
    )


def test_the_apps_pin_wins() -> None:
    assert merge([pin("h11", "0.16.0")], [pin("h11", "0.16.0"), pin("click", "8")], []).count("==") == 1


def test_a_pin_for_some_platforms_does_not_hide_the_engines() -> None:
    merged = merge([pin("uvloop", "0.22", "sys_platform == 'linux'", "app")], [pin("uvloop", "0.22")], [])
    assert merged == "uvloop==0.22 \\\n    --hash=sha256:app"


def test_known_hashes_are_kept() -> None:
    assert "sha256:kept" in merge([], [pin("click", "8", "", "served")], [pin("click", "8", "", "kept")])
    assert "sha256:served" in merge([], [pin("click", "9", "", "served")], [pin("click", "8", "", "kept")])


def test_old_pin_is_named() -> None:
    with pytest.raises(BuildError, match=r"pins gunicorn 20\.1\.0, but the engine gunicorn needs gunicorn >= 26\.1"):
        check_floors([pin("gunicorn", "20.1.0")], {"gunicorn": "26.1"}, "gunicorn")
    (exact,) = parse_pins("gunicorn===25.0")
    with pytest.raises(BuildError, match=r"pins gunicorn 25\.0, but"):
        check_floors([exact], {"gunicorn": "26.1"}, "gunicorn")
    check_floors([pin("gunicorn", "26.1.0")], {"gunicorn": "26.1"}, "gunicorn")


@pytest.mark.parametrize(
    ("marker", "refused"),
    [
        ("python_full_version < '3.10'", False),
        ("python_version < '3.9' and sys_platform == 'linux'", False),
        ("python_full_version < '3.10' or sys_platform == 'linux'", True),
        ("python_full_version < '3.10' and extra == 'b' or sys_platform == 'linux'", True),
        ("python_full_version < '3.10.4'", True),
        ("sys_platform == 'win32' or platform_machine == 'arm64'", False),
        ("platform_machine == 'aarch64' and python_version >= '3.14'", True),
        ("python_full_version < '3.11'", True),
        ("python_full_version >= '3.10'", True),
    ],
)
def test_old_pin_for_a_python_that_no_host_has_is_passed_over(marker: str, refused: bool) -> None:
    (old,) = parse_pins(f"gunicorn==23.0.0 ; {marker} --hash=sha256:{'0' * 64}")
    with pytest.raises(BuildError) if refused else nullcontext():
        check_floors([old], {"gunicorn": "26.1"}, "gunicorn")


@pytest.mark.parametrize(
    ("version", "floor", "older"),
    [
        ("26.1", "27.0", True),
        ("26.9.9", "27", True),
        ("27.0.0", "27", False),
        ("27.0.1", "27.0", False),
        ("27.0rc1", "27.0", True),
        ("27.0.0.dev3", "27", True),
        ("27.0a1", "27", True),
        ("27.0.post1", "27", False),
        ("27.0+deb12", "27", False),
        ("27.1rc1", "27.0", False),
        ("3", "27", True),
    ],
)
def test_preview_of_a_floor_comes_before_it(version: str, floor: str, older: bool) -> None:
    assert is_older(version, floor) is older


def test_engine_that_parses_with_gunicorn_needs_a_newer_one() -> None:
    assert floors(FILES, "asgi")["gunicorn"] == f"{GUNICORN_MIN}.0"
    assert floors(FILES, "gunicorn")["gunicorn"] == "26.1"
    pins = [pin("gunicorn", "26.1.0")]
    check_floors(pins, floors(FILES, "gunicorn"), "gunicorn")
    with pytest.raises(
        BuildError, match=r"pins gunicorn 26\.1\.0, but the engine asgi needs gunicorn >= 27\.0\. Raise"
    ):
        check_floors(pins, floors(FILES, "asgi"), "asgi")


class NoUv(Uv):
    """Fails where something is resolved: what is refused is refused before."""

    def run(self, *args: str, cwd: Path, indexed: bool = True) -> str:
        raise AssertionError(args)


@pytest.mark.parametrize(
    ("engine", "others", "refused"),
    [("asgi", (), "asgi"), ("gunicorn", ("asgi",), "asgi"), ("gunicorn", (), ""), ("gunicorn", ("uvicorn",), "")],
)
def test_release_for_several_engines_meets_the_floors_of_each(
    engine: str, others: tuple[str, ...], refused: str
) -> None:
    """The same release goes to hosts with either: what one of them needs, it has to have."""
    text = "gunicorn==26.1.0 --hash=sha256:aa"
    with pytest.raises((BuildError, AssertionError)) as raised:
        add_engine(text, "3.10", "web1", (engine, *others), FILES, NoUv())
    assert (raised.type is BuildError) is bool(refused), raised.value
    assert f"the engine {refused} needs gunicorn >= 27.0" in str(raised.value) or not refused


@pytest.mark.parametrize("engine", ENGINES)
def test_own_lock_that_is_older_than_a_floor_builds_nothing(tmp_path: Path, engine: str) -> None:
    for file in FILES.glob("engine*"):
        (tmp_path / file.name).write_text(
            re.sub(r"^(gunicorn|uvicorn)==\S+", r"\1==26.1", file.read_text(), flags=re.M)
        )
    with pytest.raises((BuildError, AssertionError)) as raised:
        add_engine("", "3.10", "web1", [engine], tmp_path, NoUv())
    if engine == "asgi":
        assert str(raised.value).startswith(
            "engine.txt locks gunicorn 26.1, but the engine asgi needs gunicorn >= 27.0"
        )
    else:
        assert raised.type is AssertionError


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_lock_fits_engine_in(engine: str) -> None:
    least = floors(FILES, engine)
    assert set(least) == set(ENGINES[engine].packages)
    text = (FILES / "engine.txt").read_text()
    locked = {p.name: p for p in parse_pins(text)}
    assert set(least) <= set(locked)
    assert all(not is_older(locked[name].version, floor) and not locked[name].marker for name, floor in least.items())
    assert all_hashed(text)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_bring_all_that_an_engine_needs(engine: str) -> None:
    check_complete(parse_pins((FILES / "engine.txt").read_text()), floors(FILES, engine), engine)


def test_engine_whose_packages_no_file_brings_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was added by its one file alone: each host would refuse the release, again after each deploy."""
    hyper = SimpleNamespace(name="hyper", packages=("hypercorn", "uvloop"))
    monkeypatch.setitem(ENGINES, "hyper", hyper)
    for file in FILES.glob("engine*"):
        (tmp_path / file.name).write_text(file.read_text())
    text = f"fastapi==0.115.0 --hash=sha256:{'0' * 64}\n"
    with pytest.raises(BuildError, match=r"engine.in or engine-hyper.in lacks hypercorn; engine.txt lacks hypercorn"):
        add_engine(text, "3.10", "all hosts", ("hyper",), tmp_path, NoUv())
    (tmp_path / "engine-hyper.in").write_text("hypercorn>=0.17\n")
    with pytest.raises(BuildError, match=r"needs hypercorn, uvloop, but in roles/release/files engine.txt lacks hyper"):
        add_engine(text, "3.10", "all hosts", ("hyper",), tmp_path, NoUv())
