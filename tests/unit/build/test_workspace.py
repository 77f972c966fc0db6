"""Which workspace of uv an app belongs to, and whether its lock fits when uv cannot say."""

from pathlib import Path

import pytest

from plugins.module_utils.build.lock import stale_workspace
from plugins.module_utils.build.workspace import find

WORKSPACE = '[tool.uv.workspace]\nmembers = ["libs/*"]\nexclude = ["libs/old"]\n'


def projects(root: Path, **texts: str) -> Path:
    for name, text in {"a": "", "old": "", **texts}.items():
        folder = root / "libs" / name
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(text or f'[project]\nname = "{name}"\n')
    (root / "libs/none").mkdir()
    (root / "pyproject.toml").write_text(WORKSPACE)
    return root


def test_members_and_the_root_are_of_it_and_nothing_else(tmp_path: Path) -> None:
    root = projects(tmp_path / "shop")
    for folder in (root, root / "libs/a"):
        workspace = find(folder)
        assert workspace
        assert (workspace.root, workspace.members) == (root, ["libs/a"])
    assert [find(root / folder) for folder in ("libs/old", "libs/none", "libs")] == [None, None, None]
    assert find(tmp_path) is None


@pytest.mark.parametrize("text", ["no TOML", "[tool]\nuv = 1\n", "[tool.ruff]\n", "\udcff"])
def test_folder_above_that_is_no_workspace_is_passed_over(tmp_path: Path, text: str) -> None:
    root = projects(tmp_path / "above/shop")
    (tmp_path / "above/pyproject.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert find(tmp_path / "above") is None
    assert find(root / "libs/a")


def test_lock_is_compared_with_each_member(tmp_path: Path) -> None:
    workspace = find(projects(tmp_path, b='[project]\nname = "b"\nrequires-python = ">=3.12"\ndependencies = ["a"]\n'))
    assert workspace
    rows = [{"name": "a", "editable": "libs/a"}]
    own = {"name": "a", "source": {"editable": "libs/a"}}
    other = {"name": "b", "source": {"virtual": "libs/b"}, "metadata": {"requires-dist": rows}}
    assert stale_workspace(workspace, {"requires-python": ">=3.12", "package": [own, other]}) == []
    rows.append({"name": "h11", "specifier": ">=1"})
    assert stale_workspace(workspace, {"package": [own, other]}) == ["h11"]
    assert stale_workspace(workspace, {"package": [other]}) == ["a", "h11"]
