"""The container engine: the user's own if one answers, else one that the lab starts and stops."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .definition import LabError

LABEL = "fastapi-fleet.lab"
_START_SECONDS = 45
_STOP_SECONDS = 40


@dataclass(frozen=True)
class Engine:
    """How to talk to an engine; `own` means that the lab started it. `socket`: where, if not at the usual place."""

    own: bool
    socket: Path | None = None

    def argv(self, *args: str) -> list[str]:
        """Return a docker command line."""
        where = ["--host", f"unix://{self.socket or _socket()}"] if self.own else []
        return ["docker", *where, *args]

    def env(self) -> dict[str, str]:
        """Return the environment for docker: nothing that would point our own engine's client elsewhere."""
        env = dict(os.environ)
        if self.own:
            for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
                env.pop(name, None)
        if not shutil.which("docker-buildx") and not _has_buildx():
            env["DOCKER_BUILDKIT"] = "0"
        return env

    def call(self, *args: str, timeout: float = 60) -> str:
        """Run docker and return what it prints; LabError when it fails."""
        done = machine.run(self.argv(*args), timeout=timeout, env=self.env())
        if done.returncode:
            raise LabError(f"docker {' '.join(args[:3])} failed:\n{machine.tail(done.stderr or done.stdout)}")
        return done.stdout.strip()

    def works(self, *args: str, timeout: float = 60) -> bool:
        """Run docker and say whether it succeeded."""
        return machine.run(self.argv(*args), timeout=timeout, env=self.env()).returncode == 0

    def answers(self) -> bool:
        """Say whether the engine's server is there."""
        try:
            return self.works("version", "--format", "{{.Server.Version}}", timeout=15)
        except LabError:
            return False


def _has_buildx() -> bool:
    folders = (
        "/usr/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        str(Path.home() / ".docker/cli-plugins"),
    )
    return any((Path(folder) / "docker-buildx").exists() for folder in folders)


def _socket() -> Path:
    return machine.run_dir() / "docker.sock"


def _data_root() -> Path:
    return machine.cache() / "engine" / "data"


def _record() -> Path:
    return machine.run_dir() / "started.json"


def log_file() -> Path:
    """Return where our own engine writes its log."""
    return machine.run_dir() / "dockerd.log"


def _start_time(pid: int) -> str | None:
    """Return a live process's start time in clock ticks since boot (`/proc/PID/stat`, field 22)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else after_name[19]


def own_pid() -> int | None:
    """Return the pid of the engine that the lab started, if that very process still runs."""
    try:
        record = json.loads(_record().read_text())
        pid = int(record["pid"])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (OSError, ValueError, KeyError):
        return None
    same = _start_time(pid) == record["start_time"] and str(_data_root()) in command
    return pid if same else None


def find() -> Engine | None:
    """Return the engine in use: our own if it runs, else the user's, else None. Starts nothing."""
    if shutil.which("docker") is None:
        raise LabError("the docker command is not installed: run script/bootstrap")
    if own_pid():
        return Engine(own=True)
    users = Engine(own=False)
    return users if users.answers() else None


def ensure() -> Engine:
    """Return an engine that answers; start one if there is none. Call it with the lock `engine` held."""
    engine = find()
    if engine is not None and (not engine.own or _wait(engine, own_pid() or 0)):
        return engine
    return _start()


def _wait(engine: Engine, pid: int) -> bool:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if _socket().exists() and engine.answers():
            return True
        if _start_time(pid) is None:
            return False
        time.sleep(0.1)
    return False


def _start() -> Engine:
    if shutil.which("dockerd") is None:
        raise LabError(
            "no container engine answers, and dockerd is not installed: start Docker, or run script/bootstrap"
        )
    if os.geteuid() != 0:
        raise LabError(
            "no container engine answers, and only root can start one: start Docker (for example "
            "`sudo systemctl start docker`), or run this as root"
        )
    began = time.monotonic()
    folder = machine.run_dir()
    _end_leftovers()
    shutil.rmtree(folder / "exec", ignore_errors=True)
    _data_root().mkdir(parents=True, exist_ok=True)
    for name in ("docker.sock", "dockerd.pid"):
        (folder / name).unlink(missing_ok=True)
    argv = [
        "dockerd",
        f"--data-root={_data_root()}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'dockerd.pid'}",
        f"--host=unix://{_socket()}",
        "--group=root",
    ]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        # New systemd boots on cgroup2 only. A mount namespace of its own leaves the machine as it is.
        script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec " + shlex.join(argv)
        argv = ["unshare", "--mount", "sh", "-c", script]
    with log_file().open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    _record().write_text(json.dumps({"pid": process.pid, "start_time": _start_time(process.pid)}))
    engine = Engine(own=True)
    if not _wait(engine, process.pid):
        log_text = log_file().read_text(errors="replace")
        process.kill()
        process.wait()
        _record().unlink(missing_ok=True)
        raise LabError(f"dockerd did not start; the end of its log:\n{machine.tail(log_text)}")
    machine.say(f"container engine started in {time.monotonic() - began:.1f} s (pid {process.pid})")
    return engine


def _end_leftovers() -> None:
    """End what a dockerd that was killed left behind: its containerd, the shims and the containers' first processes.

    They are recognised by our own exec root among their arguments, which no other process has.
    """
    mark = f"{machine.run_dir() / 'exec'}/containerd/"
    ours: set[int] = set()
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
        if mark in command and "containerd" in command.split("\0")[0]:
            ours.add(int(folder.name))
    for pid in sorted(ours):
        for victim in [*children.get(pid, []), pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)


def stop_own() -> bool:
    """Stop the engine that the lab started, by its pid; say whether there was one."""
    pid = own_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_SECONDS
    while _start_time(pid) is not None and time.monotonic() < end:
        time.sleep(0.1)
    if own_pid() is not None:
        raise LabError(f"the container engine (pid {pid}) does not stop; its log: {log_file()}")
    _record().unlink(missing_ok=True)
    machine.say("container engine stopped")
    return True


def remove_own_files() -> None:
    """Delete our own engine's images, caches and log. The engine must be stopped."""
    _end_leftovers()
    for folder in (machine.run_dir(), machine.cache() / "engine"):
        shutil.rmtree(folder, ignore_errors=True)
