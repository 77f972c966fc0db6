"""Sources for hosts with a newer Python than the oldest one supported; refusals whose advice is followed."""

import re
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from tests.integration.sources import MAIN, follow, names, project, refused, run, version, write
from tests.integration.test_release_build import index_answers

pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def compile_for(python: str, folder: Path, *options: str) -> None:
    """Replace requirements.txt by a hashed one, as people make it for their own Python."""
    text = (folder / "requirements.txt").read_text()
    (folder / "requirements.in").write_text(text)
    follow(
        f"uv pip compile -q --generate-hashes --python-version {python} --python-platform x86_64-manylinux_2_28 "
        f"{' '.join(options)} requirements.in -o requirements.txt",
        folder,
    )
    (folder / "requirements.in").unlink()


# The Pythons of the hosts


@pytest.mark.fault(72)
@pytest.mark.parametrize("hashed", [False, True])
def test_pins_that_need_a_newer_python_than_the_oldest_one_supported(tmp_path: Path, cache: Path, hashed: bool) -> None:
    """Neither starlette 1.10 nor websockets 17 can be had for Ubuntu 22.04, which no host has."""
    app = write(tmp_path / "app", requirements__txt="starlette==1.10.0\nwebsockets==17.0\n")
    if hashed:
        compile_for("3.12", app)
    built = run(app, cache)
    assert version(built, "starlette") == "1.10.0"
    assert version(built, "websockets") == "17.0"
    assert [("no lock" in note) for note in built["notes"]] == [] if hashed else [True]
    assert run(app, cache)["built"] is False
    if not hashed:  # the note's advice
        follow(re.search(r"this makes: in the source's folder: (.*)", built["notes"][0])[1], app)  # type: ignore[index]
        locked = run(app, cache, lock=str(app / "requirements.lock.txt"))
        assert (locked["notes"], version(locked, "starlette")) == ([], "1.10.0")


@pytest.mark.fault(72)
def test_pins_that_a_host_cannot_have_are_refused_and_looser_ones_are_not(tmp_path: Path, cache: Path) -> None:
    app = write(tmp_path / "app", requirements__txt="starlette==1.10.0\n")
    message = refused(app, cache, "3.10", "3.12")
    assert re.match(
        r"starlette==1\.10\.0 needs Python >=3\.11, but the release is locked for Python 3\.10 on "
        r"x86_64 \(web-3\.10\)\. Ask for a version of starlette that these hosts can have \(without a pin, one is "
        r"chosen\) and lock again, "
        r"or leave the hosts with an older Python out\.",
        message,
    )
    assert version(run(app, cache, "3.12"), "starlette") == "1.10.0"  # left out
    (app / "requirements.txt").write_text("starlette\n")
    both = run(app, cache, "3.10", "3.12")
    assert Version(version(both, "starlette", "3.10")) < Version("1.10") <= Version(version(both, "starlette", "3.12"))


@pytest.mark.fault(72)
def test_hashed_file_for_newer_hosts_is_refused_for_older_ones(tmp_path: Path, cache: Path) -> None:
    app = write(tmp_path / "app", requirements__txt="websockets==17.0\n")
    compile_for("3.12", app)
    message = refused(app, cache, "3.10")
    assert message.startswith("websockets==17.0 needs Python >=3.11, but the release is locked for Python 3.10 on")
    (app / "requirements.txt").write_text("websockets\n")
    compile_for("3.10", app)
    assert version(run(app, cache, "3.10"), "websockets", "3.10")


@pytest.mark.fault(72)
def test_release_has_one_id_whichever_hosts_a_deploy_names(tmp_path: Path, cache: Path) -> None:
    app = write(tmp_path / "app", requirements__txt="anyio\n")
    ids = {run(app, cache, *pythons)["id"] for pythons in (["3.10"], ["3.12"], ["3.10", "3.12"])}
    assert len(ids) == 1


@pytest.mark.fault(72)
@pytest.mark.parametrize("kind", ["requirements.lock.txt", "pylock.toml", "uv.lock"])
def test_release_lock_made_for_newer_hosts(tmp_path: Path, cache: Path, kind: str) -> None:
    app = write(tmp_path / "app", requirements__txt="starlette==1.10.0\n")
    other = tmp_path / "elsewhere"
    if kind == "uv.lock":
        write(other, pyproject__toml=project(">=3.11", "starlette==1.10.0"))
        follow("uv lock -q", other)
        message = refused(app, cache, lock=str(other / kind))
        follow(message.partition("name that: ")[2], tmp_path)
        kind = "requirements.lock.txt"
    else:
        write(other)
        follow(
            "uv pip compile -q --generate-hashes --python-version 3.12 --python-platform x86_64-manylinux_2_28 "
            f"{app}/requirements.txt -o {kind}",
            other,
        )
    built = run(app, cache, lock=str(other / kind))
    assert (version(built, "starlette"), built["notes"]) == ("1.10.0", [])


@pytest.mark.fault(72)
def test_project_without_a_lock_whose_requirements_need_a_newer_python_than_it_says(
    tmp_path: Path, cache: Path
) -> None:
    app = write(tmp_path / "app", pyproject__toml=project(">=3.9", "starlette==1.10.0"))
    built = run(app, cache, "3.11")
    assert version(built, "starlette", "3.11") == "1.10.0"
    (note,) = built["notes"]
    assert (
        'Set requires-python = ">=3.11" in it, as its requirements need, then commit a uv.lock (run: uv lock).' in note
    )
    (app / "pyproject.toml").write_text(project(">=3.11", "starlette==1.10.0"))
    follow("uv lock -q", app)
    assert run(app, cache, "3.11")["notes"] == []


@pytest.mark.fault(72)
def test_settings_of_tools_describe_no_app(tmp_path: Path, cache: Path) -> None:
    app = write(tmp_path / "app", pyproject__toml="[tool.ruff]\nline-length = 100\n")
    message = refused(app, cache)
    assert "has neither [project] nor [tool.poetry], so" in message
    assert "Add a requirements.txt beside it" in message
    (app / "requirements.txt").write_text("sniffio\n")
    assert version(run(app, cache), "sniffio")


# requires-python (tests/unit/build/test_request.py has all its forms)


def wheel(folder: Path, requires: str) -> Path:
    """Make a wheel with nothing but a module and this Requires-Python."""
    folder.mkdir(parents=True)
    path, info = folder / "shop-1-py3-none-any.whl", "shop-1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main.py", MAIN)
        metadata = f"Metadata-Version: 2.1\nName: shop\nVersion: 1\nRequires-Python: {requires}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    return path


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("requires", "taken"),
    [(">3.11", True), ("!=3.12", True), ("===3.12.3", True), ("<=3.12", False), ("<3.12.0", False)],
)
def test_requires_python_of_hosts_with_3_12_3(tmp_path: Path, cache: Path, requires: str, taken: bool) -> None:
    source = wheel(tmp_path / "dist", requires)
    if taken:
        assert "site/main.py" in names(run(source, cache))
    else:
        assert f"The app's requires-python is {requires}, but" in refused(source, cache)
