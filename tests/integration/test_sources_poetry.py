"""Poetry's projects, with and without a lock, as packages and not."""

from pathlib import Path

import pytest

from tests.integration.sources import follow, names, refused, run, version, write
from tests.integration.test_release_build import index_answers

pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")

NEEDS = """
python = "^3.10"
h11 = "^0.16"
wsproto = {version = "^1.2", python = ">=3.13"}
iniconfig = [{version = "2.0.0", python = "<3.12"}, {version = "^2.1", python = ">=3.12"}]
"""
BUILD = '[build-system]\nrequires = ["poetry-core>=2"]\nbuild-backend = "poetry.core.masonry.api"\n'
DEV = '[tool.poetry.group.dev.dependencies]\npackaging = "*"\n'
#: The newest but for iniconfig, so that a build without it would have another one.
FILES = {
    ("h11", "0.16.0", ""): "63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86",
    ("iniconfig", "2.0.0", "< '3.12'"): "b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374",
    ("iniconfig", "2.1.0", ">= '3.12'"): "9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760",
    ("wsproto", "1.3.2", ">= '3.13'"): "61eea322cdf56e8cc904bd3ad7573359a242ba65688716b0710a5eb12beab584",
    ("packaging", "26.4", ""): "81383611a09c1bc0b08b76e0fd5829d7c6824c65b27a6aee339da133f4233ea2",
}
#: For a shell: Poetry itself, as `pipx run` would have it.
POETRY = 'poetry() { uvx -q --from poetry==2.5.1 poetry "$@"; }\n'


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def poetry(needs: str = NEEDS, mode: str = "package-mode = false\n", more: str = BUILD) -> str:
    return f"[tool.poetry]\n{mode}[tool.poetry.dependencies]{needs}{DEV}{more}"


def lock(generation: int) -> str:
    """Return the lock as Poetry 1 or 2 writes it for NEEDS; 1 does not say for which Python a package is."""
    rows = []
    for (name, number, python), sha256 in FILES.items():
        group = "dev" if name == "packaging" else "main"
        marker = f'markers = "python_version {python}"\n' if python else ""
        rows.append(
            f'[[package]]\nname = "{name}"\nversion = "{number}"\noptional = false\npython-versions = ">=3.8"\n'
            + (f'groups = ["{group}"]\n{marker}' if generation > 1 else "")
            + f'files = [{{file = "{name}-{number}-py3-none-any.whl", hash = "sha256:{sha256}"}}]\n'
        )
    return "\n".join([*rows, f'[metadata]\nlock-version = "2.{generation - 1}"\npython-versions = "^3.10"\n'])


@pytest.mark.fault(72)
@pytest.mark.parametrize("more", [BUILD, "", BUILD.replace("poetry-core>=2", "poetry>=0.12").replace(".core", "")])
def test_project_that_is_no_package_and_has_no_lock(tmp_path: Path, cache: Path, more: str) -> None:
    built = run(write(tmp_path / "app", pyproject__toml=poetry(more=more)), cache)
    found = {name: version(built, name) for name in ("h11", "iniconfig", "wsproto", "packaging")}
    assert found["h11"] == "0.16.0"
    assert found["iniconfig"] > "2.1"
    assert (found["wsproto"], found["packaging"]) == ("", "")
    (note,) = built["notes"]
    assert note.endswith("versions were chosen today. Commit a poetry.lock (run: poetry lock).")


@pytest.mark.fault(72)
@pytest.mark.parametrize("generation", [1, 2])
def test_lock_decides_and_its_hashes_count(tmp_path: Path, cache: Path, generation: int) -> None:
    app = write(tmp_path / "app", pyproject__toml=poetry(), poetry__lock=lock(generation))
    built = run(app, cache, "3.11", "3.12")
    assert (version(built, "iniconfig", "3.11"), version(built, "iniconfig")) == ("2.0.0", "2.1.0")
    assert built["notes"] == []
    wrong = "b" * 64
    (app / "poetry.lock").write_text(lock(generation).replace(FILES["iniconfig", "2.1.0", ">= '3.12'"], wrong))
    assert "another hash than the lock file" in refused(app, cache)


@pytest.mark.fault(72)
def test_lock_that_lacks_something_is_refused_until_poetry_has_locked_again(tmp_path: Path, cache: Path) -> None:
    index = '[[tool.poetry.source]]\nname = "index"\nurl = "https://pypi.org/simple/"\n'
    app = write(tmp_path / "app", pyproject__toml=poetry(NEEDS + 'sniffio = "*"\n', more=BUILD + index))
    (app / "poetry.lock").write_text(lock(2))
    message = refused(app, cache)
    assert "poetry.lock does not fit pyproject.toml (it lacks sniffio " in message
    follow(POETRY + message.partition("Run in that folder: ")[2], app)
    built = run(app, cache)
    assert (bool(version(built, "sniffio")), built["notes"]) == (True, [])
    (app / "pyproject.toml").write_text(poetry(NEEDS.replace('"^0.16"', '"<0.16"')))
    assert "does not fit pyproject.toml. Run in that folder: poetry lock" in refused(app, cache)


@pytest.mark.fault(72)
def test_lock_of_uv_that_knows_no_requirement_is_refused(tmp_path: Path, cache: Path) -> None:
    """`uv lock` takes such a project, and locks nothing."""
    app = write(tmp_path / "app", pyproject__toml=poetry(), poetry__lock=lock(2))
    follow("uv lock -q", app)
    message = refused(app, cache)
    assert "uv.lock holds nothing of what the app requires: that is in [tool.poetry]" in message
    assert "Remove uv.lock" in message
    (app / "uv.lock").unlink()
    assert version(run(app, cache), "iniconfig") == "2.1.0"


@pytest.mark.fault(72)
def test_package_with_a_local_one(tmp_path: Path, cache: Path) -> None:
    meta = 'name = "{}"\nversion = "1.0"\ndescription = ""\nauthors = []\n'
    needs = NEEDS + 'lib = {path = "lib", develop = true}\n'
    app = write(tmp_path / "app", pyproject__toml=poetry(needs, meta.format("shop")))
    write(app / "src/shop", __init____py="", main__py="app = 1\n")
    write(app / "lib/lib", __init____py="")
    write(app / "lib", pyproject__toml=poetry('\npython = "^3.10"\nsniffio = "*"\n', meta.format("lib")))
    built = run(app, cache, module="shop.main:app")
    assert {"site/shop/main.py", "site/lib/__init__.py"} <= names(built)
    assert version(built, "sniffio")


@pytest.mark.fault(72)
def test_project_of_poetry_2_with_its_requirements_in_the_standard_table(tmp_path: Path, cache: Path) -> None:
    text = (
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.12"\ndependencies = ["iniconfig>=2.1"]\n'
        f"[tool.poetry]\npackage-mode = false\n{DEV}{BUILD}"
    )
    app = write(tmp_path / "app", pyproject__toml=text, poetry__lock=lock(2))
    built = run(app, cache)
    assert (version(built, "iniconfig"), built["notes"]) == ("2.1.0", [])
    dynamic = text.replace('dependencies = ["iniconfig>=2.1"]', 'dynamic = ["dependencies"]')
    (app / "pyproject.toml").write_text(dynamic + '[tool.poetry.dependencies]\niniconfig = "2.*"\n')
    assert version(run(app, cache), "iniconfig") == "2.1.0"
    assert "The app's requires-python is >=3.12, but" in refused(app, cache, "3.11")
