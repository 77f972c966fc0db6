"""Uvicorn as a program, with what `fleet_site` does.

Its workers are started anew, not forked. Python's multiprocessing has each of them import the main program first, which
is this file, so that it is done there as well, before the app is imported.
"""

from __future__ import annotations

import fleet_site  # noqa: F401 - for what it does
from uvicorn.main import main

if __name__ == "__main__":
    main()
