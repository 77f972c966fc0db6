"""What every worker of a FastAPI app imports, loaded in gunicorn's main process: its workers are forked from there.

And what all of this project's workers are: one that ends its requests in time for the app's own shutdown.

Libraries only, and such as start no thread and open nothing when they are imported. The app is imported by each worker
itself, so what it does then (connections, threads, random seeds) is its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from typing import Any

try:
    from uvicorn_worker import UvicornWorker as _UvicornWorker
except ImportError:  # the engine `asgi` does without
    _UvicornWorker = object

#: As in engines/base.py: of gunicorn's graceful timeout, so much is the app's own, for its shutdown.
SHUTDOWN_SECONDS = 8


def patience(graceful_timeout: int) -> int:
    """Return how many seconds requests have to end: the rest of gunicorn's graceful timeout is the app's shutdown's."""
    return max(1, graceful_timeout - SHUTDOWN_SECONDS)


class UvicornWorker(_UvicornWorker):  # type: ignore[misc]
    """Uvicorn's worker, which would wait for streams and background tasks until gunicorn kills it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.timeout_graceful_shutdown = patience(self.cfg.graceful_timeout)


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
