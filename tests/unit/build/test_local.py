"""What a member of a workspace takes along of the other members: what ships of them, as of the app itself."""

from pathlib import Path

import pytest

from plugins.module_utils.build import workspace
from plugins.module_utils.build.local import siblings
from plugins.module_utils.build.source import read_folder
from plugins.module_utils.build.uv import BuildError
from tests.unit.repositories import make

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def members(root: Path, **files: str) -> dict[str, Path]:
    """Return what the app `api` takes along of the member `lib`, which has these files."""
    make(root, **{"pyproject.toml": '[tool.uv.workspace]\nmembers = ["api", "lib"]\n', "uv.lock": ""})
    for name in ("api", "lib"):
        make(root / name, **{"pyproject.toml": f'[project]\nname = "{name}"\nversion = "1"\n'})
    make(root / "lib", **files)
    return siblings(workspace.read(read_folder(root / "api", [])), ["lib", "api"], ["*.md"])


@pytest.mark.fault(71)
def test_secrets_of_other_members_do_not_ship(tmp_path: Path) -> None:
    names = set(
        members(tmp_path, **{".env": "", "tls/server.key": "PRIVATE KEY", "tls/ca.pem": "CERTIFICATE", "a.md": ""})
    )
    assert names == {"pyproject.toml", "lib/pyproject.toml", "lib/requirements.txt", "lib/main.py", "lib/tls/ca.pem"}


@pytest.mark.fault(70)
def test_pointers_of_git_lfs_in_other_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"only the pointers of Git LFS are there, not the content: 'model.bin'"):
        members(tmp_path, **{"model.bin": POINTER})
