"""Which files of a folder ship, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.secret_files import is_secret
from plugins.module_utils.build.selection import (
    check_links,
    check_pointers,
    check_submodules,
    list_folder,
    list_included,
    select,
)
from plugins.module_utils.build.uv import BuildError
from tests.unit.repositories import commit, git, make, repository

NAMES = st.lists(
    st.sampled_from([".git", ".env", "a", "b.py", "__pycache__", ".env.live", "x.pyc", "docs"]), min_size=1
)


@given(st.lists(NAMES.map("/".join), unique=True))
def test_secrets_and_junk_never_ship(names: list[str]) -> None:
    ships, secrets = select(names, [], lambda name: is_secret(Path("/nowhere"), name))
    for name in ships:
        assert not {".git", "__pycache__"} & set(name.split("/"))
        assert not name.split("/")[-1].startswith(".env")
    assert all(name.split("/")[-1].startswith(".env") for name in secrets)
    assert set(ships) | set(secrets) <= set(names)


@pytest.mark.parametrize("pattern", ["docs", "docs/", "docs/a.md", "*.md", "docs/*"])
def test_exclude_matches_whole_names_and_parts(pattern: str) -> None:
    assert select(["docs/a.md", "main.py"], [pattern])[0] == ["main.py"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../out", "nowhere"])
def test_links_out_of_the_tree_are_refused_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "out").write_text("")
    root = tmp_path / "app"
    root.mkdir()
    (root / "bad").symlink_to(target)
    with pytest.raises(BuildError, match=f"'bad' is a symlink to '{target}'"):
        check_links(root, ["bad"])


def with_submodule(root: Path) -> Path:
    inner = repository(root / "inner", **{".gitignore": "*.log\n"})
    outer = repository(root / "outer")
    git(outer, "submodule", "add", str(inner), "lib")
    return commit(outer)


@pytest.mark.fault(70)
def test_submodule_ships_but_for_what_it_ignores_itself(tmp_path: Path) -> None:
    outer = with_submodule(tmp_path)
    (outer / "lib/new.py").write_text("")
    (outer / "lib/noise.log").write_text("")
    listed = list_folder(outer)
    assert {"lib/main.py", "lib/new.py", "lib/.gitignore"} < set(listed)
    assert "lib/noise.log" not in listed
    check_submodules(outer, listed)


@pytest.mark.fault(70)
@pytest.mark.parametrize("removed", [False, True])
def test_submodule_that_is_not_checked_out_is_named_with_what_to_run(tmp_path: Path, removed: bool) -> None:
    with_submodule(tmp_path)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(tmp_path / "outer"), str(clone))
    if removed:
        (clone / "lib").rmdir()
    with pytest.raises(BuildError, match=r"clone/lib is a submodule that is not checked out.* git submodule update --"):
        check_submodules(clone, list_folder(clone))
    check_submodules(clone, select(list_folder(clone), ["lib"])[0])
    git(clone, "submodule", "update", "--init", "--recursive")  # as it says
    check_submodules(clone, list_folder(clone))
    assert "lib/main.py" in list_folder(clone)
    git(clone, "rm", "--cached", ".gitmodules")
    (clone / ".gitmodules").unlink()
    for file in (*(clone / "lib").iterdir(),):
        file.unlink()
    with pytest.raises(BuildError, match=r"has a submodule 'lib', but its \.gitmodules does not say"):
        check_submodules(clone, list_folder(clone))


@pytest.mark.fault(70)
def test_pointers_of_git_lfs_are_refused_by_name(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    files = [f"models/{n}.bin" for n in range(5)]
    make(tmp_path, **dict.fromkeys(files, pointer), **{"about.md": f"A pointer begins:\n{pointer}"})
    names = sorted([*files, "about.md", "main.py"])
    with pytest.raises(
        BuildError,
        match=r"not the content: 'models/0\.bin', 'models/1\.bin', 'models/2\.bin' and 2 more\. .*: git lfs pull",
    ):
        check_pointers(tmp_path, names, fetched=False)
    with pytest.raises(BuildError, match="then deploy again"):
        check_pointers(tmp_path, names, fetched=True)
    check_pointers(tmp_path, ["about.md", "main.py"], fetched=True)


@pytest.mark.fault(71)
def test_included_names_are_files_folders_and_patterns_that_are_there(tmp_path: Path) -> None:
    make(tmp_path, **{"dist/a.js": "", "dist/node_modules/b.js": "", "data/x.csv": "", "data/y.txt": ""})
    (tmp_path / "link").symlink_to("dist")
    assert list_included(tmp_path, ["dist/", "data/*.csv", "link", "main.py"]) == {
        "dist/": ["dist/a.js"],
        "data/*.csv": ["data/x.csv"],
        "link": ["link"],
        "main.py": ["main.py"],
    }
    with pytest.raises(BuildError, match=r"release_include has 'build', but there is no such file in .* builds it"):
        list_included(tmp_path, ["build"])
    for outside in ("/etc", "../other", "a/../../b"):
        with pytest.raises(BuildError, match=r"name what is in the app's folder, relative to it\."):
            list_included(tmp_path, [outside])
