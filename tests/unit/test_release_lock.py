"""Requirements: read, merged with the engine's, and compared with what hosts have."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.release_lock import (
    ENGINES,
    Pin,
    all_hashed,
    blocks,
    check_floors,
    floors,
    lowest_python,
    merge,
    numbers,
    parse_pins,
    python_meets,
    stale_lock,
)
from plugins.module_utils.release_uv import BuildError, explain

FILES = Path(__file__).parents[2] / "roles/release/files"
LOCK = """# a comment
Foo_Bar==1.2 ; python_full_version < '3.11' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via x
baz[extra]==2.0 --hash=sha256:cc
./local
-e ../other
"""


def test_blocks_join_continuations() -> None:
    assert [block.split("\n")[0] for block in blocks(LOCK)] == [
        "Foo_Bar==1.2 ; python_full_version < '3.11' \\",
        "baz[extra]==2.0 --hash=sha256:cc",
        "./local",
        "-e ../other",
    ]


def test_pins() -> None:
    first, second = parse_pins(LOCK)
    assert (first.name, first.version, first.marker) == ("foo-bar", "1.2", "python_full_version < '3.11'")
    assert first.text.count("--hash=") == 2
    assert (second.name, second.version, second.marker) == ("baz", "2.0", "")


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
            st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True),
            st.lists(st.from_regex(r"[0-9a-f]{8}", fullmatch=True), min_size=1, max_size=3),
        ),
        max_size=8,
    )
)
def test_every_pin_is_read_back(rows: list[tuple[str, str, list[str]]]) -> None:
    text = "".join(
        f"{n}=={v} \\\n    " + " \\\n    ".join(f"--hash=sha256:{h}" for h in hs) + "\n" for n, v, hs in rows
    )
    pins = parse_pins(text)
    assert [(pin.name, pin.version) for pin in pins] == [(n, v) for n, v, _ in rows]
    assert all_hashed(text)


@pytest.mark.parametrize(
    "text", ["foo==1\n", "-r more.txt\nfoo==1 --hash=sha256:aa\n", "foo==1 --hash=sha256:a\nbar\n"]
)
def test_what_is_not_fully_hashed_is_resolved(text: str) -> None:
    assert not all_hashed(text)


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
    check_floors([pin("gunicorn", "26.1.0")], {"gunicorn": "26.1"}, "gunicorn")


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_lock_fits_engine_in(engine: str) -> None:
    least = floors((FILES / "engine.in").read_text(), engine)
    assert set(least) == set(ENGINES[engine])
    text = (FILES / "engine.txt").read_text()
    locked = {p.name: p for p in parse_pins(text)}
    assert set(least) <= set(locked)
    assert all(
        numbers(locked[name].version) >= numbers(floor) and not locked[name].marker for name, floor in least.items()
    )
    assert all_hashed(text)


@pytest.mark.parametrize(
    ("python", "requires", "good"),
    [
        ("3.11", "", True),
        ("3.11", ">=3.11", True),
        ("3.10", ">=3.11", False),
        ("3.12", ">=3.10,<3.12", False),
        ("3.11", ">=3.10,<3.12", True),
        ("3.11", ">=3.11.4", True),
        ("3.11", "<3.11.4", True),
        ("3.13", "~=3.11", True),
        ("4.0", "~=3.11", False),
        ("3.13", "~=3.11.0", False),
        ("3.11", "~=3.11.2", True),
        ("3.12", "==3.12.*", True),
        ("3.12", "==3.11.*", False),
        ("3.12", "!=3.12.*", False),
        ("3.12", "!=3.12.1", True),
        ("3.12", ">3.12", False),
        ("3.12", "<=3.11", False),
        ("3.12", "<4", True),
        ("3.12", ">= 3.10, < 4.0", True),
    ],
)
def test_requires_python(python: str, requires: str, good: bool) -> None:
    assert python_meets(python, requires) is good


@pytest.mark.parametrize(
    ("requires", "low"), [("", "3.10"), (">=3.8", "3.10"), (">=3.12,<4", "3.12"), ("~=3.11.2", "3.11")]
)
def test_lowest_python(requires: str, low: str) -> None:
    assert lowest_python(requires) == low


def test_stale_lock_names_what_differs() -> None:
    needed = ["fastapi[all] >=0.1, <2 ; python_version>'3'", "Ty_per"]
    project: dict[str, Any] = {"project": {"name": "A", "dependencies": needed}}
    rows = [{"name": "fastapi", "specifier": "<2,>=0.1"}, {"name": "ty-per"}, {"name": "x", "marker": "extra == 'dev'"}]
    lock: dict[str, Any] = {"package": [{"name": "a", "source": {"virtual": "."}, "metadata": {"requires-dist": rows}}]}
    assert stale_lock(project, lock) == []
    project["project"]["dependencies"] = ["fastapi>=0.2,<2", "typer", "new"]
    assert stale_lock(project, lock) == ["fastapi", "new", "ty-per", "typer"]
    project["project"]["requires-python"] = ">=3.12"
    assert "requires-python" in stale_lock(project, lock)


@pytest.mark.parametrize(
    ("stderr", "want"),
    [
        ("cause: Hash mismatch for `h11==0.16.0`", "file of h11==0.16.0"),
        ("Because docopt==0.6.2 has no\n usable wheels and", "docopt 0.6.2 has no wheel for Python 3.11"),
        ("Because uvloop==0.19.0 has no wheels with a matching Python ABI tag", "uvloop 0.19.0 has no wheel"),
        ("client error (Connect)", "package index could not be reached while locking for Python 3.11"),
        ("Because zzz was not found in the package registry", "does not have zzz"),
        ("Because there is no version of foo==9 and", "does not have foo==9"),
        ("boom at https://u:p@h/", "uv said:\nboom at https://***@h/"),
    ],
)
def test_what_uv_says_is_explained(stderr: str, want: str) -> None:
    assert want in explain(stderr, "locking", "Python 3.11 on x86_64 (web1)")
