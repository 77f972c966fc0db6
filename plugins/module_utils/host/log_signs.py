"""What single lines of a log give away: a server of the app's own, workers that died, how far they came. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..workers.engines import ENGINES

#: The slot's own server listens on a socket of systemd's only. The last one is asyncio's, of all workers but the first.
_OWN_SERVER = re.compile(
    r"Uvicorn running on (https?://\S+)|Running on (https?://\S+)"
    r"|error while attempting to bind on address \('([^']+)', (\d+)"
)
#: Of a port (bind()), not of a file. What it means here, where each worker imports the app.
_IN_USE = re.compile(r"\[Errno 98\]")
_PORT_TAKEN = " (a port that the app opens itself: another process has it, which may be another worker)"
_RUNS_SERVER = re.compile(r"\buvicorn\.run\(")


def own_server(lines: Sequence[str]) -> str:
    """Say that the app's module starts a server by itself, where the log shows one."""
    advice = 'call it below `if __name__ == "__main__":`'
    for line in lines:
        if address := _OWN_SERVER.search(line):
            where = address.group(1) or address.group(2) or f"{address.group(3)}:{address.group(4)}"
            return f"the module starts a server of its own, on {where}: {advice}"
    text = "\n".join(lines)
    if "asyncio.run() cannot be called from a running event loop" in text and _RUNS_SERVER.search(text):
        return f"the module starts a server of its own, with uvicorn.run(): {advice}"
    return ""


def death(lines: Sequence[str]) -> str:
    """Return what a server said of the last worker that had ended, "" where none had."""
    deaths = "|".join(engine.death for engine in ENGINES.values())
    found = [line for line in lines if re.search(deaths, line)]
    return message(found[-1]) if found else ""


def message(line: str) -> str:
    """Return a line of a server's log without its time, process and level."""
    return re.sub(r"^(?:\[[^\]]*\] )+|^[A-Z]+: +", "", line).strip(" .!")


def starting(lines: Sequence[str]) -> str:
    """Say of workers that give no answer whether the app has ended its start: uvicorn logs both sides of it."""
    if any("Application startup complete" in line for line in lines):
        return "in at least one worker the app has started: there it is the path that hangs, or the event loop"
    if any("Waiting for application startup" in line for line in lines):
        return "the startup of the app's lifespan has not ended"
    return ""


def meaning(cause: str) -> str:
    """Return what is to be added to an exception that says less than it means here."""
    return _PORT_TAKEN if _IN_USE.search(cause) else ""
