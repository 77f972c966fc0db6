"""uv's workspaces: the root with and without a [project], and a member, deployed whole."""

from pathlib import Path

import pytest

from tests.integration.sources import follow, names, refused, run, version, write
from tests.integration.test_release_build import index_answers

pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")

BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
WORKSPACE = '[tool.uv.workspace]\nmembers = ["packages/*"]\nexclude = ["packages/old"]\n'
SOURCES = "[tool.uv.sources]\nlib = { workspace = true }\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def member(name: str, dependencies: str, more: str = BUILD, requires: str = ">=3.11") -> str:
    return (
        f'[project]\nname = "{name}"\nversion = "1"\nrequires-python = "{requires}"\n'
        f"dependencies = [{dependencies}]\n{more}"
    )


def workspace(root: Path, own: str = "", api: str = SOURCES + BUILD) -> Path:
    """Make a workspace with the app `api`, which needs `lib`, and a member that nothing needs."""
    write(root, pyproject__toml=own + WORKSPACE)
    write(root / "packages/api", pyproject__toml=member("api", "'lib', 'sniffio'", api))
    write(root / "packages/api/src/api", __init____py="app = 1\n")
    write(root / "packages/lib", pyproject__toml=member("lib", "'iniconfig'"))
    write(root / "packages/lib/src/lib", __init____py="", more__py="")
    write(root / "packages/alone", pyproject__toml=member("alone", "'packaging'"))
    write(root / "packages/alone/src/alone", __init____py="")
    write(root / "packages/old", pyproject__toml="no TOML")
    follow("uv lock -q", root)
    return root


@pytest.mark.fault(72)
def test_root_without_a_project_has_all_members(tmp_path: Path, cache: Path) -> None:
    root = workspace(tmp_path / "shop")
    built = run(root, cache, module="api:app")
    assert {"site/api/__init__.py", "site/lib/more.py", "site/alone/__init__.py"} <= names(built)
    assert all(version(built, name) for name in ("sniffio", "iniconfig", "packaging"))
    assert "The app's requires-python is >=3.11, but" in refused(root, cache, "3.10", module="api:app")


@pytest.mark.fault(72)
def test_root_with_a_project_has_what_that_needs(tmp_path: Path, cache: Path) -> None:
    root = workspace(tmp_path / "shop", member("shop", "'api'", SOURCES.replace("lib", "api")).replace(BUILD, ""))
    built = run(root, cache)
    assert {"app/main.py", "site/api/__init__.py", "site/lib/more.py"} <= names(built)
    assert "site/alone/__init__.py" not in names(built)


@pytest.mark.fault(72)
@pytest.mark.parametrize("api", [SOURCES + BUILD, SOURCES], ids=["package", "folder"])
def test_member_has_what_it_needs(tmp_path: Path, cache: Path, api: str) -> None:
    root = workspace(tmp_path / "shop", api=api)
    app = root / "packages/api"
    built = run(app, cache, module="api:app")
    assert {"app/src/api/__init__.py", "site/lib/more.py"} <= names(built)
    assert ("site/api/__init__.py" in names(built)) is (api != SOURCES)
    assert not {"site/alone/__init__.py", "app/packages/lib/pyproject.toml"} & names(built)
    assert [bool(version(built, name)) for name in ("sniffio", "iniconfig", "packaging")] == [True, True, False]
    again = run(app, cache, module="api:app")
    assert (again["id"], again["built"], again["notes"]) == (built["id"], False, [])
    (root / "packages/lib/src/lib/more.py").write_text("changed = 1\n")
    assert run(app, cache, module="api:app")["id"] != built["id"]


@pytest.mark.fault(72)
def test_member_of_a_repository(tmp_path: Path, cache: Path) -> None:
    root = workspace(tmp_path / "shop")
    follow("git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm 1", root)
    built = run(f"git+file://{root}#subdirectory=packages/api", cache, module="api:app")
    assert {"app/src/api/__init__.py", "site/api/__init__.py", "site/lib/more.py"} <= names(built)


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", ["packages/api", "."])
def test_lock_that_is_not_there_or_does_not_fit(tmp_path: Path, cache: Path, name: str) -> None:
    root = workspace(tmp_path / "shop")
    (root / "uv.lock").unlink()
    message = refused(root / name, cache, module="api:app")
    assert "which has no uv.lock. Run in that folder: uv lock" in message
    follow("uv lock -q", root)
    (root / "packages/lib/pyproject.toml").write_text(member("lib", "'iniconfig', 'h11'"))
    message = refused(root / name, cache, module="api:app")
    assert f"{root}/uv.lock does not fit pyproject.toml" in message
    assert "Run in that folder: uv lock" in message
    follow("uv lock -q", root)
    assert run(root / name, cache, module="api:app")["notes"] == []


@pytest.mark.fault(72)
def test_local_package_outside_of_the_app_becomes_a_member(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "shop"
    write(root / "lib", pyproject__toml=member("lib", ""))
    write(root / "lib/lib", __init____py="")
    sources = '[tool.uv.sources]\nlib = { path = "../lib" }\n'
    app = write(root / "app", pyproject__toml=member("app", "'lib'", sources))
    follow("uv lock -q", app)
    message = refused(app, cache)
    assert "requires the local package ../lib, which is outside of its folder" in message
    assert "make both members of one uv workspace: a folder above with [tool.uv.workspace] in its pyproject" in message
    write(root, pyproject__toml='[tool.uv.workspace]\nmembers = ["app", "lib"]\n')
    (app / "pyproject.toml").write_text(member("app", "'lib'", SOURCES))
    (app / "uv.lock").unlink()
    follow("uv lock -q", root)
    assert "site/lib/__init__.py" in names(run(app, cache))
