"""What bench/engines.py asks a host: run there, as root, by the host's own Python. Prints JSON.

engines_on_host.py speed SECONDS APP… | boot APP | reload APP
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, f"/usr/local/lib/{sys.argv[-1]}-release")

from fleet.host.config import Config  # type: ignore[import-not-found]
from fleet.host.proc import memory_mib  # type: ignore[import-not-found]
from fleet.host.sockets import ask  # type: ignore[import-not-found]
from fleet.host.workers import worker_pids  # type: ignore[import-not-found]

#: Requests under way at a time: enough that no worker waits for the client.
CLIENTS = 8
LIMIT = 120.0


class App:
    """An app's live slot. Times are seconds."""

    def __init__(self, name: str) -> None:
        self.socket = Path(f"/srv/{name}/live.sock").resolve()
        self.unit = f"{name}@{self.socket.stem}.service"
        self.engine = Config.read(Path(f"/etc/{name}/release.json")).engine_of(self.socket.stem)

    def pids(self) -> list[int]:
        """Return the workers that run now."""
        pids: list[int] = worker_pids(self.show("MainPID"), self.engine)
        return pids

    def show(self, name: str) -> int:
        """Return a number that systemd knows of the unit."""
        command = ["systemctl", "show", "--value", f"--property={name}", self.unit]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def cpu(self) -> float:
        """Return the CPU seconds of all of the unit's processes since it was started."""
        return self.show("CPUUsageNSec") / 1e9

    def burst(self) -> dict[str, float]:
        """Ask for a second as nginx does, a new connection for each request; the client's own CPU does not count."""
        counts = [0] * CLIENTS
        before = self.cpu()
        self._ask_for(1.0, counts)
        return {"requests": sum(counts), "cpu": self.cpu() - before}

    def memory(self) -> dict[str, float]:
        """Return what a worker takes, and all other processes together, in MiB of PSS."""
        sizes = {pid: memory_mib(pid) for pid in self.pids()}
        return {"worker_mib": sum(sizes.values()) / len(sizes), "main_mib": self._others([*sizes])}

    def _others(self, pids: list[int]) -> float:
        return sum(float(memory_mib(pid)) for pid in processes(self.show("MainPID")) if pid not in pids)

    def _ask_for(self, seconds: float, counts: list[int]) -> None:
        end = time.monotonic() + seconds
        request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

        def client(number: int) -> None:
            while time.monotonic() < end:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self.socket))
                    connection.sendall(request)
                    answer = b""
                    while part := connection.recv(65536):
                        answer += part
                    if not answer.startswith(b"HTTP/1.1 200"):
                        raise AssertionError(answer)
                counts[number] += 1

        threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def boot(self) -> dict[str, float]:
        """Start it anew; return how long it takes until each of its workers has answered, in wall and CPU seconds."""
        old = self.pids()
        subprocess.run(["systemctl", "restart", self.unit], check=True, capture_output=True)
        self._wait_for_others(old)
        # `exec` and `notify` differ in what systemctl waits for: it is since the process's own start.
        return {"wall": age(self.show("MainPID")), "cpu": self.cpu()}

    def reload(self) -> dict[str, float]:
        """Send HUP; wait until as many other workers as before have answered."""
        main = self.show("MainPID")
        old = self.pids()
        os.kill(main, signal.SIGHUP)
        self._wait_for_others(old)
        return {"started anew": float(self.show("MainPID") != main)}

    def _wait_for_others(self, old: list[int]) -> None:
        answered: set[int] = set()
        deadline = time.monotonic() + LIMIT
        while len(answered) < len(old):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(answered)} of {len(old)} workers of {self.unit} answer")
            pids = set(self.pids()) - set(old)
            answered = (answered & pids) | ask(self.socket, "/health", "localhost", 60, 4 * len(old), pids).pids & pids
            time.sleep(0.02)


def processes(main_pid: int) -> list[int]:
    """Return a main process and its children, whatever they are for."""
    children = Path(f"/proc/{main_pid}/task/{main_pid}/children").read_text().split()
    return [main_pid, *map(int, children)]


def age(pid: int) -> float:
    """Return for how long a process has run."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def speed(seconds: int, apps: list[str]) -> dict[str, dict[str, float]]:
    """Return requests and CPU seconds of each app, in bursts of a second in turn: a machine's speed drifts."""
    found: dict[str, dict[str, float]] = {name: {"requests": 0, "cpu": 0} for name in apps}
    for number in range(-1, seconds):
        for name in apps:
            for key, value in App(name).burst().items():
                found[name][key] += value * (number >= 0)  # the first one warms up
    return {name: {**found[name], **App(name).memory()} for name in apps}


def main() -> None:
    """Do what is asked for."""
    what, app = sys.argv[1], App(sys.argv[-1])
    if what == "speed":
        print(json.dumps(speed(int(sys.argv[2]), sys.argv[3:])))
    elif what == "boot":
        print(json.dumps(app.boot()))
    else:
        print(json.dumps(app.reload()))


if __name__ == "__main__":
    main()
