"""An app from PyPI, with compiled dependencies, does its work behind nginx; nothing in it was changed."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fleettest import REPOSITORY, App, playbook

pytest_plugins = ["fleettest"]

VERSION = re.findall(r"==(\S+)", (REPOSITORY / "molecule/realapp/wheel.txt").read_text())[0]


def answer(app: App, path: str) -> Any:
    """Return what the app says as JSON, through the proxy."""
    status, headers, body = app.get(path)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


def test_app_is_the_wheels_version(app: App) -> None:
    assert answer(app, "/public/meta/") == {"piccolo_admin_version": VERSION, "site_name": "Piccolo Admin"}


def test_models_go_through_pydantic_core(app: App) -> None:
    """Each is checked against a response model and written as JSON by compiled code; the list leads to the texts."""
    known = answer(app, "/public/translations/")["translations"]
    assert len(known) > 10
    for language in known:
        texts = answer(app, f"/public/translations/{language['language_code']}/")
        assert texts["language_name"] == language["language_name"]
    assert answer(app, "/public/translations/de/")["translations"]["About"] == "Über"


def test_many_at_once_get_the_same_answer(app: App) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: app.get("/public/openapi.json"), range(100)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1
    assert "/translations/{language_code}/" in json.loads(answers[0][2])["paths"]


def test_page_and_what_it_loads_come_from_the_wheel(app: App) -> None:
    status, _, page = app.get("/")
    assert status == 200
    files = re.findall(r"""(?:src|href)=["']\.?/?(assets/[^"']+)""", page.decode())
    assert files
    for file in files:
        assert app.get(f"/{file}")[0] == 200


def test_what_needs_a_login_is_refused_by_the_app(app: App) -> None:
    status, _, body = app.get("/api/tables/movie/")
    assert (status, json.loads(body)) == (401, {"error": "Auth failed"})


def test_every_worker_runs_compiled_code_of_its_release_for_its_python(app: App) -> None:
    lib = f"/srv/{app.name}/releases/{app.live['release']}/lib/"
    tag = app.host.check_output("/usr/bin/python3 -c 'import sys; print(\"cpython-%d%d-\" % sys.version_info[:2])'")
    for worker in app.workers:
        mapped = set(re.findall(rf"{lib}(\S+\.so)$", app.host.check_output(f"cat /proc/{worker}/maps"), re.MULTILINE))
        for package in ("pydantic_core", "markupsafe", "uvloop", "httptools"):
            own = [file for file in mapped if file.startswith(f"{package}/")]
            assert own, f"{package} runs without its compiled code: {sorted(mapped)}"
            assert all(tag in file for file in own), own


def test_planned_workers_answer_on_both_systems() -> None:
    """The app does not say who answered: the hosts read it from the kernel."""
    done = playbook("playbooks/verify.yml")
    assert done.returncode == 0, done.stdout
    assert re.search(r"web1 .*\b5 +5 +5\b", done.stdout), done.stdout
    assert re.search(r"web2 .*\b3 +3 +3\b", done.stdout), done.stdout
