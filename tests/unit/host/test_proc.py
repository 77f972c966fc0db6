"""What is read from /proc, against this machine's own."""

from __future__ import annotations

import os
import socket

import pytest

from plugins.module_utils.host import proc


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_listens_on_a_port_is_known_by_process_and_name(family: socket.AddressFamily, address: str) -> None:
    try:
        server = socket.socket(family)
        server.bind((address, 0))
    except OSError:
        pytest.skip(f"this machine has no {address}")
    port = server.getsockname()[1]
    assert proc.listener(port) is None, "it is bound, and does not listen yet"
    server.listen()
    assert proc.listener(port) == (os.getpid(), (proc.PROC / "self/comm").read_text().strip())
    server.close()
    assert proc.listener(port) is None


def test_a_server_that_cannot_be_seen_is_told_without_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(proc, "socket_inodes", lambda _: set())
        assert proc.listener(server.getsockname()[1]) == (0, "")
