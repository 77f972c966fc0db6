"""Requirements: read, merged with the engine's, and compared with what hosts have."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.lock import (
    Pin,
    add_engine,
    all_hashed,
    blocks,
    check_floors,
    floors,
    how_to_lock,
    is_older,
    lowest_python,
    merge,
    numbers,
    parse_pins,
    python_meets,
    read_lock,
    stale_lock,
)
from plugins.module_utils.build.platforms import Wanted, check_manifest
from plugins.module_utils.build.source import Source
from plugins.module_utils.build.uv import BuildError, Uv, explain
from plugins.module_utils.workers.engines import ENGINES
from plugins.module_utils.workers.engines.asgi import GUNICORN_MIN

FILES = Path(__file__).parents[3] / "roles/release/files"
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


def wheel(tmp_path: Path, *extras: str) -> Source:
    path = tmp_path / "shop_x-1.0-py3-none-any.whl"
    project = {"project": {"name": "Shop_X", "requires-python": ">=3.11"}}
    return Source("wheel", tmp_path, {}, "1.0", [], project, path, ["anyio"], list(extras))


def lock_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "lock.txt").write_text(text)
    return str(tmp_path / "lock.txt")


def test_how_a_lock_is_made(tmp_path: Path) -> None:
    common = "uv pip compile --universal --generate-hashes --python-version"
    made = how_to_lock(wheel(tmp_path, "s3", "all"), "my lock.txt")
    path = f"'{tmp_path}/shop_x-1.0-py3-none-any.whl[s3,all]'"
    assert made == f"echo {path} | {common} 3.11 -o 'my lock.txt' --no-emit-package Shop_X -"
    folder = Source("requirements.txt", tmp_path, {}, "")
    assert how_to_lock(folder).endswith(f"{common} 3.10 -o requirements.lock.txt requirements.txt")


@pytest.mark.parametrize(
    "itself",
    [
        "-e .",
        ".",
        "shop-x==1.0 --hash=sha256:00",
        "shop.x[s3]==1.0 --hash=sha256:00",
        "./dist/shop_x-1.0-py3-none-any.whl --hash=sha256:00",
        "shop-x @ file:///dist/shop_x-1.0-py3-none-any.whl \\\n    --hash=sha256:00",
    ],
)
def test_a_lock_names_all_but_the_source_itself(tmp_path: Path, itself: str) -> None:
    """As `uv export` writes, and `uv pip compile` without --no-emit-package."""
    rest = "--index-url https://example.org/simple\nshop-x-y==1 --hash=sha256:aa\n"
    path = lock_file(tmp_path, f"# by uv\n{itself}\n{rest}    # via shop-x\n")
    assert read_lock(wheel(tmp_path), path) + "\n" == rest


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("anyio==4.0\n", "has no hash for anyio"),
        ("h11==1 --hash=sha256:aa\nanyio>=4 ; python_version > '3'\n", "has no hash for anyio"),
        ("-r more.txt\n", "has no hash for -r"),
        ("--constraint=more.txt\n", "has no hash for --constraint"),
    ],
)
def test_a_lock_without_hashes_is_refused(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(BuildError, match=rf"lock\.txt {want}\. Make it with: echo \S+\.whl \| uv pip compile .*-o \S+"):
        read_lock(wheel(tmp_path), lock_file(tmp_path, text))


def test_a_lock_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"release_lock nowhere does not exist .* Make it with: echo"):
        read_lock(wheel(tmp_path), "nowhere")
    with pytest.raises(BuildError, match=r"cannot be read: .*Is a directory"):
        read_lock(wheel(tmp_path), str(tmp_path))
    (tmp_path / "lock.txt").write_bytes(b"\xff")
    with pytest.raises(BuildError, match=r"lock\.txt cannot be read"):
        read_lock(wheel(tmp_path), str(tmp_path / "lock.txt"))


def test_two_locks_are_refused(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "anyio==4 --hash=sha256:aa\n")
    with pytest.raises(
        BuildError, match=r"release_lock is .*/lock\.txt, but app_source has a lock of its own, uv\.lock"
    ):
        read_lock(Source("uv.lock", tmp_path, {}, ""), path)
    hashed = Source("requirements.txt", tmp_path, {"requirements.txt": Path(path)}, "")
    with pytest.raises(BuildError, match=r"a lock of its own, requirements\.txt"):
        read_lock(hashed, path)
    hashed.files["requirements.txt"].write_text("anyio\n")
    with pytest.raises(BuildError, match="no hash"):
        read_lock(hashed, path)


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
        ("python_full_version < '3.10' and a == 'b' or sys_platform == 'linux'", True),
        ("python_full_version < '3.11'", True),
        ("python_full_version >= '3.10'", True),
    ],
)
def test_old_pin_for_a_python_that_no_host_has_is_passed_over(marker: str, refused: bool) -> None:
    (old,) = parse_pins(f"gunicorn==23.0.0 ; {marker} --hash=sha256:{'0' * 64}")
    assert old.marker == marker
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
    tmp_path: Path, engine: str, others: tuple[str, ...], refused: str
) -> None:
    """The same release goes to hosts with either: what one of them needs, it has to have."""
    text = "gunicorn==26.1.0 --hash=sha256:aa"
    source = Source("requirements.txt", tmp_path, {}, "")
    with pytest.raises((BuildError, AssertionError)) as raised:
        add_engine(text, source, engine, FILES, NoUv(), others)
    assert (raised.type is BuildError) is bool(refused), raised.value
    assert f"the engine {refused} needs gunicorn >= 27.0" in str(raised.value) or not refused


@pytest.mark.parametrize("engine", ENGINES)
def test_own_lock_that_is_older_than_a_floor_builds_nothing(tmp_path: Path, engine: str) -> None:
    for file in FILES.glob("engine*"):
        (tmp_path / file.name).write_text(
            re.sub(r"^(gunicorn|uvicorn)==\S+", r"\1==26.1", file.read_text(), flags=re.M)
        )
    source = Source("requirements.txt", tmp_path, {}, "")
    with pytest.raises((BuildError, AssertionError)) as raised:
        add_engine("", source, engine, tmp_path, NoUv())
    if engine == "asgi":
        assert str(raised.value).startswith(
            "engine.txt locks gunicorn 26.1, but the engine asgi needs gunicorn >= 27.0"
        )
    else:
        assert raised.type is AssertionError


@pytest.mark.parametrize(
    ("engines", "refused"), [(("asgi",), True), (("gunicorn", "asgi"), True), (("gunicorn",), False)]
)
def test_artifact_that_was_built_before_meets_the_floors_too(engines: tuple[str, ...], refused: bool) -> None:
    packages = {pin.name: pin.version for pin in parse_pins((FILES / "engine.txt").read_text())} | {
        "gunicorn": "26.1.0"
    }
    manifest = {"app": "shop", "module": "main:app", "engine": engines[0], "packages": packages}
    wanted = Wanted("shop", "a.tar.gz", "main:app", [], engines[0], FILES, [], engines=engines)
    try:
        check_manifest(wanted, Path("a.tar.gz"), manifest)
        said = ""
    except BuildError as error:
        said = str(error)
    assert said == (
        "a.tar.gz holds gunicorn 26.1.0, but the engine asgi needs gunicorn >= 27.0. Build it again." if refused else ""
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_lock_fits_engine_in(engine: str) -> None:
    least = floors(FILES, engine)
    assert set(least) == set(ENGINES[engine].packages)
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
