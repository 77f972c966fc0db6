"""Each endpoint, its bounds and the stamp on every response, in this process."""

import hashlib
import os
from collections.abc import Iterator

import main
import pytest
from fastapi.testclient import TestClient

KINDS = ["blocking", "threads", "awaiting"]


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(main.app, raise_server_exceptions=False) as client:
        yield client


def test_health_says_who_answers(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "pid": os.getpid(), "release": "dev"}


def test_health_says_the_release_it_was_given(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "RELEASE", "3f9c1a7e")
    response = client.get("/health")
    assert response.json()["release"] == response.headers["x-release"] == "3f9c1a7e"


@pytest.mark.parametrize("path", ["/", "/health", "/whoami", "/serve/cpu?units=1", "/nowhere", "/serve/cpu?units=x"])
def test_every_response_is_stamped_once(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers.get_list("x-worker-pid") == [str(os.getpid())]
    assert headers.get_list("x-release") == ["dev"]


def test_a_crash_is_stamped_too_and_tells_nothing(client: TestClient) -> None:
    def crash() -> None:
        raise RuntimeError("secret")

    routes = list(main.app.router.routes)
    main.app.add_api_route("/crash", crash)
    try:
        response = client.get("/crash")
    finally:
        main.app.router.routes[:] = routes
    assert (response.status_code, response.headers["x-release"]) == (500, "dev")
    assert "secret" not in response.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_customer_is_served_for_as_long_as_asked(client: TestClient, kind: str) -> None:
    served = client.get(f"/serve/{kind}?seconds=0.05").json()
    assert (served["pid"], served["release"], served["kind"]) == (os.getpid(), "dev", kind)
    assert served["seconds"] >= 0.05
    assert served["finished"] >= served["started"] > 1_700_000_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", ["-0.1", "10.1", "nan", "inf", "soon"])
def test_seconds_are_bounded(client: TestClient, kind: str, seconds: str) -> None:
    assert client.get(f"/serve/{kind}", params={"seconds": seconds}).status_code == 422


@pytest.mark.parametrize("kind", KINDS)
def test_two_seconds_unless_told(kind: str) -> None:
    parameters = main.app.openapi()["paths"][f"/serve/{kind}"]["get"]["parameters"]
    assert {p["name"]: p["schema"]["default"] for p in parameters} == {"seconds": 2.0}


def test_computing_grows_with_its_units(client: TestClient) -> None:
    few, many = (client.get(f"/serve/cpu?units={units}").json()["seconds"] for units in (1, 30))
    assert many > few > 0


@pytest.mark.parametrize("units", ["0", "101", "1.5"])
def test_computing_is_bounded(client: TestClient, units: str) -> None:
    assert client.get(f"/serve/cpu?units={units}").status_code == 422


def test_echo_counts_and_digests_the_bytes(client: TestClient) -> None:
    body = os.urandom(300_001)
    answer = client.post("/echo", content=body).json()
    assert (answer["bytes"], answer["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert client.post("/echo").json()["bytes"] == 0


def test_download_is_complete_and_announced(client: TestClient) -> None:
    with client.stream("GET", "/download?chunks=3&pause=0") as response:
        assert response.headers["content-length"] == str(3 * 16384)
        assert response.read() == b"\0" * 16384 + b"\1" * 16384 + b"\2" * 16384


@pytest.mark.parametrize("query", ["chunks=0", "chunks=101", "pause=-1", "pause=1.1", "pause=nan"])
def test_download_is_bounded(client: TestClient, query: str) -> None:
    assert client.get(f"/download?{query}").status_code == 422


def test_whoami_shows_what_the_proxy_said_and_nothing_else() -> None:
    with TestClient(main.app, base_url="https://fleet.example", client=("192.0.2.7", 1)) as client:
        headers = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2"), ("cookie", "a=b")]
        assert client.get("/whoami", headers=headers).json() == {
            "client": "192.0.2.7",
            "scheme": "https",
            "host": "fleet.example",
            "forwarded": {"x-forwarded-for": "192.0.2.1, 192.0.2.2"},
        }


def test_websocket_echoes_and_is_stamped(client: TestClient) -> None:
    with client.websocket_connect("/ws") as websocket:
        assert (b"x-worker-pid", str(os.getpid()).encode()) in list(websocket.extra_headers or [])
        for text in ("one", "zwei"):
            websocket.send_text(text)
            assert websocket.receive_text() == text


def test_the_page_may_run_only_its_own_code(client: TestClient) -> None:
    response = client.get("/")
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].count("sha256-") == policy["style-src"].count("sha256-") == 1
    assert "unsafe" not in response.headers["content-security-policy"]
    for outside in ("http://", "https://", "onclick=", "onload=", "style="):
        assert outside not in response.text.replace("http://www.w3.org/2000/svg", "")
