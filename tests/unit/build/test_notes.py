"""What is said of a source before it surprises."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.build.notes import LARGE, uncommitted
from plugins.module_utils.build.selection import list_folder
from plugins.module_utils.build.source import read_folder
from tests.unit.repositories import commit, git, make, repository

#: Ways in which code names a folder `dist` in the folder `frontend`, from a module in `shop`.
NAMED = [
    'app.mount("/", StaticFiles(directory="frontend/dist", html=True))',
    'app.mount("/", StaticFiles(directory="./frontend/dist/"))',
    'return FileResponse("frontend/dist/index.html")',
    'DIST = Path(__file__).parent.parent / "frontend" / "dist"',
    'DIST = BASE / "frontend/dist"',
    'DIST = os.path.join(os.path.dirname(__file__), "..", "frontend", "dist")',
    'FOLDER = "frontend/dist"\napp.mount("/", StaticFiles(directory=FOLDER))',
    'NAME = "dist"\nDIST = (BASE / "frontend").joinpath(NAME)\nDIST2 = BASE / "frontend" / NAME',
    'with open("frontend/dist/index.html", "r") as page: ...',
]


def built(root: Path, code: str) -> Path:
    """Make an app with a built front end that git ignores."""
    return repository(
        root,
        **{
            ".gitignore": "dist/\n*.log\n.venv/\n__pycache__/\n.env\n",
            "shop/main.py": code,
            "frontend/dist/index.html": "",
            "shop/dist/other": "",
            ".venv/dist/x": "",
            ".env": "A=1",
        },
    )


@pytest.mark.fault(71)
@pytest.mark.parametrize("code", NAMED)
def test_ignored_folder_that_the_code_names_is_told_and_may_be_brought(code: str, tmp_path: Path) -> None:
    root = built(tmp_path / "app", code)
    source = read_folder(root, [])
    assert source.notes == [
        "Git ignores what the code names, so it does not ship: frontend/dist (in shop/main.py). If hosts need it, set "
        "release_include: [frontend/dist]."
    ]
    assert "frontend/dist/index.html" not in source.files
    brought = read_folder(root, [], ["frontend/dist"])  # as it says
    assert brought.notes == []
    assert "frontend/dist/index.html" in brought.files


@pytest.mark.parametrize(
    "code",
    [
        'parser.add_argument("dist")',
        '"""Serves frontend/dist."""',
        'StaticFiles(directory="static/dist")',
        'open("frontend/distances")',
        "def broken(:",
        'Path(".env")',
        "StaticFiles(directory=settings.dist)",
    ],
)
def test_other_words_are_no_paths(code: str, tmp_path: Path) -> None:
    assert read_folder(built(tmp_path, code), []).notes == []


@pytest.mark.fault(71)
def test_uncommitted_changes_are_counted_and_named(tmp_path: Path) -> None:
    root = repository(tmp_path / "repo", "v1", **{f"app/{n}.py": "" for n in "abcde"}, **{"app/requirements.txt": ""})
    app = root / "app"
    assert uncommitted(app, list_folder(app)) == []
    (app / "a.py").write_text("changed = 1\n")
    (app / "new.py").write_text("")
    (app / "b.py").unlink()
    git(root, "mv", "app/c.py", "app/moved.py")
    (root / "main.py").write_text("not = 'in app'\n")
    (app / "d.py").write_text("not = 'shipped'\n")
    source = read_folder(app, ["d.py"])
    assert source.notes == ["The release holds 5 uncommitted changes: 'a.py', 'b.py', 'moved.py' and 2 more."]
    assert source.label.startswith("v1+changes (")
    assert read_folder(app, ["d.py"], ref="v1").label == source.label.replace("+changes", "")
    commit(root)
    assert read_folder(app, []).notes == []


@pytest.mark.fault(71)
def test_large_files_and_secrets_are_named(tmp_path: Path) -> None:
    make(tmp_path, **{"id_rsa": "", "prod.env": "", "exact.bin": ""})
    for name, size in {"app.db": 60_000_000, "exact.bin": LARGE}.items():
        with (tmp_path / name).open("wb") as out:
            out.truncate(size)
    source = read_folder(tmp_path, [])
    assert source.notes == [
        "Left out because they may hold secrets: id_rsa, prod.env. Set service_env instead, or name such a file in "
        "release_include.",
        "Large files ship: 'app.db' (60 MB). What hosts do not need, release_exclude leaves out.",
    ]
    assert {"id_rsa", "prod.env"}.isdisjoint(source.files)


@pytest.mark.fault(71)
def test_secret_ships_where_its_exact_name_is_included(tmp_path: Path) -> None:
    root = repository(tmp_path, **{".gitignore": "prod.env\n", "prod.env": "", "id_rsa": "", "conf/stage.env": ""})
    assert {"prod.env", "id_rsa"} < set(read_folder(root, [], ["prod.env", "id_rsa"]).files)
    named = read_folder(root, [], ["*.env", "conf", "id_*"])
    assert {"prod.env", "id_rsa", "conf/stage.env"}.isdisjoint(named.files)
    assert "conf/stage.env, id_rsa, prod.env" in named.notes[0]
