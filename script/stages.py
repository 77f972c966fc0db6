"""The stages of script/test: run them, some side by side, and show what came of them."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastapi-fleet")
_APP = "uv run --project app --group dev --locked pytest -q app/tests"
_MOLECULE = "molecule test --scenario-name"
#: What each stage runs. The longest come first, so that no long one is left for the end.
STAGES = {
    "switch": f"{_MOLECULE} switch",
    "default": f"{_MOLECULE} default",
    "aws": f"{_MOLECULE} aws",
    "engines": f"{_MOLECULE} engines",
    "selfsetup": f"{_MOLECULE} selfsetup",
    "integration": "pytest -q tests/integration",
    "unit": "pytest -q tests/unit",
    "container": "pytest -q tests/container",
    "app": _APP,
    "realapp": f"{_MOLECULE} realapp",
    "jammy": f"{_MOLECULE} jammy",
    "lint": "script/lint",
}
#: Hosts and servers wait more than they compute: one stage more than there are cores.
AT_ONCE = (os.cpu_count() or 1) + 1
#: Molecule passes over what it does not find; that is no success.
_PASSED_OVER = re.compile(r"Missing playbook|no tests found|no test files", re.IGNORECASE)


@dataclass
class Result:
    """What came of a stage: how long it took in seconds, and its tests by what they ended with."""

    stage: str
    seconds: int
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def result(stage: str, seconds: int, *, ended_well: bool, report: Path) -> Result:
    """Return what a stage's report says (JUnit's XML format; there is one where it ran pytest).

    A stage without tests of its own counts as one test, and so does one that failed beside its tests.
    """
    made = Result(stage, seconds)
    cases = list(ET.parse(report).getroot().iter("testcase")) if report.is_file() else []
    for case in cases:
        name = f"{stage}: {case.get('classname')}::{case.get('name')}"
        if (skip := case.find("skipped")) is not None:
            made.skipped.append(f"{name}: {skip.get('message')}")
        elif case.find("failure") is not None or case.find("error") is not None:
            made.failed.append(name)
        else:
            made.passed += 1
    if not ended_well and not made.failed:
        made.failed.append(stage)
    elif not cases:
        made.passed += 1
    return made


def table(results: list[Result]) -> str:
    """Return the stages as a table, below it what was skipped and what failed, and in the last line the sum."""
    width = max(len("STAGE"), *(len(each.stage) for each in results))
    lines = [f"{'STAGE':{width}}  SECONDS  PASSED  FAILED  SKIPPED"]
    for each in results:
        counts = f"{each.passed:>6}  {len(each.failed):>6}  {len(each.skipped):>7}"
        lines.append(f"{each.stage:{width}}  {each.seconds:>7}  {counts}")
    lines.append("")
    lines += [f"skipped {name}" for each in results for name in each.skipped]
    lines += [f"FAILED  {name}" for each in results for name in each.failed]
    passed, failed = sum(each.passed for each in results), sum(len(each.failed) for each in results)
    skipped = sum(len(each.skipped) for each in results)
    lines.append(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return "\n".join(lines)


class Runner:
    """Runs stages; their output comes in one piece when each ends, unless there is only one."""

    def __init__(self, folder: Path, *, live: bool) -> None:
        self.folder, self.live = folder, live
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.printing = threading.Lock()
        self.stopping = False

    def say(self, text: str) -> None:
        """Print lines that no other stage's lines come between."""
        with self.printing:
            print(text, flush=True)

    def run(self, stage: str) -> Result:
        """Run one stage to its end. One that fails does not keep the others from running."""
        report, log = self.folder / f"{stage}.xml", self.folder / f"{stage}.log"
        # Ansible's and Molecule's own files go where script/demo --clean finds them, one folder for each checkout.
        checkout = f"{zlib.crc32(str(REPOSITORY).encode()):08x}"
        environment = {
            **os.environ,
            "PATH": f"{REPOSITORY / '.venv' / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_FORCE_COLOR": "0",
            "PY_COLORS": "0",
            "ANSIBLE_HOME": str(CACHE / "ansible"),
            "FLEET_LAB_KEEP_ENGINE": "1",
            "FLEET_AWS_URL": f"http://127.0.0.1:{free_port()}",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(CACHE / "molecule" / checkout / stage),
            "PYTEST_ADDOPTS": f"--junitxml={report} --durations=15 --durations-min=5",
        }
        began = time.monotonic()
        state = Path(environment["MOLECULE_EPHEMERAL_DIRECTORY"], "state.yml")
        if state.is_file() and "created: true" in state.read_text():
            # A run before was killed: Molecule would go on with its hosts, whatever its tests had done to them.
            destroy(stage, environment)
        self.say(f"=== {stage} begins: {STAGES[stage]}")
        with log.open("wb") as output:
            # A process group of its own: an interrupt has to reach all that the stage has started.
            process = subprocess.Popen(
                STAGES[stage].split(), cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.processes.add(process)
        if self.stopping:
            os.killpg(process.pid, signal.SIGINT)
        if self.live:
            follow(log, process)
        code = process.wait()
        if self.stopping and "molecule" in STAGES[stage]:
            destroy(stage, environment)
        self.processes.discard(process)
        text = log.read_text(errors="replace")
        seconds = round(time.monotonic() - began)
        made = result(stage, seconds, ended_well=code == 0 and not _PASSED_OVER.search(text), report=report)
        end = f"=== {stage}: {'FAILED' if made.failed else 'passed'} after {seconds} s"
        self.say(end if self.live else f"\n=== {stage}, all of it:\n{text}\n{end}")
        return made

    def stop(self) -> None:
        """Interrupt what runs, and all that it has started."""
        self.stopping = True
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


def free_port() -> int:
    """Return a port of loopback that nobody listens on: other checkouts' tests may run at the same time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def destroy(stage: str, environment: dict[str, str]) -> None:
    """Remove what a scenario has made: its hosts, or its local AWS API."""
    command = ["molecule", "destroy", "--scenario-name", stage]
    subprocess.run(
        command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, start_new_session=True
    )  # fmt: skip


def follow(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Print a log while it grows, until its process has ended."""
    with log.open(errors="replace") as lines:
        ended = False
        while not ended:
            ended = process.poll() is not None
            print(lines.read(), end="", flush=True)
            time.sleep(0 if ended else 0.2)


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """Stop, at the end, a container engine that the stages have started, unless it is to be kept or a lab needs it."""
    try:
        yield
    finally:
        if not os.environ.get("FLEET_LAB_KEEP_ENGINE"):
            lab: list[str | Path] = [
                sys.executable,
                REPOSITORY / "molecule" / "shared" / "lab.py",
                "down",
                "--name",
                "none",
            ]
            subprocess.run(lab, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    """Run the stages that were asked for, or all; return 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="script/test", description="Run every test, or those of some stages.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    names = parser.parse_args().stages
    if unknown := [stage for stage in names if stage not in STAGES]:
        parser.error(f"no stage {unknown[0]}; there are: {' '.join(STAGES)}")
    selected = [stage for stage in STAGES if not names or stage in names]
    began = time.monotonic()
    with engine(), tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        runner = Runner(Path(folder), live=len(selected) == 1)
        # SIGINT, too: a shell that starts this in the background has it ignored, here and in all stages.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        stages = [pool.submit(runner.run, stage) for stage in selected]
        try:
            results = [stage.result() for stage in stages]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            return 130
    print(f"\n=== {time.monotonic() - began:.0f} s in all\n")
    print(table(results))
    return int(any(each.failed for each in results))


if __name__ == "__main__":
    sys.exit(main())
