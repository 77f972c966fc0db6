"""In what ways a live slot may not be as the last switch made it: a deploy of the same release then switches."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from plugins.module_utils.host import sockets
from plugins.module_utils.host.digests import PREFIX, keyed, sha256
from plugins.module_utils.host.files import write_object
from plugins.module_utils.host.records import SlotRecord
from plugins.module_utils.host.serving import Host, altered, is_proved, serves
from plugins.module_utils.host.sockets import TRIES, Answers
from plugins.module_utils.host.whole import MARKER, count_files

FINGERPRINT = f"{'0' * 16}-{'a' * 32}"
RELEASE = "0123456789ab"


@dataclass
class Made:
    """What a switch has made, and what the probe knows of it."""

    folder: Path
    host: Host
    record: SlotRecord

    @property
    def unit(self) -> Path:
        return self.folder / "web@blue.service"

    @property
    def release(self) -> Path:
        return self.folder / "releases" / RELEASE


@pytest.fixture
def made(tmp_path: Path) -> Made:
    unit = tmp_path / "web@blue.service"
    unit.write_text("as started")
    record = {
        "release": RELEASE, "fingerprint": FINGERPRINT, "slot": "blue", "workers": 2,
        "files": {str(unit): hashlib.sha256(b"as started").hexdigest()},
    }  # fmt: skip
    write_object(tmp_path / "slots.json", record)
    (tmp_path / "slots").mkdir()
    write_object(tmp_path / "slots" / "blue.json", record)
    (tmp_path / "live.sock").symlink_to("/run/web/blue.sock")
    (tmp_path / "multi-user.target.wants").mkdir()
    (tmp_path / "multi-user.target.wants" / unit.name).symlink_to(unit)
    release = tmp_path / "releases" / RELEASE
    (release / "app").mkdir(parents=True)
    (release / "app" / "main.py").touch()
    (release / "app" / "other.py").touch()
    write_object(release / MARKER, {"id": RELEASE, "python": "3.12", "files": count_files(release)})
    host = Host("web", tmp_path, (True, os.getpid()), True, python="3.12.3", units=tmp_path, run=tmp_path)
    return Made(tmp_path, host, SlotRecord.parse(record))


def link_elsewhere(made: Made) -> None:
    (made.folder / "live.sock").unlink()
    (made.folder / "live.sock").symlink_to("/run/web/green.sock")


WAYS: dict[str, tuple[Callable[[Made], object], str]] = {
    "dead": (lambda made: setattr(made, "host", replace(made.host, service=(False, 0))), "web@blue.service is down"),
    "no socket": (lambda made: setattr(made, "host", replace(made.host, socket=False)), "web@blue.socket is down"),
    "disabled": (
        lambda made: (made.folder / "multi-user.target.wants" / "web@blue.service").unlink(),
        "web@blue.service is disabled",
    ),
    "unit edited": (lambda made: made.unit.write_text("by hand"), "web@blue.service was edited"),
    "unit gone": (lambda made: made.unit.unlink(), "web@blue.service is gone"),
    "release gone": (lambda made: shutil.rmtree(made.release), f"{RELEASE} is gone"),
    "file of it gone": (lambda made: (made.release / "app" / "main.py").unlink(), "1 of 2 files are gone from"),
    "another Python": (
        lambda made: setattr(made, "host", replace(made.host, python="3.13.1")),
        "it was built for Python 3.12, the host has 3.13",
    ),
    "link elsewhere": (link_elsewhere, "leads to another slot"),
}


def test_as_the_switch_made_it(made: Made) -> None:
    assert altered(made.record, made.host) == ""
    assert serves(made.record) == {"release": RELEASE, "fingerprint": FINGERPRINT}
    assert serves(replace(made.record, fingerprint="of an earlier version")) == {"release": RELEASE, "fingerprint": ""}


@pytest.mark.fault(56)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_which_a_live_slot_may_be_altered_is_told(made: Made, way: str) -> None:
    make, text = WAYS[way]
    make(made)
    assert text in altered(made.record, made.host)


def test_a_link_that_is_gone_is_told_and_a_first_deploy_is_not(made: Made) -> None:
    (made.folder / "live.sock").unlink()
    assert altered(SlotRecord(), made.host) == f"{made.folder / 'live.sock'} is gone"
    (made.folder / "slots" / "blue.json").unlink()
    assert altered(SlotRecord(), made.host) == ""


def test_a_first_release_that_was_refused_has_lost_no_link(made: Made) -> None:
    """Its slot has a record from when it was asked, and was disabled when it was taken back."""
    (made.folder / "live.sock").unlink()
    (made.folder / "multi-user.target.wants" / "web@blue.service").unlink()
    assert altered(SlotRecord(), made.host) == ""


def test_a_main_process_that_was_stopped_is_told(made: Made) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            host = replace(made.host, service=(True, process.pid))
            assert altered(made.record, host) == "the main process of web@blue.service is stopped (SIGSTOP)"
        finally:
            process.kill()


@pytest.fixture
def server(made: Made) -> Iterator[dict[str, bytes]]:
    """An app on the slot's socket; what it answers can be set, and b"" is nothing at all."""
    answer = {"bytes": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
    path = made.folder / "web" / "blue.sock"
    path.parent.mkdir()
    kept = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                kept.append(connection)
                if answer["bytes"]:
                    connection.recv(4096)
                    connection.sendall(answer["bytes"])

        threading.Thread(target=serve, daemon=True).start()
        yield answer
        listener.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "/health answers 503"),
        (b"", "/health gives no answer within 0.5 s (timed out)"),
    ],
    ids=["well", "not well", "hung"],
)
def test_health_is_asked(made: Made, server: dict[str, bytes], bytes_: bytes, text: str) -> None:
    server["bytes"] = bytes_
    health = {"path": "/health", "host": "localhost", "timeout": 0.5}
    assert altered(made.record, replace(made.host, health=health)) == text


def test_one_hiccup_is_no_reason_to_switch(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Answers([0], error="timed out")] * (TRIES - 1) + [Answers([200])]
    monkeypatch.setattr(sockets, "ask", lambda *_: answers.pop(0))
    health = {"path": "/health", "host": "localhost", "timeout": 0.5}
    assert altered(made.record, replace(made.host, health=health)) == ""
    assert answers == []


def slot_files(made: Made, workers: int) -> Made:
    """Give the slot an environment with secrets, and one of its own with so many workers of 2."""
    secret, own = made.folder / "environment.blue", made.folder / "blue.env"
    secret.write_text("PASSWORD=secret")
    own.write_text(f"FLEET_RELEASE={RELEASE}\nFLEET_WORKERS={workers}\n")
    as_switched = f"FLEET_RELEASE={RELEASE}\nFLEET_WORKERS=2\n".encode()
    files = {str(secret): f"{PREFIX}{keyed(bytes(32), b'PASSWORD=secret')}", str(own): sha256(as_switched)}
    return replace(made, record=replace(made.record, files=files))


def test_secret_file_is_not_called_edited_where_the_key_is_gone(made: Made) -> None:
    made = slot_files(made, workers=2)
    assert altered(made.record, made.host) == ""
    (made.folder / "environment.blue").write_text("PASSWORD=other")
    assert "environment.blue was edited" in altered(made.record, replace(made.host, key=bytes(32)))


def test_number_of_workers_is_the_slots_own(made: Made) -> None:
    made = slot_files(made, workers=1)
    assert altered(made.record, made.host) == ""
    own = made.folder / "blue.env"
    own.write_text(own.read_text().replace(RELEASE, "other"))
    assert altered(made.record, made.host) == f"{own} was edited"


def test_health_is_asked_as_the_slot_was_proved(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(_: Path, path: str, name: str, seconds: float, *__: object) -> Answers:
        asked.append((path, name, seconds))
        return Answers([200 if path == "/health" else 404])

    monkeypatch.setattr(sockets, "ask", ask)
    proved = {"health_path": "/health", "health_host": "localhost", "health_timeout": 5.0}
    record = replace(made.record, proved_with=proved)
    host = replace(made.host, health={"path": "/ready", "host": "shop", "timeout": 1.0})
    assert altered(record, host) == ""
    assert asked == [("/health", "localhost", 5.0)]
    assert not is_proved(record, host), "the deploy asks for another path, which the slot has not: the gate says so"
    assert asked.pop() == ("/ready", "shop", 1.0)
    assert is_proved(record, replace(host, health={"path": "/health", "host": "localhost", "timeout": 5}))
    assert is_proved(made.record, made.host), "nothing is asked"
    assert len(asked) == 1
