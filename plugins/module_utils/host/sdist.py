"""Run the build of a wheel on a host: without rights, without a network, with a time limit, in a folder of its own."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import sdist_hook

USER = "nobody"
SYSTEMD = Path("/run/systemd/system")  # there when PID 1 is systemd
EPOCH = "315532800"  # 1980-01-01, the oldest time that a wheel can hold: a fixed one makes builds reproducible
LINES = 25  # of the build's output, in a message
_WHEEL = re.compile(r"[A-Za-z0-9_.+!]+(-[A-Za-z0-9_.+!]+){4,5}\.whl")
# The host serves requests meanwhile: the build comes last for CPU, and goes first when memory runs out.
_UNIT = {
    "User": USER,
    "CPUWeight": "10",
    "Nice": "10",
    "OOMScoreAdjust": "1000",
    "NoNewPrivileges": "yes",
    "PrivateNetwork": "yes",
    "PrivateDevices": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": "AF_UNIX",
    "RestrictSUIDSGID": "yes",
    "TasksMax": "512",
    "UMask": "0022",
}


class SdistError(Exception):
    """A build that did not succeed; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Job:
    """What to build: files on this host, its PEP 517 backend, and what is in `tools`. `limit` is in seconds."""

    name: str
    version: str
    sdist: Path
    tools: Path
    backend: str
    backend_path: list[str] = field(default_factory=list)
    have: list[str] = field(default_factory=list)
    python: str = "/usr/bin/python3"
    limit: float = 900
    parent: Path = Path("/var/tmp")  # noqa: S108 (a private folder is made in it; /tmp is often small, or noexec)

    @property
    def label(self) -> str:
        """Name the package for a message."""
        return f"{self.name} {self.version}"


def build(job: Job, into: Path) -> dict[str, Any]:
    """Build in a private folder; return {"wheel": PATH below `into`} or {"requires": [...]}. Raises SdistError."""
    root = os.geteuid() == 0
    work = Path(tempfile.mkdtemp(prefix="release-sdist-", dir=job.parent))
    try:
        order = {"backend": job.backend, "backend_path": job.backend_path, "have": job.have}
        order |= {"sdist": job.sdist.name, "tools": job.tools.name}
        for folder in ("hook", "path", "home", "scratch", "out"):
            (work / folder).mkdir()
        (work / "order.json").write_text(json.dumps(order), "utf-8")
        (work / "hook" / "sdist_hook.py").write_text(inspect.getsource(sdist_hook), "utf-8")
        (work / "path" / "sitecustomize.py").write_text(
            f"import site\nsite.addsitedir({str(work / 'tools')!r})\n", "utf-8"
        )
        for file in (job.sdist, job.tools):
            shutil.copyfile(file, work / file.name)
        if root:
            give(work, USER)
        run(job, work, root)
        return collect(job, work, into)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def give(folder: Path, user: str) -> None:
    """Give a folder with all that is in it to a user. Nobody else can have put anything there yet."""
    owner = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def environment(work: Path) -> dict[str, str]:
    """Return the build's environment: nothing of the host's, and nothing that differs from one build to the next."""
    flags = f"-g0 -ffile-prefix-map={work}=."  # debug information would name this folder
    return {
        "PATH": f"{work}/tools/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{work}/path:{work}/tools",
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": EPOCH,
        "HOME": f"{work}/home",
        "TMPDIR": str(work / "scratch"),
        "LANG": "C.UTF-8",
        "CFLAGS": flags,
        "CXXFLAGS": flags,
    }


def run(job: Job, work: Path, root: bool) -> None:
    """Run the program, and end all that it started. Raises SdistError with the last lines of what it wrote."""
    variables = [f"{key}={value}" for key, value in environment(work).items()]
    # -S: nothing that the distribution has installed takes part.
    program = ["/usr/bin/env", "-i", *variables, job.python, "-S", "-s", str(work / "hook" / "sdist_hook.py")]
    other: dict[str, Any] = {}
    if root and SYSTEMD.exists():
        unit = {**_UNIT, "ReadWritePaths": str(work), "WorkingDirectory": str(work), "RuntimeMaxSec": f"{job.limit:g}"}
        options = [f"--property={key}={value}" for key, value in unit.items()]
        program = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec", *options, *program]
    elif root:
        other = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            program,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o022,
            **other,
        ) as child:
            # systemd ends a unit by itself, with all that it started.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(job.limit + (10 if program[0] == "systemd-run" else 0))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 20_000))
        output = log.read().decode("utf-8", "replace").strip()
    if child.returncode:
        raise SdistError(explain(job, output, time.monotonic() - began >= job.limit))


def explain(job: Job, output: str, late: bool) -> str:
    """Say why a build ended, and what may help."""
    last = "\n".join(output.splitlines()[-LINES:])
    shown = f"\nThe build said:\n{last}" if last else ""
    if late:
        return (
            f"{job.label} was not built from source within {job.limit:g} s. If it only needs longer, raise "
            f"release_build_timeout.{shown}"
        )
    return (
        f"{job.label} could not be built from source. If a compiler or headers are missing, name their Debian packages "
        "in release_build_packages: [build-essential, python3-dev] for C, and what the package's documentation "
        f"asks for. Else choose a version with wheels.{shown}"
    )


def collect(job: Job, work: Path, into: Path) -> dict[str, Any]:
    """Take over what the build left, which may be anything: plain files of its own only, never through a link."""
    try:
        result = json.loads(_read(work / "result.json", 1 << 20))
        if requires := result.get("requires"):
            return {"requires": [str(requirement) for requirement in requires]}
        name = _name(str(result["wheel"]))
        (into / name).write_bytes(_read(work / "out" / name, 1 << 30))
        (into / name).chmod(0o644)  # root wrote it, the user who logs in fetches it
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SdistError(f"{job.label} was built from source, but left no wheel ({error}).") from error
    return {"wheel": str(into / name)}


def _name(wheel: str) -> str:
    if not _WHEEL.fullmatch(wheel):
        raise ValueError(f"it calls its wheel {wheel!r}")
    return wheel


def _read(path: Path, most: int) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as stream:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_size > most:
            raise ValueError(f"{path.name} is no plain file of at most {most} bytes")
        return stream.read(most)
