"""Artifacts that were built before: split into the same parts, and judged."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from plugins.module_utils.build.artifact import Entry, write_member
from plugins.module_utils.build.request import Request
from plugins.module_utils.build.requirements import parse_pins
from plugins.module_utils.build.split import check_engines, check_release, split
from plugins.module_utils.build.uv import BuildError
from plugins.module_utils.host.manifest import Manifest
from tests.unit.artifacts import MANIFEST

FILES = Path(__file__).parents[3] / "roles/release/files"


def test_damaged_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    write_member([Entry("app/x", data=os.urandom(5000)), Entry("manifest.json", data=b"{}")], path, last=True)
    whole, second = "is no whole artifact", "is refused: 'app' is in the lib part"
    for data, said in ((path.read_bytes(), second), (path.read_bytes()[:2000], "is"), (b"no gzip", whole)):
        path.write_bytes(data)
        with pytest.raises(BuildError, match=rf"a\.tar\.gz {said}"):
            split(path, tmp_path)


@pytest.mark.parametrize(
    ("engines", "refused"), [(("asgi",), True), (("gunicorn", "asgi"), True), (("gunicorn",), False)]
)
def test_artifact_that_was_built_before_meets_the_floors_too(engines: tuple[str, ...], refused: bool) -> None:
    packages = {pin.name: pin.version for pin in parse_pins((FILES / "engine.txt").read_text())} | {
        "gunicorn": "26.1.0"
    }
    manifest = Manifest(**{**MANIFEST, "engine": engines[0], "packages": packages})
    request = Request("shop", "a.tar.gz", "main:app", [], engines[0], FILES, [], engines=engines)
    try:
        check_engines(request, Path("a.tar.gz"), manifest)
        said = ""
    except BuildError as error:
        said = str(error)
    assert said == (
        "a.tar.gz holds gunicorn 26.1.0, but the engine asgi needs gunicorn >= 27.0. Build it again." if refused else ""
    )


def test_version_that_is_none_is_refused_where_there_is_a_floor() -> None:
    locked = {pin.name: pin.version for pin in parse_pins((FILES / "engine.txt").read_text())}
    manifest = Manifest(**{**MANIFEST, "packages": {**locked, "fastapi": "of-mine", "gunicorn": "newest"}})
    request = Request("shop", "a.tar.gz", "main:app", [], "gunicorn", FILES, [])
    with pytest.raises(
        BuildError, match=r"a\.tar\.gz holds gunicorn newest, but the engine gunicorn needs gunicorn >="
    ):
        check_engines(request, Path("a.tar.gz"), manifest)


def test_artifact_that_lacks_what_the_engine_needs_is_refused() -> None:
    request = Request("shop", "a.tar.gz", "main:app", [], "gunicorn", FILES, [])
    with pytest.raises(BuildError, match="built for the engine gunicorn and lacks uvloop, httptools, websockets, h11,"):
        check_engines(request, Path("a.tar.gz"), Manifest(**MANIFEST))


def test_artifacts_are_of_one_release_of_this_app() -> None:
    manifest = Manifest(**MANIFEST)
    files = {Path("dist/a.tar.gz"): manifest, Path("dist/b.tar.gz"): replace(manifest, python="3.12")}
    assert check_release(files, "shop", "main:app").id == manifest.id
    with pytest.raises(
        BuildError, match=r"dist/a\.tar\.gz was built for app_name shop, not store\. Set app_name to it"
    ):
        check_release(files, "store", "main:app")
    with pytest.raises(BuildError, match=r"was built for app_module main:app, not web:app"):
        check_release(files, "shop", "web:app")
    files[Path("dist/b.tar.gz")] = replace(manifest, id="ba9876543210")
    with pytest.raises(BuildError, match=r"dist holds artifacts of several releases: 0123456789ab, ba9876543210"):
        check_release(files, "shop", "main:app")
