"""What the app sees of a client, and what it never sees."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleettest import App, assert_nothing_lost, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1", "ansible://web2"]


def send(app: App, target: str, *headers: str) -> tuple[int, bytes]:
    """Send a GET request with just these headers and return the answer's status and body."""
    lines = [f"GET {target} HTTP/1.1", *headers, "Connection: close", "", ""]
    with socket.create_connection((app.address, 80), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def seen(app: App, target: str, *headers: str) -> dict[str, Any]:
    """Return what the sample app saw of the client."""
    status, body = send(app, target, *headers)
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.fault(33)
def test_app_sees_the_real_client_whatever_the_client_claims(app: App) -> None:
    honest = seen(app, "/whoami", f"Host: {app.address}")
    claims = ["X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Forwarded-Proto: https"]
    liar = seen(app, "/whoami", f"Host: {app.address}", *claims, "X-Forwarded-Host: evil.example")
    assert liar == honest
    assert "1.2.3.4" not in json.dumps(liar)


CLAIMS = [
    "X-Forwarded-For: 1.2.3.4, 203.0.113.9", "X-Forwarded-Proto: https", "X-Real-IP: 1.2.3.4",
    "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /admin",
]  # fmt: skip


@pytest.fixture
def balanced(app: App) -> Iterator[str]:
    """This machine is a load balancer that is trusted. Returns the address by which the host sees it."""
    own = str(seen(app, "/whoami", f"Host: {app.address}")["client"])
    where = ("deploy.yml", "--limit", app.host.backend.host)
    trusted = {"proxy_trusted_proxies": ["192.0.2.0/24", own], "proxy_trusted_headers": ["X-Forwarded-Port"]}
    done = playbook(*where, variables=trusted)
    assert done.returncode == 0, done.stdout
    yield own
    done = playbook(*where)
    assert done.returncode == 0, done.stdout


@pytest.mark.fault(33)
def test_trusted_load_balancer_says_who_the_client_is_and_nobody_else_does(app: App, balanced: str) -> None:
    claimed = seen(app, "/whoami", f"Host: {app.address}", *CLAIMS)
    assert (claimed["client"], claimed["scheme"]) == ("203.0.113.9", "https")
    assert "1.2.3.4" not in json.dumps(claimed)
    # Of what else it sends, what proxy_trusted_headers names.
    assert claimed["forwarded"]["x-forwarded-port"] == "8443"
    assert "x-forwarded-prefix" not in claimed["forwarded"]
    own = seen(app, "/whoami", f"Host: {app.address}")
    assert (own["client"], own["scheme"]) == (balanced, "http")
    odd = seen(app, "/whoami", f"Host: {app.address}", "X-Forwarded-Proto: gopher", f"X-Forwarded-For: {balanced}")
    assert (odd["client"], odd["scheme"]) == (balanced, "http")
    # From the host itself, which is not trusted.
    ask = "import sys, urllib.request as u; h = dict(w.split(': ', 1) for w in sys.argv[1:]); "
    ask += "print(u.urlopen(u.Request('http://127.0.0.1/whoami', headers=h)).read().decode())"
    words = [f"Host: {app.address}", *CLAIMS]
    said = json.loads(app.host.check_output("python3 -c %s" + " %s" * len(words), ask, *words))
    assert (said["client"], said["scheme"]) == ("127.0.0.1", "http")
    assert not {"x-forwarded-port", "x-forwarded-prefix"} & said["forwarded"].keys()


def test_app_sees_the_port_that_the_client_wrote(app: App) -> None:
    assert seen(app, "/whoami", f"Host: {app.address}:8081")["host"] == f"{app.address}:8081"


@pytest.mark.fault(35)
@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "", "a b", "web1.evil.example", "127.0.0.1.evil"])
def test_unknown_and_malformed_hosts_never_reach_the_app(app: App, name: str) -> None:
    status, body = send(app, "/whoami", f"Host: {name}")
    assert status in (400, 421)
    assert b"client" not in body


@pytest.mark.fault(35)
def test_name_in_the_request_line_does_not_let_another_host_header_through(app: App) -> None:
    assert seen(app, f"http://{app.address}/whoami", "Host: evil.example")["host"] == app.address


def test_requests_on_kept_connections_survive_a_changed_setting_of_nginx(app: App) -> None:
    """From 1.27.4 on, nginx can leave kept connections open over a reload. Before that, a POST may be lost."""
    version = app.host.run("nginx -v").stderr.partition("nginx/")[2].split()[0]
    if tuple(map(int, version.split("."))) < (1, 27, 4):
        pytest.skip(f"nginx {version} closes kept connections at a reload")
    with app.load(rate=200, mix="get-keep=30,post-keep=70") as load:
        for _ in range(10):
            app.host.check_output("systemctl reload nginx")
            time.sleep(0.7)
        report = load.stop()
    assert len([at for at in app.reloads() if report.began < at < report.ended]) == 10
    assert_nothing_lost(report, 800)
