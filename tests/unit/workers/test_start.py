"""The program that starts the app in a container: as a process, with made-up limits and a made-up server."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
MIB = 1024 * 1024
DOCKERFILE = (REPOSITORY / "app/Dockerfile").read_text(encoding="utf-8")
#: Stands for gunicorn: says what it was called with, and how it ended.
SERVER = """
import os, signal, sys
def ended(number, frame):
    os.write(1, b"ended by %d\\n" % number)
    sys.exit(0)
signal.signal(signal.SIGTERM, ended)
print(os.getpid(), os.environ["WEB_CONCURRENCY"], *sys.argv[1:], flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A container of 1.5 CPUs and 512 MiB on a machine of 8 and 64 GiB."""
    files = {
        "proc/cpuinfo": "".join(f"processor : {number}\n" for number in range(8)),
        "proc/meminfo": "MemTotal: 67108864 kB\n",
        "proc/self/status": "Cpus_allowed_list:\t0-7\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "35 24 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
    }
    (tmp_path / "srv/app").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def started(machine: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program as the image does: copied modules and itself in a folder of another name."""
    home = machine / "opt/fleet"
    (copied,) = re.findall(r"COPY (\S+) /opt/fleet/(\S+)", DOCKERFILE)
    shutil.copytree(REPOSITORY / copied[0], home / copied[1], dirs_exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "fleet.workers.start", "--root", str(machine), *options],
        env={"PATH": os.defpath, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=machine / "srv/app", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def said(machine: Path, *options: str, **environment: str) -> dict[str, Any]:
    out, error = started(machine, "--print", *options, **environment).communicate(timeout=30)
    assert not error
    found: dict[str, Any] = json.loads(out)
    return found


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_the_plan_follows_from_the_containers_own_limits(machine: Path) -> None:
    found = said(machine)
    assert (found["workers"], found["bound_by"]) == (4, "quota")
    assert found["reason"] == "4 workers = 2 × 1.5 of 8 vCPU by quota + 1 (memory would allow 4)"
    assert option(found["command"], "--workers") == "4"
    (machine / "sys/fs/cgroup/memory.max").write_text(f"{300 * MIB}\n")
    assert (said(machine)["workers"], said(machine)["bound_by"]) == (2, "memory")
    (machine / "sys/fs/cgroup/memory.max").write_text("lots\n")
    assert "memory.max says 'lots'" in said(machine)["notes"][0]


@pytest.mark.parametrize(
    ("options", "environment", "workers", "bound_by"),
    [
        ([], {"WEB_CONCURRENCY": "7"}, 7, "setting"),
        ([], {"WEB_CONCURRENCY": ""}, 4, "quota"),
        (["--workers", "2"], {"WEB_CONCURRENCY": "7"}, 2, "setting"),
        ([], {"FLEET_WORKERS_MAX": "3"}, 3, "limit"),
        ([], {"FLEET_WORKER_MIB": "200"}, 2, "memory"),
        ([], {"FLEET_RESERVE_MIB": "412"}, 1, "memory"),
        ([], {"FLEET_RESERVE_MIB": "0"}, 4, "quota"),
    ],
)
def test_a_number_that_was_set_counts(
    machine: Path, options: list[str], environment: dict[str, str], workers: int, bound_by: str
) -> None:
    found = said(machine, *options, **environment)
    assert (found["workers"], found["bound_by"]) == (workers, bound_by)


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (
            [],
            {"WEB_CONCURRENCY": "many"},
            "WEB_CONCURRENCY is 'many': allowed are 'auto' and whole numbers from 1 to 1024",
        ),
        ([], {"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY is '0'"),
        (["--workers", "-1"], {}, "--workers"),
        ([], {"FLEET_WORKER_MIB": "1.5"}, "FLEET_WORKER_MIB is '1.5'"),
        ([], {"FLEET_ENGINE": "apache"}, "FLEET_ENGINE is 'apache': allowed are gunicorn, asgi, uvicorn"),
        ([], {"FLEET_BIND": "8000"}, "FLEET_BIND is '8000'"),
        (["main.py"], {}, "the app is 'main.py': allowed is MODULE:ATTRIBUTE"),
    ],
)
def test_a_bad_setting_starts_nothing_and_is_named(
    machine: Path, options: list[str], environment: dict[str, str], words: str
) -> None:
    process = started(machine, *options, **environment)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert words in error


@pytest.mark.parametrize(
    ("engine", "version", "refused"),
    [
        ("asgi", "26.1.0", True),
        ("asgi", "25.3", True),
        ("asgi", "27.0.0", False),
        ("asgi", "28", False),
        ("gunicorn", "26.1.0", False),
        ("uvicorn", "26.1.0", False),
    ],
)
def test_parser_with_known_holes_is_not_started(machine: Path, engine: str, version: str, refused: bool) -> None:
    """The image's lock has gunicorn for all engines; which one it is to be is known at the start only."""
    about = machine / f"srv/app/gunicorn-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gunicorn\nVersion: {version}\n")
    process = started(machine, "--print", FLEET_ENGINE=engine)
    out, error = process.communicate(timeout=30)
    assert process.returncode == (2 if refused else 0)
    assert error == (
        f"workers.start: FLEET_ENGINE is 'asgi', and here is gunicorn {version}, whose parser the engine asgi uses: "
        "27 or newer is needed, older ones can be made to take one request for two (CVE-2026-134820): raise it in the "
        "app's lock, or set FLEET_ENGINE to another engine\n"
        if refused
        else ""
    )
    assert bool(out) is not refused


def test_memory_for_less_than_one_worker_starts_nothing_and_names_what_can_be_set(machine: Path) -> None:
    (machine / "sys/fs/cgroup/memory.max").write_text(f"{64 * MIB}\n")
    process = started(machine)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert "memory is 64 MiB by limit, of 65536, less than one worker takes, 100 MiB: allowed are " in error
    assert "FLEET_WORKER_MIB" in error
    assert "WEB_CONCURRENCY" in error
    assert "service_" not in error
    assert said(machine, FLEET_WORKER_MIB="40")["workers"] == 1
    assert said(machine, WEB_CONCURRENCY="2")["workers"] == 2


def test_without_any_quota_file_the_machine_is_what_there_is(machine: Path) -> None:
    for name in ("cpu.max", "memory.max"):
        (machine / "sys/fs/cgroup" / name).unlink()
    assert (said(machine)["workers"], said(machine)["bound_by"], said(machine)["notes"]) == (17, "cpu", [])
    (machine / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    (machine / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert (said(machine)["workers"], said(machine)["notes"]) == (17, [])


def test_the_tightest_of_nested_groups_counts(machine: Path) -> None:
    group = machine / "sys/fs/cgroup/outer/inner"
    group.mkdir(parents=True)
    (machine / "proc/self/cgroup").write_text("0::/outer/inner\n")
    (machine / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    (group / "cpu.max").write_text("400000 100000\n")
    (group.parent / "cpu.max").write_text("50000 100000\n")
    (group / "memory.max").write_text("never\n")
    found = said(machine)
    assert (found["workers"], found["bound_by"], found["inputs"]["memory_limit_mib"]) == (2, "quota", 512)
    assert "outer/inner/memory.max says 'never'" in found["notes"][0]


@pytest.mark.parametrize(
    ("engine", "concurrency"), [("gunicorn", ""), ("gunicorn", "auto"), ("asgi", ""), ("uvicorn", "")]
)
def test_it_says_why_and_becomes_the_server_which_gets_the_signals(
    machine: Path, engine: str, concurrency: str
) -> None:
    app = machine / "srv/app"
    server = "uvicorn" if engine == "uvicorn" else "gunicorn"
    (app / server).mkdir()
    (app / server / "__main__.py").write_text(SERVER)
    options = ["shop.main:app", "--", "--log-level", "debug"]
    process = started(machine, *options, FLEET_ENGINE=engine, WEB_CONCURRENCY=concurrency)
    assert process.stdout
    assert process.stdout.readline().startswith("4 workers = 2 × 1.5 of 8 vCPU by quota + 1")
    pid, number, *arguments = process.stdout.readline().split()
    assert int(pid) == process.pid, "the same process"
    assert option(arguments, "--workers") == "4"
    assert number == "4", "the servers read it, too, and gunicorn ends where it is no number"
    assert arguments[-3:] == ["--log-level", "debug", "shop.main:app"]
    if server == "gunicorn":
        assert option(arguments, "-k") == ("asgi" if engine == "asgi" else "fleet.workers.http.Worker")
        assert option(arguments, "--bind") == "0.0.0.0:8000"
    else:
        assert ":".join(option(arguments, name) for name in ("--host", "--port")) == "0.0.0.0:8000"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == f"ended by {signal.SIGTERM.value}\n"
    assert process.returncode == 0


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (204, 0), (302, 0), (404, 1), (503, 1)])
def test_the_health_check_tells_well_from_ill(machine: Path, port: int, status: int, code: int) -> None:
    process = started(machine, "--check", FLEET_BIND=f"0.0.0.0:{port}", FLEET_HEALTH_PATH=f"/up/{status}")
    out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (code, "")
    assert out == ("healthy\n" if code == 0 else f"/up/{status} answered {status}\n")


def test_where_nobody_answers_the_health_check_fails(machine: Path) -> None:
    process = started(machine, "--check", FLEET_BIND="127.0.0.1:1")
    assert process.communicate(timeout=30)[0].startswith("/health did not answer: ")
    assert process.returncode == 1


# The image


def instructions(name: str) -> list[str]:
    """The arguments of an instruction wherever the Dockerfile has it."""
    return [
        " ".join(text.replace("\\\n", " ").split()) for text in re.findall(rf"(?m)^{name} ((?:.*\\\n)*.*)$", DOCKERFILE)
    ]


def test_what_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = [REPOSITORY.glob(line[1:]) for line in ignore if line.startswith("!")]
    there = {str(path.relative_to(REPOSITORY)) for paths in sent for path in paths}
    copied = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert {"app/", "plugins/module_utils/workers/"} <= copied
    for source in copied:
        assert source.partition("/")[0] in there or source.rstrip("/") in there, source
        assert (REPOSITORY / source).exists(), source


def test_packages_come_by_their_hashes_and_as_wheels() -> None:
    installs = [part for line in instructions("RUN") for part in line.split("&&") if re.search(r"pip install", part)]
    assert len(installs) == 4
    for part in installs:
        assert "--require-hashes" in part or "--offline" in part, part
        assert "tools/bin/pip" in part or "--no-build" in part or "--offline" in part, part


def test_the_image_runs_as_nobody_and_without_a_shell() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    (entry,) = instructions("ENTRYPOINT")
    assert json.loads(entry) == ["python3", "-m", "fleet.workers.start"]
    (health,) = instructions("HEALTHCHECK")
    assert json.loads(health.partition("CMD ")[2]) == [*json.loads(entry), "--check"]
    assert DOCKERFILE.splitlines().count("FROM ${BASE}") == 1
    assert "ARG BASE=python:3.13-slim" in DOCKERFILE


def test_compose_waits_for_requests_to_end_and_gives_the_plan_limits() -> None:
    (service,) = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert int(service["stop_grace_period"].rstrip("s")) > 30
    assert service["build"]["dockerfile"] == "app/Dockerfile"
    assert service["build"]["args"].keys() == {name.partition("=")[0] for name in instructions("ARG")}
    assert f"ARG BASE={service['build']['args']['BASE'][len('${BASE:-') : -1]}\n" in DOCKERFILE
    assert {"cpus", "mem_limit"} <= service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
