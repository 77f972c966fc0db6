"""What is read of Poetry's files without Poetry."""

from pathlib import Path

import pytest
import tomllib

from plugins.module_utils.build.poetry import CORE, constraints, locked, reads, skeleton, with_lock
from plugins.module_utils.build.uv import UnsolvedError

HASH = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "poetry"),
    [
        ("[tool.poetry.dependencies]\n", True),
        ("[tool.poetry.dependencies]\n[project]\ndynamic = ['dependencies']\n", True),
        ("[tool.poetry.dependencies]\n[project]\ndependencies = []\n", False),
        ("[tool.poetry]\n[project]\n", False),
        ("[tool.poetry.group.dev.dependencies]\n", False),
    ],
)
def test_who_knows_the_requirements(text: str, poetry: bool) -> None:
    assert reads(tomllib.loads(text)) is poetry


def test_skeleton_has_the_requirements_and_nothing_that_could_fail() -> None:
    needs = {"python": "^3.10", "a.b": [{"version": '1 "x"', "extras": ["é"], "optional": True}, {"version": "2"}]}
    poetry = {"dependencies": needs, "readme": "no.md", "packages": [{"include": "none"}], "package-mode": False}
    made = tomllib.loads(skeleton({"tool": {"poetry": poetry}}))
    assert made["tool"]["poetry"].items() >= {"dependencies": needs, "name": "app"}.items()
    assert not {"readme", "packages", "package-mode"} & set(made["tool"]["poetry"])
    assert made["build-system"]["requires"] == [CORE]
    project = {"name": "x", "readme": "no.md", "dynamic": ["version", "dependencies"], "requires-python": ">=3.12"}
    made = tomllib.loads(skeleton({"tool": {"poetry": poetry}, "project": project}))
    assert made["project"] == {
        "name": "app", "version": "0", "dynamic": ["dependencies"], "requires-python": ">=3.12",
    }  # fmt: skip


def test_lock_of_each_generation() -> None:
    row = '[[package]]\nname = "{}"\nversion = "{}"\n{}'
    oldest = row.format("H_11", "1", "") + f'[metadata.files]\nH_11 = [{{file = "h.whl", hash = "{HASH}"}}]\n'
    assert locked(oldest) == {"h-11": {"1": ("", [HASH])}}
    files = f'files = [{{file = "h.whl", hash = "{HASH}"}}, {{file = "h.tar.gz", hash = "md5:0"}}]\n'
    several = "\n".join(row.format("a", version, files) for version in ("1.9", "1.10", "1.2"))
    assert constraints(locked(several)) == "a>=1.2,<=1.10\n"
    marked = row.format("a", "1", "markers = \"os_name == 'nt'\"\n") + row.format(
        "a", "2", "markers = {main = \"os_name == 'posix'\", dev = \"os_name == 'x'\"}\n"
    )
    assert constraints(locked(marked)) == "a==1 ; os_name == 'nt'\na==2 ; os_name == 'posix'\n"


def test_hashes_come_from_the_lock() -> None:
    packages = {"a": {"1": ("", [HASH])}}
    resolved = f"a==1 ; os_name == 'posix' \\\n    --hash=sha256:{'b' * 64}\n./lib\n"
    made = with_lock(packages, resolved, Path("poetry.lock"))
    assert made == f'a==1 ; os_name == "posix" \\\n    --hash={HASH}\n./lib'
    with pytest.raises(UnsolvedError, match=r"does not fit pyproject\.toml \(it lacks a 2\)\. Run .*: poetry lock"):
        with_lock(packages, "a==2", Path("poetry.lock"))
