"""A container of the app's image, as the tests see it: started, asked, looked into, stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fleetlab import machine
from fleetlab.engine import LABEL, Engine

REPOSITORY = Path(__file__).parents[2]
LAB = f"container-{hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:6]}"
IMAGE = f"fastapi-fleet/app:{LAB}"
CPUS = os.cpu_count() or 1
SECONDS = 90.0  # for a start, on half a CPU of a busy machine
#: Asks one path several times at once, with patience until somebody listens; prints [[status, body]…].
CLIENT = """
import concurrent.futures, json, sys, time, urllib.error, urllib.request
def ask(path, end=time.monotonic() + 60):
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:8000" + path, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > end:
                return 0, str(error)
            time.sleep(0.2)
        except OSError as error:
            return 0, repr(error)
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(ask, [sys.argv[1]] * int(sys.argv[2])))))
"""


@dataclass
class Container:
    """One that runs, or ran."""

    engine: Engine
    name: str

    def inspect(self, what: str) -> str:
        return self.engine.call("inspect", "--format", what, self.name)

    def log(self) -> str:
        done = machine.run(self.engine.argv("logs", self.name), env=self.engine.env())
        return done.stdout + done.stderr

    def run(self, *command: str) -> str:
        return self.engine.call("exec", self.name, *command)

    def client(self, path: str, count: int = 1) -> list[str]:
        """Return the command of a client in the container's network, which lives on when the container ends."""
        where = ["--network", f"container:{self.name}", "--label", f"{LABEL}={LAB}", "--entrypoint", "python3"]
        return self.engine.argv("run", "--rm", *where, IMAGE, "-c", CLIENT, path, str(count))

    def ask(self, path: str, count: int = 1) -> list[tuple[int, object]]:
        """Return status (0: no answer) and body of requests that were sent at once."""
        done = machine.run(self.client(path, count), timeout=SECONDS + 60, env=self.engine.env())
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        return [(status, body) for status, body in json.loads(done.stdout)]

    def workers(self) -> list[int]:
        """Return the server's worker processes, by the machine's pids."""
        lines = self.engine.call("top", self.name, "-eo", "pid,ppid,args").splitlines()[1:]
        rows = [line.split(None, 2) for line in lines]
        main = self.inspect("{{.State.Pid}}")
        return [int(pid) for pid, parent, args in rows if parent == main and "resource_tracker" not in args]

    def answering(self, expected: int) -> set[int]:
        """Return the workers that answer, asked until as many do as expected, or time is over."""
        pids: set[int] = set()
        end = time.monotonic() + SECONDS
        while len(pids) < expected and time.monotonic() < end:
            answers = self.ask("/serve/blocking?seconds=0.2", 8)
            assert {status for status, _ in answers} == {200}, self.log()
            pids |= {body["pid"] for _, body in answers if isinstance(body, dict)}
        return pids

    def wait(self, what: str, *values: str) -> str:
        """Wait until the engine says one of these values of the container."""
        end = time.monotonic() + SECONDS
        while (said := self.inspect(what)) not in values and time.monotonic() < end:
            time.sleep(0.2)
        assert said in values, f"{what} is {said}\n{self.log()}"
        return said


class Starter:
    """Starts containers of the image; they are removed after the test."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.count = 0

    def __call__(self, *options: str, command: tuple[str, ...] = ()) -> Container:
        self.count += 1
        container = Container(self.engine, f"fastapi-fleet-{LAB}-{os.getpid()}-{self.count}")
        self.engine.call(
            "run", "--detach", "--label", f"{LABEL}={LAB}", "--name", container.name, *options, IMAGE, *command
        )
        return container

    def clear(self) -> None:
        """Remove them all."""
        ids = self.engine.call("ps", "--all", "--quiet", "--filter", f"label={LABEL}={LAB}").split()
        if ids:
            self.engine.call("rm", "--force", "--volumes", *ids)
