"""Builds with the real uv and a package index: the same bytes everywhere, and each refusal by name."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build import uv as uv_module
from plugins.module_utils.build.assemble import build
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.platforms import lib_member
from plugins.module_utils.build.request import Platform, Request
from plugins.module_utils.build.requirements import blocks
from plugins.module_utils.build.uv import BuildError, Uv, UvError
from tests.unit.repositories import commit, git

FILES = Path(__file__).parents[2] / "roles/release/files"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def index_answers() -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "one.in").write_text("h11\n")
        try:
            Uv().run("pip", "compile", "--quiet", "--refresh", "one.in", cwd=Path(scratch))
        except UvError:
            return False
    return True


pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")


def platform(python: str = HERE, arch: str = "x86_64", *hosts: str) -> Platform:
    return Platform(python, arch, hosts or ["web1"])


def run(source: Path | str, cache: Path, **changed: Any) -> dict[str, Any]:
    options = {
        "app": "tiny",
        "module": "main:app",
        "platforms": [platform()],
        "engine": "gunicorn",
        "engine_files": FILES,
        "exclude": [],
        **changed,
    }
    return build(Request(source=str(source), **options), Cache(cache), Uv())


def project(root: Path, requires: str = ">=3.10", dependencies: tuple[str, ...] = ("anyio",), extra: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "tiny"\nversion = "1.0"\nrequires-python = "{requires}"\n'
        f"dependencies = {json.dumps(list(dependencies))}\n{extra}"
    )
    (root / "main.py").write_text("app = FastAPI = print\n")
    return root


def lock(root: Path) -> Path:
    Uv().run("lock", "--quiet", cwd=root)
    return root


def names(artifact: dict[str, Any]) -> set[str]:
    with tarfile.open(artifact["path"]) as tar:
        return set(tar.getnames())


def versions(artifact: dict[str, Any]) -> dict[str, str]:
    with tarfile.open(artifact["path"]) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        found: dict[str, str] = json.load(manifest)["packages"]
        return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lock(project(tmp_path_factory.mktemp("apps") / "app"))


def test_two_clones_give_the_same_bytes(locked: Path, cache: Path, tmp_path: Path) -> None:
    both = [platform(), platform("3.13", "aarch64")]
    first = run(locked, cache, platforms=both)
    old = os.umask(0o077)
    try:
        clone = Path(shutil.copytree(locked, tmp_path / "elsewhere", copy_function=shutil.copyfile))
        second = run(clone, tmp_path / "cache", platforms=both)
    finally:
        os.umask(old)
    assert first["id"] == second["id"]
    assert len(first["artifacts"]) == 2
    for key, artifact in first["artifacts"].items():
        assert Path(artifact["path"]).read_bytes() == Path(second["artifacts"][key]["path"]).read_bytes()
    assert {"app/main.py", "lib/gunicorn/__init__.py", "lib/anyio/__init__.py", "manifest.json"} <= names(artifact)
    listed = subprocess.run(["tar", "tzf", artifact["path"]], check=True, capture_output=True, text=True).stdout
    assert {line.rstrip("/") for line in listed.splitlines()} == names(artifact)


def test_same_input_asks_uv_nothing(locked: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(locked, cache)
    monkeypatch.setattr(uv_module, "find_uv", lambda _: pytest.fail("uv was called"))
    again = run(locked, cache)
    assert (again["id"], again["built"]) == (before["id"], False)


def test_code_alone_leaves_the_dependencies(
    locked: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(locked, cache)
    changed = Path(shutil.copytree(locked, tmp_path / "app"))
    (changed / "main.py").write_text("app = 2\n")
    monkeypatch.setattr(uv_module, "find_uv", lambda _: pytest.fail("uv was called"))
    after = run(changed, cache)
    one, two = (found["artifacts"][f"{HERE}-x86_64"] for found in (before, after))
    assert after["id"] != before["id"]
    assert one["lib_sha256"] == two["lib_sha256"]
    assert one["code_sha256"] != two["code_sha256"]


def test_artifact_that_is_deployed_elsewhere_brings_its_origin_along(locked: Path, cache: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(locked, tmp_path / "app"))
    git(root, "init")
    commit(root, "v1.4.2")
    label = f"v1.4.2 ({git(root, 'rev-parse', '--short=7', 'HEAD')})"
    built = run(root, cache, by="octocat (GitHub run 77)")
    assert (built["label"], built["origin"]["by"]) == (label, "octocat (GitHub run 77)")
    (tmp_path / "dist").mkdir()
    made = Path(built["artifacts"][f"{HERE}-x86_64"]["path"])
    shutil.copy(made, tmp_path / "dist/tiny.tar.gz")
    alone = run(tmp_path / "dist/tiny.tar.gz", tmp_path / "cache", by="bob@laptop")
    assert (alone["id"], alone["label"], alone["origin"]) == (built["id"], "1.0", {})
    shutil.copy(f"{made}.origin.json", tmp_path / "dist/tiny.tar.gz.origin.json")
    for source in (tmp_path / "dist/tiny.tar.gz", tmp_path / "dist"):
        again = run(source, tmp_path / "cache", by="bob@laptop")
        assert (again["id"], again["label"], again["origin"]) == (built["id"], label, built["origin"])
    commit(root, "v1.4.3")
    assert run(root, cache)["label"].startswith("v1.4."), "the same release"
    assert json.loads(Path(f"{made}.origin.json").read_text())["origin"]["commit"] == git(root, "rev-parse", "HEAD")


def test_artifact_builds_itself(locked: Path, cache: Path, tmp_path: Path) -> None:
    built = run(locked, cache)
    artifact = built["artifacts"][f"{HERE}-x86_64"]
    moved = Path(shutil.copy(artifact["path"], tmp_path / "tiny.tar.gz"))
    for source in (moved, tmp_path):
        again = run(source, tmp_path / "cache")
        assert again["id"] == built["id"]
        for key in (
            "sha256",
            "content",
            "lib_sha256",
            "code_sha256",
            "lib_bytes",
            "lib_files",
            "code_bytes",
            "code_files",
        ):
            assert again["artifacts"][f"{HERE}-x86_64"][key] == artifact[key]
    with pytest.raises(BuildError, match=r"no artifact for Python 3\.9 on x86_64 \(old1\)"):
        run(moved, tmp_path / "cache", platforms=[platform("3.9", "x86_64", "old1")])
    with pytest.raises(BuildError, match="built for app_name tiny, not other"):
        run(moved, tmp_path / "cache", app="other")


def test_project_with_a_build_system_ships_its_wheel(cache: Path, tmp_path: Path) -> None:
    system = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    root = project(tmp_path / "app", extra=system)
    (root / "main.py").unlink()
    (root / "src/tiny").mkdir(parents=True)
    (root / "src/tiny/__init__.py").write_text("app = 1\n")
    artifact = run(root, cache, module="tiny:app")["artifacts"][f"{HERE}-x86_64"]
    assert {"site/tiny/__init__.py", "app/src/tiny/__init__.py", "site/tiny-1.0.dist-info/METADATA"} <= names(artifact)
    Uv().run("build", "--wheel", "--quiet", cwd=root)
    (wheel,) = (root / "dist").glob("*.whl")
    found = names(run(wheel, cache, module="tiny:app")["artifacts"][f"{HERE}-x86_64"])
    assert {"app", "site/tiny/__init__.py", "lib/anyio/__init__.py"} <= found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    system = '[project.optional-dependencies]\nmore = ["six"]\n'
    system += '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    root = project(tmp_path_factory.mktemp("wheels") / "app", dependencies=("anyio>=4.4",), extra=system)
    (root / "tiny").mkdir()
    (root / "main.py").rename(root / "tiny/__init__.py")
    Uv().run("build", "--wheel", "--quiet", cwd=root)
    (found,) = (root / "dist").glob("*.whl")
    return found


def advised(text: str, folder: Path) -> str:
    """Run the command that a message or a note gives; return the file that it made."""
    command = text.rpartition("echo ")[2].splitlines()[0]
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(f"echo {command}", shell=True, cwd=folder, env=path, check=True, capture_output=True)  # noqa: S602
    (made,) = folder.glob("*.txt")
    return str(made)


def test_lock_for_a_wheel(wheel: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (note,) = run(wheel, cache, module="tiny:app")["notes"]
    assert "Set release_lock to a file that this makes: echo " in note
    assert "uv.lock" not in note
    lock = Path(advised(note, tmp_path))
    assert run(wheel, cache, module="tiny:app", lock=str(lock))["notes"] == []
    # An older version than would be chosen today: it stays.
    (tmp_path / "old.in").write_text("anyio==4.4.0\n")
    options = ("--universal", "--generate-hashes", "--python-version", "3.10", "--quiet")
    lock.write_text(Uv().run("pip", "compile", *options, "old.in", cwd=tmp_path))
    both = [platform(), platform("3.10", "aarch64")]
    first = run(wheel, cache, module="tiny:app", lock=str(lock), platforms=both)
    for artifact in first["artifacts"].values():
        assert {"lib/anyio-4.4.0.dist-info/METADATA", "lib/gunicorn/__init__.py", "site/tiny/__init__.py"} <= names(
            artifact
        )
    assert run(wheel, tmp_path / "cache", module="tiny:app", lock=str(lock))["id"] == first["id"]
    lock.write_text(f"# a word\n{lock.read_text()}")
    monkeypatch.setattr(uv_module, "find_uv", lambda _: pytest.fail("uv was called"))
    again = run(wheel, cache, module="tiny:app", lock=str(lock), platforms=both)
    assert (again["id"], again["built"]) == (first["id"], False)


def test_lock_that_does_not_cover_the_wheel(wheel: Path, cache: Path, tmp_path: Path) -> None:
    made = Path(advised(run(wheel, cache, module="tiny:app")["notes"][0], tmp_path))
    whole = made.read_text()
    rows = blocks(whole)
    for name in ("anyio", "idna"):  # what the wheel requires, and what that requires
        made.write_text("\n".join(row for row in rows if not row.startswith(name)))
        with pytest.raises(
            BuildError, match=rf"lock\.txt lacks {name}, which .* Python {HERE} on x86_64\. Make it anew: "
        ) as no:
            run(wheel, cache, module="tiny:app", lock=str(made))
    made.unlink()
    assert blocks(Path(advised(str(no.value), tmp_path)).read_text()) == rows
    more = f"{wheel}[more]"
    with pytest.raises(BuildError, match=r"lock\.txt lacks six, ") as no:
        run(more, cache, module="tiny:app", lock=str(made))
    advised(str(no.value), tmp_path)
    artifact = run(more, cache, module="tiny:app", lock=str(made))["artifacts"][f"{HERE}-x86_64"]
    assert "lib/six.py" in names(artifact)
    # As older tools wrote it: an anyio that the wheel does not want.
    (tmp_path / "old.in").write_text("anyio==4.3.0\n")
    made.write_text(Uv().run("pip", "compile", "--generate-hashes", "--quiet", "old.in", cwd=tmp_path))
    with pytest.raises(BuildError, match=r"(?s)does not fit what the source needs\. Make it anew: echo .*anyio>=4\.4"):
        run(wheel, cache, module="tiny:app", lock=str(made))


def test_extras_of_a_wheel_without_a_lock(wheel: Path, cache: Path) -> None:
    plain, more = (run(s, cache, module="tiny:app") for s in (wheel, f"{wheel}[more]"))
    assert plain["id"] != more["id"]
    assert "[more]' | uv pip compile" in more["notes"][0]
    assert "lib/six.py" in names(more["artifacts"][f"{HERE}-x86_64"])
    assert "lib/six.py" not in names(plain["artifacts"][f"{HERE}-x86_64"])


def test_lock_for_a_folder(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("app = 1\n")
    (root / "requirements.txt").write_text("anyio\n")
    lock = tmp_path / "lock.txt"
    lock.write_text("h11==0.16.0 --hash=sha256:00\n")
    with pytest.raises(BuildError, match=r"lock\.txt lacks anyio, .* in the source's folder: uv pip compile "):
        run(root, cache, lock=str(lock))
    (tmp_path / "old.in").write_text("anyio==4.4.0\n")
    lock.write_text(Uv().run("pip", "compile", "--universal", "--generate-hashes", "-q", "old.in", cwd=tmp_path))
    found = run(root, cache, lock=str(lock))
    assert found["notes"] == []
    assert "lib/anyio-4.4.0.dist-info/METADATA" in names(found["artifacts"][f"{HERE}-x86_64"])


def test_lock_beside_another(locked: Path, cache: Path) -> None:
    with pytest.raises(BuildError, match=r"release_lock is mine\.txt, but app_source has a lock of its own, uv\.lock"):
        run(locked, cache, lock="mine.txt")
    artifact = run(locked, cache)["artifacts"][f"{HERE}-x86_64"]["path"]
    with pytest.raises(BuildError, match=r"release_lock is mine\.txt, but app_source .*\.tar\.gz is built already"):
        run(artifact, cache, lock="mine.txt")


def test_without_a_lock_the_first_choice_stays(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("app = 1\n")
    (root / "requirements.txt").write_text("-r more.txt\n")
    (root / "more.txt").write_text("anyio\n")
    first = run(root, cache)
    assert "release_lock" in first["notes"][0]
    assert run(root, cache)["id"] == first["id"]
    (root / "more.txt").write_text("anyio<4.5\n")
    assert run(root, cache)["id"] != first["id"]


def test_the_apps_own_pin_wins(cache: Path, tmp_path: Path) -> None:
    root = lock(project(tmp_path / "app", dependencies=("uvicorn[standard]==0.38.0",)))
    assert versions(run(root, cache)["artifacts"][f"{HERE}-x86_64"])["uvicorn"] == "0.38.0"


def test_app_for_a_newer_python_than_the_controllers(cache: Path, tmp_path: Path) -> None:
    root = lock(project(tmp_path / "app"))
    for name in ("pyproject.toml", "uv.lock"):  # as if locked elsewhere, with a Python that is not here
        path = root / name
        path.write_text(path.read_text().replace(">=3.10", ">=3.14"))
    assert run(root, cache, platforms=[platform("3.14")])["built"]
    with pytest.raises(BuildError, match=r"requires-python is >=3\.14, but .*Python 3\.12 on x86_64 \(web7\)"):
        run(root, cache, platforms=[platform("3.14"), platform("3.12", "x86_64", "web7")])
    (root / "pyproject.toml").write_text((root / "pyproject.toml").read_text().replace("anyio", "trio"))
    with pytest.raises(BuildError, match=r"does not fit pyproject\.toml \(it differs in anyio, trio\)"):
        run(root, cache, platforms=[platform("3.14")])


def test_stale_lock(locked: Path, cache: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(locked, tmp_path / "app"))
    project(root, dependencies=("anyio", "trio"))
    with pytest.raises(BuildError, match=r"uv\.lock does not fit pyproject\.toml\. Run in that folder: uv lock"):
        run(root, cache)


def test_old_gunicorn(cache: Path, tmp_path: Path) -> None:
    root = lock(project(tmp_path / "app", dependencies=("gunicorn==20.1.0",)))
    with pytest.raises(BuildError, match=r"pins gunicorn 20\.1\.0, but the engine gunicorn needs gunicorn >= 26\.1"):
        run(root, cache)
    assert run(root, cache, engine="uvicorn")["id"]


def test_pin_that_the_engine_cannot_work_with(cache: Path, tmp_path: Path) -> None:
    root = lock(project(tmp_path / "app", dependencies=("click==6.7",)))
    with pytest.raises(BuildError, match=r"do not go together: the app pins click 6\.7, the engine needs .*uvicorn"):
        run(root, cache)


@pytest.mark.fault(48)
def test_source_distribution_only(cache: Path, tmp_path: Path) -> None:
    root = lock(project(tmp_path / "app", dependencies=("docopt==0.6.2",)))
    with pytest.raises(BuildError, match=rf"docopt 0\.6\.2 has no wheel for Python {HERE} on x86_64 \(web1\)"):
        run(root, cache)


@pytest.mark.fault(48)
def test_wrong_hash(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("app = 1\n")
    (root / "requirements.txt").write_text(f"sniffio==1.3.1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BuildError, match=r"file of sniffio==1\.3\.1 .* has another hash than the lock file"):
        run(root, cache)


def test_repository_dependency(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("app = 1\n")
    (root / "requirements.txt").write_text("six @ git+https://me:secret@example.org/six --hash=sha256:00\n")
    with pytest.raises(BuildError, match="a repository has no wheel and no hash") as caught:
        run(root, cache)
    assert "secret" not in str(caught.value)


def test_unreachable_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    root = tmp_path / "app"
    root.mkdir()
    (root / "main.py").write_text("app = 1\n")
    (root / "requirements.txt").write_text("no-such-package-in-any-cache-1\n")
    uv = Uv(None, "https://me:secret@127.0.0.1:9/simple")
    request = Request("tiny", str(root), "main:app", [platform()], "gunicorn", FILES, [])
    with pytest.raises(BuildError, match="package index could not be reached") as caught:
        build(request, Cache(tmp_path / "cache"), uv)
    assert "secret" not in str(caught.value)


def test_no_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="pip install uv"):
        Uv().run("--help", cwd=tmp_path)
    (tmp_path / "uv").write_text("#!/bin/sh\necho uv 0.4.1\n")
    (tmp_path / "uv").chmod(0o755)
    with pytest.raises(BuildError, match=r"is uv 0\.4\.1; 0\.9 or newer is needed"):
        Uv().run("--help", cwd=tmp_path)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("nowhere", "does not exist on the controller"),
        ("empty", "is no app folder"),
        ("file.txt", "neither a folder, nor a wheel"),
        ("broken.whl", "not a readable wheel"),
        ("broken.tar.gz", "no whole artifact"),
        ("bad", "not valid TOML"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, want: str) -> None:
    for folder in ("empty", "bad"):
        (tmp_path / folder).mkdir()
    for name in ("file.txt", "broken.whl", "broken.tar.gz", "bad/pyproject.toml"):
        (tmp_path / name).write_text("x x")
    with pytest.raises(BuildError, match=want):
        run(tmp_path / source, tmp_path / "cache")


def test_module_is_checked_before_the_dependencies_are_installed(locked: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"app_module is main:api, but app/main\.py has no name 'api'"):
        run(locked, tmp_path / "cache", module="main:api")
    assert not list((tmp_path / "cache/libs").iterdir())


@pytest.mark.fault(48)
def test_requirement_without_a_hash(cache: Path) -> None:
    with pytest.raises(BuildError, match="all requirements must have a hash"):
        lib_member("h11==0.16.0\n", platform(), [], Cache(cache), Uv(), [])
