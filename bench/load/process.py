"""A load in a process of its own, so that a test and the generator do not share one interpreter."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from bench.load.report import Report
from bench.load.settings import MAX_REQUESTS, Settings

REPOSITORY = Path(__file__).resolve().parents[2]
STARTED = "load: started"


class LoadError(RuntimeError):
    """The generator itself failed: there is no report. Says what it wrote."""


class Load:
    """A running load. Takes a URL and whatever Settings takes; without `seconds` it runs until it is stopped.

    `stop` ends it and returns the report; `wait` lets it run for its seconds. Leaving the block ends it, too. Its
    standard input is a pipe from this process, so it ends even where this process is killed.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        settings.setdefault("seconds", min(3600, MAX_REQUESTS / settings.get("rate", Settings.rate)))
        self.settings = Settings(url, **settings)
        self.report: Report | None = None

    def __enter__(self) -> Self:
        """Start it, and wait until its first request is about to go out. LoadError where it cannot."""
        self._folder = tempfile.TemporaryDirectory(prefix="load-")
        self._path = Path(self._folder.name, "report.json")
        command = [sys.executable, "-m", "bench.load", *self.settings.arguments(), f"--json={self._path}"]
        self.process = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            cwd=REPOSITORY,
            bufsize=0,  # a buffer would hide from communicate what came together with the first line
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = self.process.stdout.readline().decode() if self.process.stdout else ""
        if said.strip() != STARTED:
            said += self.process.communicate()[0].decode()  # it ends by itself
            self._folder.cleanup()
            raise LoadError(f"the load did not start: {said}")
        return self

    def stop(self) -> Report:
        """Start no more requests, wait for the open ones (at most the grace time), return the report."""
        if not self.report:
            self.report = self._collect()
        return self.report

    def wait(self) -> Report:
        """Let it run for its seconds and return the report."""
        if not self.report:
            self.process.wait(self.settings.seconds + self.settings.grace + 60)
            self.report = self._collect()
        return self.report

    def _collect(self) -> Report:
        try:
            said, _ = self.process.communicate(timeout=self.settings.grace + 60)  # closes its standard input
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise LoadError(f"the load did not stop; it said: {self.process.communicate()[0].decode()}") from error
        if self.process.returncode not in (0, 1) or not self._path.exists():
            raise LoadError(f"the load ended with {self.process.returncode}: {said.decode()}")
        return Report.read(self._path)

    def __exit__(self, *_: object) -> None:
        """End it without a report where nobody asked for one."""
        if self.report is None:
            self.process.kill()
            self.process.communicate()
        self._folder.cleanup()
