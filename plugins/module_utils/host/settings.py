"""The settings that the host's command reads.

Made by script/generate from roles/service/settings.yml. Edit that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the last deploy set; a default counts where a version before did not know of one."""

    #: A worker that takes more than this (PSS) is replaced, one at a time, without losing a request. 0: never; one that
    #: takes too much then lives until the next deploy, or until the kernel ends it when no memory is left. In MiB.
    worker_memory_max_mib: float = 0.0
    #: The server that runs the app. `gunicorn` with Uvicorn workers replaces a worker whose event loop stands still.
    #: `asgi`, gunicorn's own worker, and `uvicorn`, which starts its workers itself, have less in them; docs/engines.md
    #: has what differs.
    engine: str = "gunicorn"
    #: The host's own Python. The release is built for its version.
    python: str = "/usr/bin/python3"
    #: The app runs as this system user, which owns nothing of it. An account that is there already has to be named
    #: here.
    user: str = ""
    #: Folders the app may write to. Each must exist; everything else is read-only for it.
    writable_paths: tuple[str, ...] = ()
    #: Before it gets traffic, a release must answer this path with 200 to 399.
    health_path: str = "/health"
    #: The Host header of that request, for apps that check it.
    health_host: str = "localhost"
    #: How long one health answer may take. In seconds.
    health_timeout: float = 5.0
    #: How many health answers must be good in a row once every worker has answered.
    health_successes: int = 3
    #: How long a release may take until all workers answer; after that it is refused. In seconds.
    boot_timeout: float = 60.0
    #: Paths that are asked for once the release is well and before it gets traffic: fills caches, opens connections.
    warmup_paths: tuple[str, ...] = ()
    #: How long the old release keeps running for requests that it has begun. What is open then, streams and background
    #: tasks included, ends, and the app's own shutdown (lifespan) runs. In seconds.
    drain_timeout: float = 30.0
    #: How long a release is watched once it has traffic; the old one stays up, so that going back is one rename. In
    #: seconds.
    watch_seconds: float = 10.0
    #: It goes back where more answers of 100 than before are server errors by this many; also where workers or health
    #: fail. In percent.
    watch_errors: float = 5.0
    #: A shell command run as the app, with the release's code, on each host, before the release gets traffic; one that
    #: fails keeps it from traffic. $FLEET_PYTHON is the interpreter. Write $NAME for a secret of service_env: the text
    #: of a command is in the host's list of processes while it runs. For once in a fleet: fleet_migrate.
    hook_before: str = ""
    #: The same after the switch; a failure is only told.
    hook_after: str = ""
    #: How long a hook, or a migration, may take. In seconds.
    hook_timeout: float = 300.0
    #: How many releases stay on a host, the live one and the one to go back to counted in.
    keep_releases: int = 5
    #: A worker whose event loop stands still for so long is replaced; `uvicorn` does not notice. In seconds.
    worker_timeout: float = 60.0
