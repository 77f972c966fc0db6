"""What ships from a source, and what is refused."""

import os
import zipfile
from pathlib import Path

import pytest

from plugins.module_utils.build.source import read_folder, read_wheel
from plugins.module_utils.build.uv import BuildError
from tests.unit.repositories import git, make


def test_git_decides_what_ships(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "*.log\n", "noise.log": "", "new.py": "", "gone.py": "", ".env": "KEY=1"})
    git(tmp_path, "init")
    git(tmp_path, "add", "main.py", "gone.py")
    (tmp_path / "gone.py").unlink()
    found = read_folder(tmp_path, [])
    assert sorted(found.files) == [".gitignore", "main.py", "new.py", "requirements.txt"]
    assert "Left out because they may hold secrets: .env. Set" in found.notes[0]


def test_without_git_all_but_junk_ships(tmp_path: Path) -> None:
    make(tmp_path, **{".venv/x.py": "", "node_modules/y.js": "", "src/z.py": ""})
    (tmp_path / "src/link").symlink_to("z.py")
    assert sorted(read_folder(tmp_path, []).files) == ["main.py", "requirements.txt", "src/link", "src/z.py"]


def test_folder_that_is_no_app(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no app folder: it has none of uv\.lock, pyproject\.toml, requirements\.txt"):
        read_folder(tmp_path, [])


def test_description_that_git_ignores(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "requirements.txt\n"})
    git(tmp_path, "init")
    with pytest.raises(BuildError, match="ignored by git"):
        read_folder(tmp_path, [])


def test_wheel(tmp_path: Path) -> None:
    path = tmp_path / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "shop-1.0.dist-info/METADATA",
            "Name: shop\nVersion: 1.0\nRequires-Python: >=3.11\nRequires-Dist: fastapi>=0.1\n"
            "Provides-Extra: dev\nRequires-Dist: pytest; extra == 'dev'\n",
        )
    found = read_wheel(path)
    assert (found.requires_python, found.label, found.requires) == (">=3.11", "1.0", ["fastapi>=0.1"])
    assert read_wheel(path, ["Dev"]).requires == ["fastapi>=0.1", "pytest; extra == 'dev'"]
    with pytest.raises(BuildError, match=r"shop-1\.0-py3-none-any\.whl has no extra 'nope'; it has: dev\."):
        read_wheel(path, ["dev", "nope"])
    compiled = path.rename(tmp_path / "shop-1.0-cp311-cp311-linux_x86_64.whl")
    with pytest.raises(BuildError, match="compiled code for one platform"):
        read_wheel(compiled)
    compiled.write_text("no zip")
    with pytest.raises(BuildError, match=r"is not a readable wheel"):
        read_wheel(compiled)
    with zipfile.ZipFile(compiled, "w") as wheel:
        wheel.writestr("shop.py", "app = 1\n")
    with pytest.raises(BuildError, match=r"is not a readable wheel: it has no METADATA"):
        read_wheel(compiled)


def test_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: real(p, mode) and Path(p).name != "main.py")
    with pytest.raises(BuildError, match=r"main\.py cannot be read"):
        read_folder(tmp_path, [])


@pytest.mark.fault(72)
def test_link_in_a_dot_folder_does_not_stop_the_build(tmp_path: Path) -> None:
    """Editors and assistants leave links that lead nowhere, or out of the project."""
    make(tmp_path, **{"requirements.txt": "", "main.py": ""})
    (tmp_path / ".tool").mkdir()
    (tmp_path / ".tool/gone").symlink_to("/nowhere")
    (tmp_path / ".#main.py").symlink_to("me@host:1")
    (tmp_path / ".tool/good").symlink_to("../main.py")
    source = read_folder(tmp_path, [])
    assert set(source.files) == {"requirements.txt", "main.py", ".tool/good"}
    (note,) = source.notes
    assert note == "Left out because they lead to nothing in the release: '.#main.py', '.tool/gone'."
    (tmp_path / "plain").symlink_to("/nowhere")
    with pytest.raises(BuildError, match="'plain' is a symlink to '/nowhere'"):
        read_folder(tmp_path, [])


@pytest.mark.fault(71)
def test_what_is_included_ships_unless_it_is_left_out_or_never_does(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "dist\n", "dist/a.js": "", "dist/a.js.map": "", "node_modules/x.js": ""})
    git(tmp_path, "init")
    found = read_folder(tmp_path, ["*.map"], ["dist"]).files
    assert "dist/a.js" in found
    assert "dist/a.js.map" not in found
    for include, exclude in (("dist", "dist"), ("node_modules/x.js", "tests")):
        with pytest.raises(BuildError, match=f"release_include has '{include}', of which nothing ships: release_exclu"):
            read_folder(tmp_path, [exclude], [include])
