"""Nothing reaches an app that nginx did not log, and everything reaches it whole, with each engine and either proxy.

Beside the scenario's own app, each host gets four apps that write down what they see, and one nginx in front of them.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from fleetedge import judge
from fleetedge.corpus import SIZES, WEBSOCKET, Corpus, corpus, hidden_bodies
from fleettest import REPOSITORY, App, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1", "ansible://web2"]

RECORDER = REPOSITORY / "molecule/shared/fleetedge/recorder"
#: The app's name, its engine, and how many connections nginx keeps to it.
VARIANTS = {"gunicorn": ("gunicorn", 0), "keepalive": ("gunicorn", 16), "asgi": ("asgi", 0), "uvicorn": ("uvicorn", 0)}
#: Row 49 asks for so many tries of each size.
TRIES = 60
#: Clients that ask meanwhile, how often each at least, and how many attacks there are.
VICTIMS, ASKED, ATTACKS = 3, 334, 200
CLAIMS = yaml.safe_load((REPOSITORY / "roles/proxy/vars/main.yml").read_text())["_proxy_claims"]


@functools.cache
def deployed(variant: str) -> None:
    """Deploy one of the apps to all hosts of the scenario."""
    engine, kept = VARIANTS[variant]
    done = playbook("deploy.yml", variables=settings(variant) | {"service_engine": engine, "proxy_keepalive": kept})
    assert done.returncode == 0, done.stdout


def settings(variant: str) -> dict[str, Any]:
    return {
        "app_name": f"edge-{variant}", "app_source": str(RECORDER), "app_module": "main:app",
        "proxy_server_names": [f"{variant}.test"], "service_workers": 2, "service_watch_seconds": 0,
    }  # fmt: skip


class Edge:
    """One of the apps on one host."""

    def __init__(self, app: App, variant: str) -> None:
        self.host, self.address = app.host, app.address
        self.app, self.name = f"edge-{variant}", f"{variant}.test"

    def clear(self) -> None:
        """Forget what was seen and logged."""
        # Made by nginx and by the app, each as its own.
        self.host.check_output(f"truncate --no-create --size=0 {judge.LOG} /var/lib/{self.app}/seen.jsonl")

    def seen(self) -> judge.Seen:
        return judge.read(self.host, self.app, self.name)

    def ask(self, path: str, **headers: str) -> dict[str, Any]:
        """Return what the app saw of a request."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": self.name, **headers})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def names(self, **headers: str) -> dict[str, str]:
        """Return the headers that the app saw of a request."""
        return dict(self.ask("/headers", **headers)["headers"])


@pytest.fixture(scope="module")
def judged(app: App) -> Iterator[App]:
    """nginx logs what it passes on in a form that can be compared."""
    judge.begin(app.host)
    yield app
    units = " ".join(f"edge-{variant}@*.socket edge-{variant}@*.service" for variant in VARIANTS)
    files = " ".join(f"/etc/nginx/conf.d/edge-{variant}.conf" for variant in VARIANTS)
    app.host.check_output(f"systemctl stop {units}; rm {files} {judge.CONFIGURATION}; systemctl reload nginx")


@pytest.fixture(params=VARIANTS)
def edge(judged: App, request: pytest.FixtureRequest) -> Edge:
    deployed(request.param)
    found = Edge(judged, request.param)
    found.clear()
    return found


@pytest.mark.fault(34)
def test_app_sees_what_nginx_logged_and_nothing_else_of_any_request(edge: Edge) -> None:
    cases = corpus(edge.name)
    assert len(cases) >= 500
    answers = judge.send_all(edge.address, cases)
    seen = edge.seen()
    assert len(seen.records) > 300, "the corpus must reach the app, too"
    assert judge.judge(seen, cases) == []
    let_in = [answer for answer in answers if answer.case.refused and answer.statuses and answer.statuses[0] < 400]
    assert let_in == []


@pytest.mark.fault(49)
def test_no_request_comes_up_out_of_the_body_of_an_upgrade(edge: Edge) -> None:
    cases = [case for _, case in hidden_bodies(edge.name, SIZES, TRIES)]
    judge.send_all(edge.address, cases)
    seen = edge.seen()
    assert judge.judge(seen, cases) == []
    assert len(seen.records) == len(SIZES) * TRIES


@pytest.mark.fault(49)
def test_nobody_beside_an_attacker_gets_an_answer_that_is_not_his(edge: Edge) -> None:
    attacks = [case for _, case in hidden_bodies(edge.name, [200_000], ATTACKS)]
    over = threading.Event()

    def victim(number: int) -> tuple[int, list[str]]:
        """Ask on one connection while the attack lasts; return how often, and the answers that are another's."""
        wrong, turn = [], 0
        with contextlib.closing(http.client.HTTPConnection(edge.address, 80, timeout=30)) as connection:
            while turn < ASKED or not over.is_set():
                path = f"/victim/{number}/{turn}"
                connection.request("GET", path, headers={"Host": edge.name})
                answer = connection.getresponse().read()
                wrong += [answer.decode()] if json.loads(answer)["target"] != path else []
                turn += 1
        return turn, wrong

    with ThreadPoolExecutor(VICTIMS) as pool:
        asking = [pool.submit(victim, number) for number in range(VICTIMS)]
        judge.send_all(edge.address, attacks)
        over.set()
        asked = [done.result() for done in asking]
    assert sum(turns for turns, _ in asked) >= 1_000
    assert [wrong for _, wrong in asked if wrong] == []
    assert judge.judge(edge.seen(), attacks) == []


def test_client_that_offers_http_2_by_an_upgrade_keeps_its_body(edge: Edge) -> None:
    """As `curl --http2` sends it."""
    made = Corpus(edge.name)
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    made.add("curl", made.head(*lines, b"Content-Length: 11") + b"hello=world", body=b"hello=world", served=True)
    judge.send_all(edge.address, made.made)
    assert judge.judge(edge.seen(), made.made) == []


@pytest.mark.parametrize(
    ("upgrade", "connection"),
    [("websocket", "Upgrade"), ("WebSocket", "keep-alive, Upgrade"), ("websocket", "upgrade")],
)
def test_websocket_opens(edge: Edge, upgrade: str, connection: str) -> None:
    lines = [b"GET /open HTTP/1.1", b"Host: " + edge.name.encode(), *WEBSOCKET]
    lines += [f"Upgrade: {upgrade}".encode(), f"Connection: {connection}".encode(), b"", b""]
    with socket.create_connection((edge.address, 80), timeout=20) as end:
        end.sendall(b"\r\n".join(lines))
        assert end.recv(65536).startswith(b"HTTP/1.1 101 ")
        mask = os.urandom(4)
        end.sendall(b"\x81\x85" + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(b"hello")))
        assert end.recv(65536) == b"\x81\x05hello"


def test_handshake_that_the_app_refuses_leaves_no_connection_to_mistake(edge: Edge) -> None:
    made = Corpus(edge.name)
    lines = (*WEBSOCKET, b"Upgrade: websocket", b"Connection: Upgrade")
    for _ in range(20):
        head = made.head(*lines, method=b"GET").replace(b" HTTP/1.1", b"/refused HTTP/1.1", 1)
        made.add("refused", head + b"GET /hidden HTTP/1.1\r\n")
    answers = judge.send_all(edge.address, made.made)
    assert {answer.statuses[:1] for answer in answers} == {(403,)}
    for turn in range(40):
        assert edge.ask(f"/after/{turn}")["target"] == f"/after/{turn}"
    assert judge.judge(edge.seen(), []) == []


def spellings(name: str) -> list[str]:
    """Return a header's name as it may be written, and with a _ that some servers take for a -."""
    return [name, name.title(), name.upper(), name.replace("-", "_")]


@pytest.mark.fault(33)
def test_no_header_of_a_clients_own_says_who_asks_or_what_for(edge: Edge) -> None:
    """Each of the list, and what the app is told instead."""
    named = {
        "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
        "Forwarded-For", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Original-URL", "X-Rewrite-URL",
        "X-HTTP-Method-Override", "Proxy", "Forwarded",
    }  # fmt: skip
    assert {name.lower() for name in named} <= set(CLAIMS)
    ours = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"}
    honest = edge.names()
    for write in range(4):
        lying = edge.names(**{spellings(name)[write]: "6.6.6.6" for name in {*CLAIMS, *ours}})
        assert lying == honest
    assert ours <= set(honest)
