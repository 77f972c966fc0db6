"""The command: `python -m bench.load URL`. Exit code 0: nothing failed; 1: something did; 2: it cannot run so."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from bench.load.generator import Generator
from bench.load.process import STARTED
from bench.load.report import Report
from bench.load.settings import Settings


async def run(settings: Settings, until_stdin_closes: bool) -> Report:
    """Run until time is up, a signal comes or, if asked to, standard input ends."""
    generator, loop = Generator(settings), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, generator.stop, "signal")
    if until_stdin_closes:

        def watch() -> None:
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(generator.stop, "stdin")

        threading.Thread(target=watch, daemon=True).start()
    print(STARTED, flush=True)
    return await generator.run()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    Settings.add_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report, with every request, to FILE")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end early when standard input ends")
    given = vars(parser.parse_args())
    path, until_stdin_closes = given.pop("json"), given.pop("until_stdin_closes")
    try:
        settings = Settings(**given)
    except ValueError as error:
        parser.error(str(error))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = asyncio.run(run(settings, until_stdin_closes))
    if path:
        report.write(path)
    print(report.table())
    return 0 if report.sent and not report.failed else 1


if __name__ == "__main__":
    sys.exit(main())
