"""What systemd and nginx are told in numbers and modes, each against what it has to hold for."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host.cli import main
from plugins.module_utils.host.config import Config
from plugins.module_utils.host.cutover import ACTIVATE, Request
from plugins.module_utils.host.locks import locked
from plugins.module_utils.settings.definitions import load
from plugins.module_utils.workers.engines import ENGINES
from tests.unit.host.fake_systemd import WORKER, Host
from tests.unit.rendering import nginx, template, unit

SERVICE = unit(template("service", "app@.service.j2"))
SOCKET = unit(template("service", "app@.socket.j2"))
#: Connections that the distribution's nginx.conf allows each of its workers.
NGINX_CONNECTIONS = 768
#: The kernel's net.core.somaxconn: a longer queue is cut to it.
LONGEST_QUEUE = 4096


def number(found: dict[str, list[str]], key: str) -> int:
    """Return a directive that must stand there once."""
    (text,) = found[key]
    return int(text)


def command(engine: str = "gunicorn") -> list[str]:
    """Return the words of the app's command line."""
    return shlex.split(unit(template("service", "app@.service.j2", service_engine=engine))["Service.ExecStart"][0])


def test_a_worker_that_runs_out_of_memory_does_not_take_its_siblings_along() -> None:
    assert SERVICE["Service.OOMPolicy"] == ["continue"], "systemd's own `stop` ends the slot"


def test_an_app_that_dies_soon_after_each_start_is_given_up_on() -> None:
    tries, seconds = number(SERVICE, "Unit.StartLimitBurst"), number(SERVICE, "Unit.StartLimitIntervalSec")
    assert SERVICE["Service.Restart"] == ["always"]
    assert tries >= 3, "a moment's trouble is lived through"
    assert tries * (number(SERVICE, "Service.RestartSec") + 15) < seconds, "dying 15 s after each start is soon"


def test_open_files_are_enough_for_all_that_the_queue_holds() -> None:
    assert number(SERVICE, "Service.LimitNOFILE") > 2 * number(SOCKET, "Socket.Backlog"), "each may call a service"


def test_queue_holds_what_nginx_may_send_while_workers_are_replaced() -> None:
    assert 2 * NGINX_CONNECTIONS < number(SOCKET, "Socket.Backlog") <= LONGEST_QUEUE


def test_only_the_proxy_may_connect_to_a_slot() -> None:
    """Who connects to a socket has to be allowed to write to it; and the app trusts what it is told there."""
    found = unit(template("service", "app@.socket.j2", service_proxy_group="edge"))
    assert (found["Socket.SocketUser"], found["Socket.SocketGroup"]) == (["root"], ["edge"])
    mode = int(found["Socket.SocketMode"][0], 8)
    assert (mode & 0o060, mode & 0o007) == (0o060, 0)
    assert found["Socket.RemoveOnStop"] == ["yes"], "nobody is to wait in the queue of a slot that was stopped"


@pytest.mark.parametrize("name", ["recover", "recycle"])
def test_systemd_cuts_off_no_command_that_has_its_own_limits(name: str) -> None:
    found = unit(template("service", f"{name}.service.j2"))
    assert (found["Service.Type"], found["Service.TimeoutStartSec"]) == (["oneshot"], ["infinity"])


def test_timer_that_finds_a_switch_under_way_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    host = Host(tmp_path, worker_memory_max_mib=WORKER / 2)
    host.switch(Request(ACTIVATE, "aaa", "me"))
    (tmp_path / "release.json").write_text(json.dumps(dataclasses.asdict(host.config), default=str))
    found = unit(template("service", "recycle.service.j2"))
    _, *words = shlex.split(found["Service.ExecStart"][0])
    with locked(host.config, "activate bbb", "bob"):
        code = main(["--config", str(tmp_path / "release.json"), *words], host.connect)
    assert found["Service.SuccessExitStatus"] == [str(code)]


# The server's command line


def test_python_imports_nothing_that_the_distribution_has_installed() -> None:
    for engine in ENGINES:
        python, *words = command(engine)
        assert python.rpartition("/")[2].startswith("python3")
        assert words[0] == "-S", engine


def test_event_loop_is_asked_for_where_it_is_set() -> None:
    """By an option where the server has one; Uvicorn's worker reads the environment."""
    for engine, option in (("gunicorn", ""), ("asgi", "--asgi-loop"), ("uvicorn", "--loop")):
        given = {"service_engine": engine, "service_event_loop": "asyncio"}
        found = unit(template("service", "app@.service.j2", **given))
        assert "FLEET_EVENT_LOOP=asyncio" in found["Service.Environment"][0].split()
        assert f"{option} asyncio" in found["Service.ExecStart"][0] or not option
        assert "loop" not in unit(template("service", "app@.service.j2", service_engine=engine))["Service.ExecStart"][0]


def test_heartbeats_of_workers_wait_for_no_disk() -> None:
    words = command()
    assert words[words.index("--worker-tmp-dir") + 1] == "/dev/shm"  # noqa: S108


def test_uvicorn_writes_no_second_access_log() -> None:
    """nginx has one; gunicorn's is off by itself."""
    assert "--no-access-log" in command("uvicorn")
    assert "--access-logfile" not in command()


# The host's settings


def test_each_setting_of_the_host_is_the_one_of_its_name(tmp_path: Path) -> None:
    """Each number is another one: two that are crossed would be seen."""
    numbers = {
        setting.host: name
        for name, setting in load().settings.items()
        if setting.host and isinstance(setting.default, int) and not isinstance(setting.default, bool)
    }
    assert {"hook_timeout", "boot_timeout", "drain_timeout"} < numbers.keys()
    given: dict[str, Any] = {name: 101 + at for at, name in enumerate(numbers.values())}
    (tmp_path / "release.json").write_text(template("service", "settings.json.j2", **given))
    (tmp_path / "hooks.json").write_text(template("service", "hooks.json.j2"))
    config = Config.read(tmp_path / "release.json")
    assert {name: getattr(config, name) for name in numbers} == {name: given[of] for name, of in numbers.items()}


# nginx


def server(**given: object) -> list[list[Any]]:
    """Return the app's server block."""
    (block,) = (entry[-1] for entry in nginx(template("proxy", "app.conf.j2", **given)) if entry[0] == "server")
    return list(block)


def test_client_is_the_last_address_that_no_balancer_of_ours_has() -> None:
    """Not recursive, nginx takes the last one: behind two balancers, each client is the first of them."""
    block = server(proxy_trusted_proxies=["10.80.0.0/16", "192.0.2.7"])
    found = {word: [entry[1] for entry in block if entry[0] == word] for word in ("set_real_ip_from", "real_ip_header")}
    assert found == {"set_real_ip_from": ["10.80.0.0/16", "192.0.2.7"], "real_ip_header": ["X-Forwarded-For"]}
    assert ["real_ip_recursive", "on"] in block
    assert not [entry for entry in server() if entry[0].startswith(("real_ip", "set_real_ip"))], "nobody is trusted"


@pytest.mark.parametrize("keepalive", [0, 8])
def test_app_is_spoken_to_in_the_http_that_websockets_and_kept_connections_need(keepalive: int) -> None:
    block = server(proxy_keepalive=keepalive, proxy_read_timeout=75)
    (location,) = (entry[-1] for entry in block if entry[0] == "location")
    assert ["proxy_read_timeout", "75s"] in location
    assert [entry for entry in location if entry[0] == "proxy_http_version"] == [["proxy_http_version", "1.1"]]
