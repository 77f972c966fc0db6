"""What every worker of a FastAPI app imports, loaded in gunicorn's main process: its workers are forked from there.

Libraries only, and such as start no thread and open nothing when they are imported. The app is imported by each worker
itself, so what it does then (connections, threads, random seeds) is its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os

import fleet_site  # noqa: F401 - for what it does

#: As service_event_loop.
LOOP = os.environ.get("FLEET_EVENT_LOOP") or "auto"

with contextlib.suppress(ImportError):  # the engine `asgi` does without, and has an option for the loop
    from uvicorn_worker import UvicornWorker

    UvicornWorker.CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "loop": LOOP}

__all__ = ["UvicornWorker"]

#: Not all of them are in every release. uvicorn imports its own parts only when a worker serves.
LIBRARIES = (
    "fastapi",
    "uvloop",
    "httptools",
    "websockets",
    "uvicorn.loops.uvloop",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)

if os.environ.get("FLEET_PRELOAD") != "no":
    for _name in LIBRARIES:
        # One that cannot be loaded fails where it is used, with that worker's traceback.
        with contextlib.suppress(Exception):
            importlib.import_module(_name)
    # The collector writes into each object that it looks at, and so would copy the pages that workers share.
    gc.collect()
    gc.freeze()
