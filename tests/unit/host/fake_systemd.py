"""A systemd that keeps its units in a file, and an app's folders on a host: what the switch works on in tests.

In a file, not in memory: a test that kills the switch at some step looks at what is left with another process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from plugins.module_utils.host.config import Config
from plugins.module_utils.host.context import Clock, Context, Kernel
from plugins.module_utils.host.cutover import Request, cut_over
from plugins.module_utils.host.digests import KEY
from plugins.module_utils.host.files import read_environment
from plugins.module_utils.host.finish import finish
from plugins.module_utils.host.log_excerpt import Entry, Excerpt
from plugins.module_utils.host.proxy import Proxy
from plugins.module_utils.host.records import HOOKS, SLOTS, SlotRecord
from plugins.module_utils.host.recycle import RETIRE
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.systemd import Command, Systemd, UnitState
from plugins.module_utils.workers.engines import DEFAULT
from plugins.module_utils.workers.plan import WorkerPlan

APP = "counter"
IMPORT_ERROR = "ModuleNotFoundError: No module named 'nothing'"
#: MiB that each worker takes on the made-up host.
WORKER = 40.0
#: Workers of the blue slot have numbers from here on, of the green one from twice as many.
FIRST_PID = 1000


class FakeClock(Clock):
    """A clock that only sleeping moves on, at once. Who waits for what never comes fails."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(lambda: self.now, self.pass_time, time.time)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1500, "this would not end"


class FakeSystemd(Systemd):
    """Units are up or down, at once; a slot's main process has as many workers as its unit file says."""

    def __init__(self, folder: Path, units: Path, link: Path) -> None:
        self.file, self.units, self.link = folder / "systemd.json", units, link
        #: What was asked for, and where the live link pointed then.
        self.calls: list[tuple[str, ...]] = []
        self.link_at_call: list[str] = []
        self.hook_result = (0, "")
        #: What each unit logged.
        self.log = Excerpt((IMPORT_ERROR,), cause=IMPORT_ERROR)
        self.commands: list[Command] = []
        #: What the units' properties are beside the usual, whether they are enabled, restarts and log of the last hour.
        self.shown: dict[str, dict[str, str]] = {}
        self.enabled_states: dict[str, str] = {}
        self.restarted = 0
        self.mask = str
        self.recent_lines: list[str] = []
        self.earlier_starts: list[list[str]] = []
        #: How many seconds ago that was.
        self.ago = 0.0

    def _load(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        return {"active": [], "enabled": [], "workers": {}, "ended": {}, **found}

    def _save(self, state: dict[str, Any]) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self.file)

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        self.link_at_call.append(self.link.readlink().name if self.link.is_symlink() else "")

    @property
    def active(self) -> set[str]:
        return set(self._load()["active"])

    @property
    def enabled(self) -> set[str]:
        return set(self._load()["enabled"])

    def reboot(self) -> None:
        """Only what is enabled comes up again, with its socket."""
        state = self._load()
        state["active"] = sorted(
            {name for unit in state["enabled"] for name in (unit, unit.replace("service", "socket"))}
        )
        state["workers"] = {unit: self._wanted_workers(unit) for unit in state["enabled"]}
        self._save(state)

    def _wanted_workers(self, unit: str) -> int:
        words = (self.units / unit).read_text().split()
        number = words[words.index("--workers") + 1]
        if number == "${FLEET_WORKERS}":
            slot = unit.partition("@")[2].partition(".")[0]
            number = read_environment(self.link.parent / "slots" / f"{slot}.env")["FLEET_WORKERS"]
        return int(number)

    def start(self, *units: str) -> None:
        self._note("start", *units)
        for unit in units:
            state = self._load()
            state["active"] = sorted({*state["active"], unit})
            if unit.endswith(".service"):
                state["workers"][unit] = self._wanted_workers(unit)
            self._save(state)

    def stop(self, *units: str, wait: bool = True) -> None:
        self._note("stop", *units)
        for unit in units:
            state = self._load()
            state["active"] = sorted({*state["active"]} - {unit})
            state["workers"].pop(unit, None)
            self._save(state)

    def enable(self, unit: str) -> None:
        self._note("enable", unit)
        state = self._load()
        self._save({**state, "enabled": sorted({*state["enabled"], unit})})

    def disable(self, unit: str) -> None:
        self._note("disable", unit)
        state = self._load()
        self._save({**state, "enabled": sorted({*state["enabled"]} - {unit})})

    def reload(self) -> None:
        self._note("reload")

    def resize(self, unit: str, workers: int) -> None:
        self._note("resize", unit, f"{workers:+d}")
        state = self._load()
        state["workers"][unit] += workers
        # The oldest one ends.
        state["ended"][unit] = state["ended"].get(unit, 0) - min(0, workers)
        self._save(state)

    def state(self, unit: str) -> UnitState:
        up = unit in self.active
        return UnitState("active" if up else "inactive", "success", 1 + ("green" in unit) if up else 0, 0)

    def workers(self, main_pid: int) -> list[int]:
        """Return the made-up processes of the workers of a slot, named by its main process."""
        unit, state = f"{APP}@{SLOTS[main_pid - 1]}.service", self._load()
        oldest = FIRST_PID * main_pid + state["ended"].get(unit, 0)
        return [oldest + number for number in range(state["workers"].get(unit, 0))]

    def show(self, *units: str) -> dict[str, dict[str, str]]:
        found = {unit: self.state(unit) for unit in units if unit.startswith(f"{APP}@")}
        shown = {
            unit: {"ActiveState": state.active, "Result": state.result, "MainPID": str(state.main_pid)}
            for unit, state in found.items()
        }
        return {unit: {"Id": unit, **shown.get(unit, {}), **self.shown.get(unit, {})} for unit in units}

    def enabled_state(self, unit: str) -> str:
        return self.enabled_states.get(unit, "enabled" if unit in self.enabled else "disabled")

    def restarts(self, unit: str, seconds: float) -> int:
        return self.restarted if seconds >= self.ago else 0

    def recent(self, unit: str, seconds: float) -> list[list[Entry]]:
        starts = [*self.earlier_starts, self.recent_lines]
        return [[Entry(7, line) for line in lines] for lines in starts if lines and seconds >= self.ago]

    def cursor(self) -> str:
        return "here"

    def journal(self, unit: str, after: str) -> Excerpt:
        return self.log

    def run(self, command: Command) -> tuple[int, str]:
        self._note("run", *command.words[-3:])
        self.commands.append(command)
        return self.hook_result


class Host:
    """An app's folders, with releases aaa, bbb and ccc unpacked, and what happens to a release there."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        root, etc, units, run = (folder / name for name in ("srv", "etc", "units", "run"))
        if not root.exists():
            for place in (etc, units, run):
                place.mkdir(parents=True)
            for release in ("aaa", "bbb", "ccc"):
                self.unpack(release)
            (etc / KEY).write_bytes(bytes(32))
            (etc / KEY).chmod(0o600)
            self.want("first")
        plan = {"workers": 3, "inputs": {"memory_mib": 2048, "reserve_mib": 256}, **settings.pop("plan", {})}
        self.config = Config(
            APP, root, run, etc, units, plan=WorkerPlan.parse(plan), fingerprint=self.wanted(),
            **{"drain_timeout": 0.0, "watch_seconds": 3.0, "boot_timeout": 0.2, **settings},
        )  # fmt: skip
        self.want_hooks()
        self.systemd = FakeSystemd(folder, units, self.config.live_link)
        self.clock = FakeClock()
        #: Main processes that were given less of the CPU (True), or as much as others.
        self.priorities: list[tuple[int, bool]] = []
        #: Releases that never prove themselves, and what the watch says of those that fail later.
        self.broken: set[str] = set()
        self.trouble: dict[str, str] = {}
        #: MiB that could be had without swapping.
        self.available = float("inf")
        #: MiB that each worker of a release takes, and single workers that have grown; WORKER where it is not said.
        self.sizes: dict[str, float] = {}
        self.grown: dict[int, float] = {}
        #: Workers that have left by themselves, each with the one in its place; the most that all have taken at a time.
        self.replaced: dict[int, int] = {}
        self.most = 0.0
        #: How many clients are connected to a slot.
        self.clients: dict[str, int] = {}
        #: Other answers of the kernel's than usual, by their names in Kernel.
        self.asked_kernel: dict[str, Any] = {}
        self.proxy = Proxy()

    def connections(self, path: Path) -> int:
        """Return how many clients are connected to a slot's socket."""
        return self.clients.get(path.stem, 0)

    def unpack(self, release: str) -> None:
        """Put a release on the host."""
        place = self.folder / "srv" / "releases" / release
        for part in ("app", "lib"):
            (place / part).mkdir(parents=True)
            (place / part / "main.py").touch()
        (place / "manifest.json").write_text(json.dumps({"path": ["app", "lib"], "module": "main:app"}))
        (place / ".complete").write_text("{}")
        if release == "aaa":  # the others were unpacked just now
            os.utime(place / ".complete", (1e9, 1e9))

    def want(self, environment: str, workers: int | str = "${FLEET_WORKERS}") -> None:
        """Write what a deploy writes: the wanted units and environment."""
        (self.folder / "etc" / "environment").write_bytes(f"{environment}\r\n".encode())
        (self.folder / "units" / f"{APP}@.service").write_text(f"ExecStart=server --workers {workers} app\n")
        (self.folder / "units" / f"{APP}@.socket").write_text("ListenStream=/run\n")

    def want_hooks(self) -> None:
        """Write the hooks as a deploy does that has the present settings."""
        hooks = {name: getattr(self.config, name) for name in HOOKS}
        self.config.wanted_files()["hooks"].write_text(json.dumps(hooks))

    def wanted(self) -> str:
        """Return the fingerprint of the wanted settings."""
        return (self.folder / "etc" / "environment").read_text().strip()

    def release_in(self, slot: str) -> str:
        """Return the release that a slot's link names, "" where it names none."""
        link = self.config.root / "slots" / slot
        return link.readlink().name if link.is_symlink() else ""

    def context(self, report: Callable[[str], None] = lambda _: None) -> Context:
        """Return what a verb works with on this host."""
        return Context(self.config, self.systemd, report, self.clock, self.kernel(), self.ask, self.proxy)

    def connect(self, config: Config, _: Systemd, report: Callable[[str], None]) -> Context:
        """Return the context of the host's command, which has read its settings itself."""
        return dataclasses.replace(self.context(report), config=config)

    def kernel(self) -> Kernel:
        """Return what this host's kernel would say."""
        kernel = Kernel(
            worker_pids=lambda main_pid, _: self.workers(main_pid),
            memory_mib=self.memory,
            anonymous_mib=lambda main_pid: WORKER / 2 if main_pid else 0.0,
            available_mib=lambda: self.available,
            oldest_first=sorted,
            seconds_old=lambda _: 5000.0,
            release_of=lambda pid: self.release_in(SLOTS[pid // FIRST_PID - 1]),
            set_priority=lambda main_pid, low: self.priorities.append((main_pid, low)),
            kill=self.leave,
            connections=self.connections,
            is_idle=lambda _, path: not self.clients.get(path.stem),
            state_of=lambda _: "S",
            threads=lambda _: 4,
            beat_age=lambda _: 0.5,
            pool=lambda _: None,
            descriptors=lambda _: (20, 65536),
        )
        return dataclasses.replace(kernel, **self.asked_kernel)

    def workers(self, main_pid: int) -> list[int]:
        """Return the workers of a slot; one that has left is another one now."""
        pids = [self.replaced.get(pid, pid) for pid in self.systemd.workers(main_pid)]
        everybody = [pid for main in (1, 2) for pid in self.systemd.workers(main)]
        self.most = max(self.most, sum(self.memory(self.replaced.get(pid, pid)) for pid in everybody))
        return pids

    def memory(self, pid: int) -> float:
        """Return what a process takes."""
        if pid < FIRST_PID:
            return WORKER / 2
        return self.grown.get(pid) or self.sizes.get(self.release_in(SLOTS[pid // FIRST_PID - 1]), WORKER)

    def leave(self, pid: int, signal: int) -> None:
        """Have a worker leave when it is asked to: another one, which has not grown, takes its place."""
        assert signal == RETIRE
        self.replaced[pid] = pid + FIRST_PID // 2

    def ask(self, path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        """Answer as the release in a slot does: broken ones never, troubled ones not once they have the traffic."""
        slot = path.stem
        if f"{APP}@{slot}.service" not in self.systemd.active:
            return Answers([0] * count, error="[Errno 111] Connection refused")
        release = self.release_in(slot)
        if release in self.broken:
            return Answers([500] * count)
        trouble = self.trouble.get(release, "") if self.config.live_slot() == slot else ""
        if trouble:
            return Answers([0] * count, error=trouble)
        return Answers([200] * count, set(self.kernel().worker_pids(1 + SLOTS.index(slot), DEFAULT)))

    def switch(self, request: Request, report: Callable[[str], None] = lambda _: None) -> SlotRecord:
        """Switch and finish, as the command does."""
        context = self.context(report)
        return finish(context, cut_over(context, request))

    @property
    def live(self) -> dict[str, Any]:
        """What is live, as the host itself says it."""
        return self.config.live_record().as_dict()
