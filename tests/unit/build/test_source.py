"""What ships from a source, and what is refused."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.source import (
    check_links,
    describe,
    fetch_git,
    list_folder,
    parse_git,
    read_folder,
    read_wheel,
    select,
)
from plugins.module_utils.build.uv import BuildError

NAMES = st.lists(
    st.sampled_from([".git", ".env", "a", "b.py", "__pycache__", ".env.live", "x.pyc", "docs"]), min_size=1
)


def git(root: Path, *args: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True)


def make(root: Path, **files: str) -> Path:
    for name, text in {"requirements.txt": "fastapi\n", "main.py": "app = 1\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@given(st.lists(NAMES.map("/".join), unique=True))
def test_secrets_and_junk_never_ship(names: list[str]) -> None:
    ships, secrets = select(names, [])
    for name in ships:
        assert not {".git", "__pycache__"} & set(name.split("/"))
        assert not name.split("/")[-1].startswith(".env")
    assert all(name.split("/")[-1].startswith(".env") for name in secrets)
    assert set(ships) | set(secrets) <= set(names)


@pytest.mark.parametrize("pattern", ["docs", "docs/", "docs/a.md", "*.md", "docs/*"])
def test_exclude_matches_whole_names_and_parts(pattern: str) -> None:
    assert select(["docs/a.md", "main.py"], [pattern])[0] == ["main.py"]


def test_git_decides_what_ships(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "*.log\n", "noise.log": "", "new.py": "", "gone.py": "", ".env": "KEY=1"})
    git(tmp_path, "init")
    git(tmp_path, "add", "main.py", "gone.py")
    (tmp_path / "gone.py").unlink()
    found = read_folder(tmp_path, [])
    assert sorted(found.files) == [".gitignore", "main.py", "new.py", "requirements.txt"]
    assert found.notes == ["Left out because they may hold secrets: .env. Set service_env instead."]


def test_without_git_all_but_junk_ships(tmp_path: Path) -> None:
    make(tmp_path, **{".venv/x.py": "", "node_modules/y.js": "", "src/z.py": ""})
    (tmp_path / "src/link").symlink_to("z.py")
    assert sorted(read_folder(tmp_path, []).files) == ["main.py", "requirements.txt", "src/link", "src/z.py"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../out", "nowhere"])
def test_links_out_of_the_tree_are_refused_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "out").write_text("")
    root = tmp_path / "app"
    root.mkdir()
    (root / "bad").symlink_to(target)
    with pytest.raises(BuildError, match=f"'bad' is a symlink to '{target}'"):
        check_links(root, ["bad"])


def test_folder_that_is_no_app(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no app folder: it has none of uv\.lock, pyproject\.toml, requirements\.txt"):
        read_folder(tmp_path, [])


def test_description_that_git_ignores(tmp_path: Path) -> None:
    make(tmp_path, **{".gitignore": "requirements.txt\n"})
    git(tmp_path, "init")
    with pytest.raises(BuildError, match="ignored by git"):
        read_folder(tmp_path, [])


def test_label_says_when_there_are_changes(tmp_path: Path) -> None:
    assert describe(tmp_path, {"project": {"version": "1.2"}}) == "1.2"
    make(tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    git(tmp_path, "tag", "v3")
    assert describe(tmp_path, {}) == "v3"
    (tmp_path / "main.py").write_text("app = 2\n")
    assert describe(tmp_path, {}) == "v3+changes"


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("git+https://h/o/r", ("https://h/o/r", "HEAD", "")),
        ("git+https://h/o/r@v1", ("https://h/o/r", "v1", "")),
        ("git+https://u:p@h/o/r.git@f/x#subdirectory=a/b", ("https://u:p@h/o/r.git", "f/x", "a/b")),
        ("git+https://u:p@h/o/r", ("https://u:p@h/o/r", "HEAD", "")),
        ("git+ssh://git@h/o/r@main", ("ssh://git@h/o/r", "main", "")),
        ("git+file:///srv/r@HEAD", ("file:///srv/r", "HEAD", "")),
        ("git+git@h:o/r", ("git@h:o/r", "HEAD", "")),
        ("git+git@h:o/r@v1#subdirectory=a/", ("git@h:o/r", "v1", "a")),
        ("git+ssh://git@h/o/r@", ("ssh://git@h/o/r", "HEAD", "")),
        ("git+file:///srv/a@b/r@v1", ("file:///srv/a@b/r", "v1", "")),
    ],
)
def test_git_sources(source: str, want: tuple[str, str, str]) -> None:
    assert parse_git(source) == want


def test_git_ref_is_fetched(tmp_path: Path) -> None:
    repo = make(tmp_path / "repo", **{"sub/requirements.txt": "fastapi\n"})
    git(repo, "init")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "x")
    git(repo, "tag", "v1")
    (repo / "main.py").write_text("later = 1\n")
    git(repo, "commit", "-am", "y")
    cache = tmp_path / "cache"
    root, label = fetch_git(f"git+file://{repo}@v1", cache, tmp_path / "one")
    assert (root / "main.py").read_text() == "app = 1\n"
    assert label == "v1"
    assert (fetch_git(f"git+file://{repo}", cache, tmp_path / "two")[0] / "main.py").read_text() == "later = 1\n"
    assert fetch_git(f"git+file://{repo}#subdirectory=sub", cache, tmp_path / "three")[0].name == "sub"
    with pytest.raises(BuildError, match="no branch, tag or commit v9"):
        fetch_git(f"git+file://{repo}@v9", cache, tmp_path / "four")
    with pytest.raises(BuildError, match="could not fetch file:///nowhere"):
        fetch_git("git+file:///nowhere", cache, tmp_path / "five")


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


def test_submodule_files_ship(tmp_path: Path) -> None:
    inner, outer = make(tmp_path / "inner"), make(tmp_path / "outer")
    for repo in (inner, outer):
        git(repo, "init")
        git(repo, "add", ".")
        git(repo, "commit", "-m", "x")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", str(inner), "lib")
    assert "lib/main.py" in list_folder(outer)


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
