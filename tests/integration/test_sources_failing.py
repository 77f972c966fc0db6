"""Projects whose wheel cannot be built: the backend's own words say why, and what is advised works."""

from pathlib import Path

import pytest

from tests.integration.sources import names, project, refused, run, write
from tests.integration.test_release_build import index_answers

pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")

HATCH = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
VCS = HATCH.replace('"hatchling"]', '"hatchling", "hatch-vcs"]') + '[tool.hatch.version]\nsource = "vcs"\n'
SCM = '[build-system]\nrequires = ["setuptools", "setuptools-scm"]\nbuild-backend = "setuptools.build_meta"\n'
POETRY = '[build-system]\nrequires = ["poetry-core>=2"]\nbuild-backend = "poetry.core.masonry.api"\n'
DYNAMIC = '[project]\nname = "shop"\ndynamic = ["version"]\n'


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (project(">=3.11", more='readme = "README.md"\n' + HATCH), "OSError: Readme file does not exist: README.md\n"),
        (DYNAMIC + SCM + "[tool.setuptools_scm]\n", "LookupError: setuptools-scm was unable to detect version for "),
        (DYNAMIC + VCS, "LookupError: Error getting the version from source `vcs`: "),
    ],
    ids=["readme", "setuptools-scm", "hatch-vcs"],
)
def test_reason_is_the_backends_own(tmp_path: Path, cache: Path, text: str, why: str) -> None:
    app = write(tmp_path / "app", pyproject__toml=text)
    message = refused(app, cache)
    assert f": {why}" in message.partition("Its last lines:")[0]
    assert "cause:" not in message


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("text", "more"),
    [
        (project(">=3.11", more=HATCH), "[tool.uv]\npackage = false\n"),
        (project(">=3.11", more=POETRY), "[tool.poetry]\npackage-mode = false\n"),
        (project(">=3.11", more=SCM), "[tool.uv]\npackage = false\n"),
    ],
    ids=["hatchling", "poetry", "setuptools"],
)
def test_app_that_is_no_package_may_say_so(tmp_path: Path, cache: Path, text: str, more: str) -> None:
    app = write(tmp_path / "app", pyproject__toml=text)
    write(app / "one", a__py="")
    write(app / "two", b__py="")
    message = refused(app, cache)
    assert "package = false in [tool.uv], or package-mode = false in [tool.poetry]" in message
    (app / "pyproject.toml").write_text(text + more)
    assert "app/main.py" in names(run(app, cache))
