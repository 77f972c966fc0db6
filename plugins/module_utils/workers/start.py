"""Start an app with the number of workers that its container, or this machine, should have: the plan, then exec.

    python -m PACKAGE.workers.start [--print | --check] [--workers N] [MODULE:ATTRIBUTE] [-- OPTIONS OF THE SERVER]

What stays is the server itself, as this process: it gets the signals. Set by the environment:

FLEET_ENGINE        gunicorn (the default), or another one of engines/
FLEET_MODULE        MODULE:ATTRIBUTE, main:app by default
FLEET_EVENT_LOOP    auto (the default: uvloop where it is installed), uvloop or asyncio
FLEET_BIND          HOST:PORT to listen on, 0.0.0.0:8000 by default
WEB_CONCURRENCY     so many workers instead of the plan's; --workers N goes before it
FLEET_WORKERS_MAX   never more than so many
FLEET_WORKER_MIB    memory that one worker takes, in MiB
FLEET_RESERVE_MIB   memory for all that is no worker, in MiB; 64 by default, the main process
FLEET_HEALTH_PATH   what --check asks for, /health by default

Needs nothing but the modules beside it and the server. Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .engines import DEFAULT, LOOPS, Engine, Start, engine
from .factory import called
from .limits import read_groups, read_machine
from .plan import WORKER_MIB_MAX, WORKERS_MAX, WorkerPlan, WorkerPlanError, parse_whole, plan_workers

#: Uvicorn's HTTP for servers that clients reach without an nginx of ours.
HTTP = f"{__package__}.http"
#: A worker whose event loop stands still for so many seconds is replaced; as service_worker_timeout.
TIMEOUT = "60"
SHM = "/dev/shm"  # noqa: S108 (memory: a worker's heartbeat must wait for no disk)


def plan(root: Path, environment: Mapping[str, str], workers: str | None) -> WorkerPlan:
    """Plan the workers for the limits that this process has. Raises WorkerPlanError for a bad setting."""

    def whole(name: str, low: int, high: int) -> int | None:
        # Compose files set variables to nothing rather than not at all.
        return parse_whole(name, environment.get(name) or "auto", low, high)

    fixed = parse_whole("--workers", workers or "auto", 1, WORKERS_MAX) or whole("WEB_CONCURRENCY", 1, WORKERS_MAX)
    reserve = whole("FLEET_RESERVE_MIB", 0, WORKER_MIB_MAX)
    machine, groups = read_machine(root), read_groups(root)
    most, size = whole("FLEET_WORKERS_MAX", 1, WORKERS_MAX), whole("FLEET_WORKER_MIB", 1, WORKER_MIB_MAX)
    try:
        return plan_workers(
            vcpus=machine["vcpus"] or 1,
            affinity=machine["affinity"],
            quota=groups.quota,
            memory_mib=machine["memory_mib"] or 1,
            memory_limit_mib=groups.memory_limit_mib,
            workers=fixed or "auto",
            workers_max=most or WORKERS_MAX,
            worker_mib=size or "auto",
            reserve_mib=64 if reserve is None else reserve,
            sets=1,  # the next release starts in a container of its own
            notes=groups.notes,
        )
    except WorkerPlanError as error:
        # Settings have other names here than on a host.
        names = str(error).replace("service_worker_memory_mib", "FLEET_WORKER_MIB")
        raise WorkerPlanError(names.replace("service_workers", "WEB_CONCURRENCY")) from None


def address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return host and port to listen on. Raises WorkerPlanError."""
    text = environment.get("FLEET_BIND") or "0.0.0.0:8000"
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", text)
    if not match:
        raise WorkerPlanError(f"FLEET_BIND is {text!r}: allowed is HOST:PORT, [::]:8000 for IPv6")
    return match[1], match[2]


def command(environment: Mapping[str, str], app: str, workers: int, options: Sequence[str] = ()) -> list[str]:
    """Return the server's command line. Raises ValueError for a bad setting."""
    address(environment)
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?", app):
        raise WorkerPlanError(f"the app is {app!r}: allowed is MODULE:ATTRIBUTE, for example main:app")
    loop = environment.get("FLEET_EVENT_LOOP") or "auto"
    if loop not in LOOPS:
        raise WorkerPlanError(f"FLEET_EVENT_LOOP is {loop!r}: allowed are {', '.join(LOOPS)}")
    start = Start(
        loop=loop,
        python=[sys.executable],
        app=app,
        attribute=app.removesuffix("()"),
        workers=str(workers),
        timeout=TIMEOUT,
        bind=":".join(address(environment)),
        http=HTTP,
        shared_memory=SHM if os.access(SHM, os.W_OK) else "",
    )
    *words, last = (word for group in engine_of(environment).command(start) for word in group)
    return [*words, *options, last]


def engine_of(environment: Mapping[str, str]) -> Engine:
    """Return the engine that FLEET_ENGINE names. Raises ValueError."""
    return engine(environment.get("FLEET_ENGINE") or DEFAULT.name, "FLEET_ENGINE")


def source_of(module: str) -> str | None:
    """Return the text of a module as Python would find it, without importing it or its packages; None elsewhere."""
    name = module.replace(".", "/")
    for folder in sys.path:
        for path in (Path(folder or ".", name, "__init__.py"), Path(folder or ".", f"{name}.py")):
            with contextlib.suppress(OSError):
                return path.read_text(encoding="utf-8", errors="replace")
    return None


def check_server(environment: Mapping[str, str]) -> None:
    """Refuse versions that the engine refuses. Raises ValueError."""
    server, versions = engine_of(environment), {}
    for package in server.packages:
        # Of one that is missing, Python itself says so.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    if refusal := server.refusal(versions):
        raise WorkerPlanError(
            f"FLEET_ENGINE is {server.name!r}, and here is {refusal}: raise it in the app's lock, or set FLEET_ENGINE "
            "to another engine"
        )


def healthy(environment: Mapping[str, str]) -> str:
    """Ask the server as a container's health check does; return what is wrong, "" where it is well."""
    host, port = address(environment)
    here = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 (not bound)
    path = environment.get("FLEET_HEALTH_PATH") or "/health"
    try:
        connection = http.client.HTTPConnection(here, int(port), timeout=4)
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{path} did not answer: {error}"
    good = http.HTTPStatus.OK <= status < http.HTTPStatus.BAD_REQUEST
    return "" if good else f"{path} answered {status}"


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the program; on success it becomes the server and does not return."""
    own, options = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, options = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(prog="workers.start", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("app", nargs="?", default=environment.get("FLEET_MODULE") or "main:app")
    parser.add_argument("--print", action="store_true", help="show plan and command as JSON, start nothing")
    parser.add_argument("--check", action="store_true", help="ask the running server for its health path")
    parser.add_argument("--workers", metavar="N", help="so many, whatever the plan says")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where /proc and /sys are, for tests")
    arguments = parser.parse_args(own)
    try:
        if arguments.check:
            trouble = healthy(environment)
            print(trouble or "healthy")
            return 1 if trouble else 0
        worker_plan = plan(arguments.root, environment, arguments.workers)
        app = called(arguments.app, source_of)
        start = command(environment, app, worker_plan.workers, options)
        check_server(environment)
    except ValueError as error:
        print(f"workers.start: {error}", file=sys.stderr)
        return 2
    if arguments.print:
        print(json.dumps({**worker_plan.as_dict(), "command": start}, indent=1, ensure_ascii=False))
        return 0
    for line in (worker_plan.reason, *(f"note: {note}" for note in worker_plan.notes)):
        print(line, flush=True)
    # Gunicorn reads the variable whatever --workers says, and ends where it is no number: "" or auto.
    return os.execve(start[0], start, {**environment, "WEB_CONCURRENCY": str(worker_plan.workers)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
