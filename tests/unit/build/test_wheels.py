"""Source distributions: how one says that it is to be built, what it may ask for, and whose login is used for it."""

from __future__ import annotations

import io
import stat
import sys
import tarfile
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.lock import Pin
from plugins.module_utils.build.sdists import build_system, check_requirements, login_for
from plugins.module_utils.build.uv import BuildError, Uv, lacks_wheel
from plugins.module_utils.host.sdist import Job, SdistError, collect, environment, explain
from plugins.module_utils.host.sdist_hook import lacking, own_scripts

PIN = Pin("pure", "1.0", "", "pure==1.0")
LEGACY: tuple[list[str], str, list[str]] = (["setuptools>=40.8.0"], "setuptools.build_meta:__legacy__", [])


def sdist(folder: Path, text: str | None, kind: str = "tar.gz", name: str = "pure-1.0/pyproject.toml") -> Path:
    file = folder / f"pure-1.0.{kind}"
    files = {"pure-1.0/inner/pyproject.toml": "[", **({name: text} if text is not None else {})}
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for path, inside in files.items():
                archive.writestr(path, inside)
        return file
    with tarfile.open(file, "w:gz") as packed:
        for path, inside in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(inside)
            packed.addfile(info, io.BytesIO(inside.encode()))
    return file


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("text", "want"),
    [
        (None, LEGACY),
        ("[tool.x]\n", LEGACY),
        ('[build-system]\nrequires = ["wheel"]\n', (["wheel"], "setuptools.build_meta:__legacy__", [])),
        (
            '[build-system]\nrequires = []\nbuild-backend = "b:x.y"\nbackend-path = ["build"]\n',
            ([], "b:x.y", ["build"]),
        ),
    ],
)
def test_how_it_is_to_be_built(
    tmp_path: Path, kind: str, text: str | None, want: tuple[list[str], str, list[str]]
) -> None:
    assert build_system(sdist(tmp_path, text, kind), PIN) == want


@pytest.mark.parametrize(
    "text",
    ["[build-system", "[build-system]\nbuild-backend = 'x'\n", "build-system = 1\n", "[build-system]\nrequires = 1\n"],
)
def test_what_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(BuildError, match=r"the source of pure 1\.0, cannot be read"):
        build_system(sdist(tmp_path, text), PIN)
    (tmp_path / "no.tar.gz").write_bytes(b"x")
    with pytest.raises(BuildError, match="cannot be read"):
        build_system(tmp_path / "no.tar.gz", PIN)


@pytest.mark.parametrize(
    "good",
    [
        "setuptools",
        "setuptools>=61, <80",
        "Cython ~= 3.0 ; python_version >= '3.9'",
        "setuptools-scm[toml]>=8",
        "numpy==2.*",
        "x (>=1.0)",
    ],
)
def test_requirements_by_name(good: str) -> None:
    check_requirements([good], "pure 1.0")


@given(
    st.sampled_from(["@ https://me:hush@x/y.whl", "\n-r /etc/passwd", "\r--index-url x", "\\\n-r x"]),
    st.sampled_from(["helper", "helper[x]", "helper>=1", "helper ; python_version > '3'", ""]),
)
def test_requirements_that_are_more(more: str, before: str) -> None:
    with pytest.raises(BuildError, match="is not a name with versions") as caught:
        check_requirements([f"{before}{more}"], "pure 1.0")
    assert "hush" not in str(caught.value)


def test_odd_requirement_is_judged_at_once() -> None:
    for odd in ("!1", "1!", ">1", "1,", " ,"):
        with pytest.raises(BuildError):
            check_requirements([f"a>=1{odd * 500}@"], "pure 1.0")


@pytest.mark.parametrize("bad", ["-r x", "--index-url=x", "./x", "/x", "https://x", "", "-e ."])
def test_options_and_paths_are_none(bad: str) -> None:
    with pytest.raises(BuildError):
        check_requirements([bad], "pure 1.0")


def test_login_of_the_index_on_the_same_server_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_INDEX", "own=https://you:word@own.example/simple https://plain.example/simple")
    indexes = [*Uv(None, "https://me:hu%40sh@pkg.example:8443/simple").indexes(), "--index", "https://x.example"]

    def login(url: str) -> str:
        return login_for(urllib.parse.urlsplit(url), indexes)

    assert login("https://pkg.example:8443/files/a.tar.gz") == "me:hu%40sh"
    assert login("https://own.example/files/a.tar.gz") == "you:word"
    for other in ("http://own.example/a", "https://pkg.example/a", "https://plain.example/a", "https://x.example/a"):
        assert login(other) == ""
    (tmp_path / ".netrc").write_text("machine x.example login me password p@ss\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert login("https://x.example/a") == "me:p%40ss"


def test_uv_says_what_lacks_a_wheel() -> None:
    said = "error: No solution\n  cause: Because Foo_Bar==1.2 has no usable\n  wheels and you require Foo_Bar==1.2"
    assert lacks_wheel(said) == ("foo-bar", "1.2")
    assert lacks_wheel("error: Hash mismatch for `foo==1.2`") is None


def test_what_a_backend_lacks(tmp_path: Path) -> None:
    (tmp_path / "Foo_Bar-1.0.dist-info").mkdir()
    assert lacking(["foo-bar", "FOO.BAR", "foo-bar>=2", "other", "had>=1"], ["had>=1"], tmp_path) == [
        "foo-bar>=2",
        "other",
    ]


def test_scripts_start_with_the_hosts_python(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!/controller/python3\nprint(1)\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "binary").write_bytes(b"\x7fELF#!python")
    own_scripts(tmp_path)
    assert (tmp_path / "tool").read_text() == f"#!{sys.executable}\nprint(1)\n"
    assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == 0o755
    assert (tmp_path / "binary").read_bytes() == b"\x7fELF#!python"
    own_scripts(tmp_path / "absent")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("pure", "1.0", tmp_path / "pure.tar.gz", tmp_path / "tools.tar.gz", "b", limit=900)


def test_last_lines_of_a_build_are_shown(job: Job) -> None:
    said = explain(job, "\n".join(f"line {n}" for n in range(100)), late=False)
    assert "line 99" in said
    assert "line 75" in said
    assert "line 74" not in said
    assert "within 900 s. If it only needs longer, raise release_build_timeout." in explain(job, "", late=True)


def test_environment_is_none_of_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    found = environment(tmp_path)
    assert "TOKEN" not in found
    assert {value for value in found.values() if "/" in value and str(tmp_path) not in value} == set()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"wheel": 1}', '{"wheel": "a/b-1-py3-none-any.whl"}', '{"wheel": "x.whl"}']
)
def test_results_that_say_nothing(job: Job, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(SdistError, match="but left no wheel"):
        collect(job, tmp_path, tmp_path)
