"""The task as a play runs it: the host fetches, the controller sends nothing, and the login is shown nowhere."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build.publish import parts, publish
from plugins.module_utils.host.fetch import part_name
from plugins.module_utils.host.unpack import Order, read_marker
from tests.unit.artifacts import member, sent, tar
from tests.unit.host.test_archive import TO_ROOT
from tests.unit.host.test_unpack import build

REPOSITORY = Path(__file__).parents[2]


class Web(http.server.SimpleHTTPRequestHandler):
    """Python's own web server, which wants a login."""

    asked: list[str] = []  # noqa: RUF012 (one list for the server, whose every request makes a handler)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.headers["Authorization"] != "Basic bWU6aHVzaA==":  # me:hush
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def order(tmp_path: Path) -> Order:
    made, files = build(tmp_path)
    made.artifact.update({f"{part}_path": str(file) for part, file in files.items()})
    return made


@pytest.fixture
def url(tmp_path: Path, order: Order) -> Iterator[str]:
    web = tmp_path / "web"
    web.mkdir()
    publish(parts("shop", [order.artifact]), web)
    Web.asked.clear()
    handler = functools.partial(Web, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:hush@127.0.0.1:{server.server_port}"
        server.shutdown()


def play(order: Order, url: str, folder: Path, *arguments: str, have_lib: bool | None = None) -> dict[str, Any]:
    """Run the task on this machine; return its result, and all that was printed as "output"."""
    task: dict[str, Any] = {
        "app": "shop",
        "root": str(order.root),
        "id": order.release,
        "artifact": order.artifact,
        "python": sys.executable,
        "url": "{{ release_url }}",
    }
    if have_lib is not None:
        task["have_lib"] = have_lib
    playbook, result = folder / "play.yml", folder / "result.json"  # JSON is YAML
    tasks: list[dict[str, Any]] = [
        {"name": "It", "webfleet.fastapi.release_unpack": task, "register": "it", "ignore_errors": True},
        {"name": "Keep", "copy": {"dest": str(result), "content": "{{ it | to_json }}"}, "check_mode": False},
    ]
    tasks[1]["no_log"] = True
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    settings = folder / "settings.yml"
    settings.write_text(json.dumps({"release_url": url}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", playbook,
         "-e", f"@{settings}", *arguments],
        cwd=REPOSITORY, env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(result.read_text())
    return {**found, "output": done.stdout + done.stderr}


def test_host_fetches_and_controller_sends_nothing(order: Order, url: str, tmp_path: Path) -> None:
    foretold = play(order, url, tmp_path, "--check")
    assert (foretold["changed"], foretold["needs"], Web.asked) == (True, ["lib", "code"], [])
    for part in ("lib", "code"):
        Path(order.artifact[f"{part}_path"]).unlink()  # the controller could not send them
    done = play(order, url, tmp_path, "-vvvv", have_lib=False)
    assert done["changed"] is True
    assert read_marker(order.folder)
    assert len(Web.asked) == 2
    assert "hush" not in done["output"]
    again = play(order, url, tmp_path)
    assert (again["changed"], again["needs"], len(Web.asked)) == (False, [], 2)


@pytest.mark.parametrize("have_lib", [None, True])
def test_altered_on_the_server(order: Order, url: str, tmp_path: Path, have_lib: bool | None) -> None:
    file = tmp_path / "web" / part_name("shop", order.artifact["code_sha256"])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = play(order, url, tmp_path, "-vvvv", have_lib=have_lib)
    assert "its bytes are other ones" in done["msg"]
    assert f"could not be fetched from http://127.0.0.1:{url.rpartition(':')[2]}/shop/" in done["msg"]
    assert "hush" not in done["output"]
    assert not order.folder.exists()


def test_nothing_is_there(order: Order, url: str, tmp_path: Path) -> None:
    (tmp_path / "web" / part_name("shop", order.artifact["lib_sha256"])).unlink()
    done = play(order, url, tmp_path)
    assert "the server answers 404 File not found. The file is not there" in done["msg"]
    assert f"What must be there is {order.artifact['lib_path']} of the controller: upload it" in done["msg"]
    assert "wants a login" in play(order, url.replace("me:hush@", ""), tmp_path)["msg"]
    assert not order.folder.exists()


@pytest.mark.fault(50)
@pytest.mark.parametrize("pulled", [False, True], ids=["sent", "fetched"])
def test_hostile_artifact_is_refused_by_a_host(tmp_path: Path, pulled: bool) -> None:
    """As if a controller had let it through: the host has the same rules, and they come with the module."""
    code = tar([*TO_ROOT, member("manifest.json", b"{}")], last=True)
    order, files = sent(tmp_path, lib=gzip.compress(tar([member("lib/x")], last=False)), code=gzip.compress(code))
    order.artifact.update({f"{part}_path": str(file) for part, file in files.items()})
    (tmp_path / "web").mkdir()
    publish(parts("shop", [order.artifact]), tmp_path / "web")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}" if pulled else ""
        done = play(order, url, tmp_path, have_lib=False)
        server.shutdown()
    assert done["failed"]
    assert "'app/r/etc/systemd/system/multi-user.target.wants/x.service' lies below the link 'app/r'" in done["msg"]
    assert "Nothing was changed" in done["msg"]
    assert [path.name for path in (order.root / "releases").iterdir()] == [".lock"]
