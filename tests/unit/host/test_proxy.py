"""Where nginx's file for the app says that it is reached."""

from __future__ import annotations

import pytest

from plugins.module_utils.host.proxy import Entrance, Proxy, entrances


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("listen 80; listen [::]:80; server_name a.example b.example;", [("127.0.0.1", 80, False, "a.example")]),
        ("listen 443 ssl; server_name *.a.example;", [("127.0.0.1", 443, True, "verify.a.example")]),
        ("server_name .a.example; listen 8080;", [("127.0.0.1", 8080, False, "verify.a.example")]),
        ("listen 10.0.0.1; server_name a;", [("10.0.0.1", 80, False, "a")]),
        ("listen 10.0.0.1:81; listen 0.0.0.0:444 ssl http2;", [
            ("10.0.0.1", 81, False, "localhost"), ("127.0.0.1", 444, True, "localhost"),
        ]),
        ("# listen 80;\nlisten unix:/run/x.sock; listen [::]:80;", []),
    ],
)  # fmt: skip
def test_entrances(text: str, there: list[tuple[str, int, bool, str]]) -> None:
    assert entrances(f"server {{ {text} }}") == [Entrance(*entrance) for entrance in there]


def test_nobody_answers() -> None:
    status, trouble = Proxy().ask(Entrance("127.0.0.1", 1, False, "a"), "/", 1)
    assert status == 0
    assert "refused" in trouble
