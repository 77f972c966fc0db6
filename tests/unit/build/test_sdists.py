"""Source distributions: how one says that it is to be built, what it may ask for, and whose login is used for it."""

from __future__ import annotations

import io
import tarfile
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.requirements import Pin
from plugins.module_utils.build.sdists import build_system, check_requirements, login_for
from plugins.module_utils.build.uv import BuildError, Uv

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


@pytest.mark.parametrize("variable", ["helper===${HOME}", "helper ; sys_platform == '${HOME}'", "helper==1 # x"])
def test_variables_that_uv_would_expand_are_refused(variable: str) -> None:
    with pytest.raises(BuildError, match="is not a name with versions"):
        check_requirements([variable], "pure 1.0")


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
