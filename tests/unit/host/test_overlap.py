"""Two sets of workers side by side: how many of the new fit, and how they grow as the old ones go."""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.host.config import Config, HostError
from plugins.module_utils.host.context import Clock, Context, Kernel
from plugins.module_utils.host.overlap import ASK_SECONDS, Overlap
from plugins.module_utils.host.proc import available_mib, memory_mib, oldest_first
from plugins.module_utils.host.sockets import connections, is_idle
from plugins.module_utils.host.systemd import Systemd, UnitState
from plugins.module_utils.workers.engines import ENGINES, Engine
from plugins.module_utils.workers.plan import WorkerPlan
from tests.unit.host.test_workers import Pool

STEP = 0.25


class Server:
    """A slot's server on a made-up host: it adds and ends workers some time after it was asked to.

    gunicorn ends its oldest one, uvicorn the last of its list.
    """

    def __init__(self, main_pid: int, size: float, engine: str = "gunicorn") -> None:
        self.main_pid, self.size, self.engine = main_pid, size, engine
        self.workers: list[int] = []
        self.due: list[tuple[float, int]] = []
        self.next = main_pid + 1

    def add(self, count: int) -> Server:
        for _ in range(count):
            self.workers.append(self.next)
            self.next += 1
        return self


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    """Settings of a host whose slots run these engines."""

    engines: dict[str, str] = dataclasses.field(default_factory=dict)

    def engine_of(self, slot: str) -> Engine:
        return ENGINES[self.engines[slot]]


class Machine(Systemd):
    """A host of two slots with a clock that tests move on."""

    def __init__(self, blue: Server, green: Server, limit: float, main: float = 0.0, delay: float = 0.5) -> None:
        self.servers = {"counter@blue.service": blue, "counter@green.service": green}
        self.main, self.delay, self.clock = main, delay, 100.0
        self.idle: set[int] = set()
        self.asked: list[tuple[str, int]] = []
        #: Workers that were ended while they served somebody.
        self.cut_off: list[int] = []
        self.most, self.available = 0.0, math.inf
        plan = WorkerPlan(0, inputs={"memory_mib": limit + 256, "reserve_mib": 256})
        engines = {unit.partition("@")[2].partition(".")[0]: server.engine for unit, server in self.servers.items()}
        self.config = Settings("counter", Path(), Path("/run/counter"), Path(), Path(), plan, "", engines=engines)

    def state(self, unit: str) -> UnitState:
        return UnitState("active", "success", self.servers[unit].main_pid, 0)

    def resize(self, unit: str, workers: int) -> None:
        self.asked.append((unit, workers))
        server = self.servers[unit]
        server.due.append((self.clock + self.delay, workers))

    def pass_time(self, seconds: float = STEP) -> None:
        self.clock += seconds
        for server in self.servers.values():
            for due in [due for due in server.due if due[0] <= self.clock]:
                server.due.remove(due)
                if due[1] > 0:
                    server.add(1)
                elif server.workers:
                    gone = server.workers.pop(-1 if server.engine == "uvicorn" else 0)
                    if gone not in self.idle:
                        self.cut_off.append(gone)
        self.most = max(self.most, self.used())

    def used(self) -> float:
        return sum(self.memory(pid) for server in self.servers.values() for pid in (server.main_pid, *server.workers))

    def memory(self, pid: int) -> float:
        for server in self.servers.values():
            if pid == server.main_pid:
                return self.main if server.main_pid else 0
            if pid in server.workers:
                return server.size
        return 0.0

    def overlap(self, old: str | None = "blue", new: str = "green") -> Overlap:
        by_main = {server.main_pid: server for server in self.servers.values()}
        kernel = Kernel(
            worker_pids=lambda main_pid, _: list(by_main[main_pid].workers),
            memory_mib=self.memory,
            anonymous_mib=lambda main_pid: by_main[main_pid].size / 2 if main_pid else 0.0,
            available_mib=lambda: self.available,
            oldest_first=sorted,
            is_idle=lambda pid, _: pid in self.idle,
        )
        return Overlap(Context(self.config, self, clock=Clock(monotonic=lambda: self.clock), kernel=kernel), old, new)


# --- how many at first ----------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "first"), [(1000, 4), (340, 4), (339, 3), (220, 1), (219, 0)])
def test_as_many_start_as_fit_beside_the_old_ones(limit: float, first: int) -> None:
    """Four old ones of 40 MiB take 160; a new main process is reckoned with half a worker's."""
    machine = Machine(Server(1, 40).add(4), Server(1000, 40), limit)
    machine.servers["counter@green.service"].main_pid = 0
    made = machine.overlap()
    if first:
        assert made.first(4) == first
    else:
        with pytest.raises(HostError, match=r"does not hold even one new worker .*: 59 MiB are left, one takes 40"):
            made.first(4)


@pytest.mark.parametrize(
    ("limit", "workers", "first"), [(1000, 4, 4), (260, 4, 2), (259, 4, 0), (259, 1, 1), (219, 1, 0)]
)
def test_uvicorn_starts_with_two_as_from_one_it_cannot_grow(limit: float, workers: int, first: int) -> None:
    """With `--workers 1` it has no main process that would take TTIN: the signal would stop it."""
    machine = Machine(Server(1, 40).add(4), Server(1000, 40), limit)
    machine.servers["counter@green.service"].main_pid = 0
    made = machine.overlap()
    if first:
        assert made.first(workers, ENGINES["uvicorn"]) == first
    else:
        with pytest.raises(HostError, match=f"does not hold even {'2' if workers > 1 else 'one'} new worker"):
            made.first(workers, ENGINES["uvicorn"])
    assert made.first(workers, ENGINES["uvicorn"], going_back=True) == max(first, min(workers, 2))


@given(
    live=st.integers(1, 16), wanted=st.integers(1, 16), size=st.floats(1, 500), main=st.floats(0, 50),
    limit=st.floats(0, 8000), available=st.floats(0, 8000),
)  # fmt: skip
def test_what_starts_first_never_takes_more_than_there_is(
    live: int, wanted: int, size: float, main: float, limit: float, available: float
) -> None:
    machine = Machine(Server(1, size).add(live), Server(1000, size), limit, main)
    machine.servers["counter@green.service"].main_pid = 0
    machine.available = available
    made = machine.overlap()
    room = min(limit - main - live * size, available)
    try:
        first = made.first(wanted)
    except HostError:
        assert made.limit > 0
        assert room < size * 1.5 + 1e-6
    else:
        assert 1 <= first <= wanted
        assert made.limit <= 0 or first * size + size / 2 <= room + 1e-6
        assert first == wanted or (first + 1) * size + size / 2 > room - 1e-6, "one more would have fitted"


@pytest.mark.parametrize("old", [None, "blue"])
def test_where_nothing_is_known_of_the_size_all_start(old: str | None) -> None:
    machine = Machine(Server(1, 40), Server(0, 40), 1)
    assert machine.overlap(old, "green").first(9) == 9


def test_where_the_plan_says_nothing_of_memory_all_start() -> None:
    machine = Machine(Server(1, 40).add(4), Server(0, 40), 1)
    machine.config.plan.inputs.clear()
    assert machine.overlap().first(9) == 9


def test_a_limit_of_the_hosts_control_group_counts_instead_of_its_memory() -> None:
    machine = Machine(Server(1, 40).add(4), Server(0, 40), 4000)
    machine.config.plan.inputs["memory_limit_mib"] = 256 + 160 + 110
    assert machine.overlap().first(4) == 2
    machine.config.plan.inputs["memory_limit_mib"] = None
    assert machine.overlap().first(4) == 4


def test_what_other_programs_take_counts_too() -> None:
    """Another app's workers, for one: the plan does not know of them, the kernel does."""
    machine = Machine(Server(1, 40).add(4), Server(0, 40), 4000)
    machine.available = 110.0
    assert machine.overlap().first(4) == 2


def test_the_kernel_is_asked_for_what_can_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("plugins.module_utils.host.proc.PROC", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal:  4096 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n")
    assert available_mib() == 2
    (tmp_path / "meminfo").write_text("MemTotal:  4096 kB\n")
    assert available_mib() == math.inf


def test_without_an_old_slot_no_main_process_is_reckoned_with() -> None:
    """One of the new release's is up already: what it shares is in it."""
    machine = Machine(Server(1, 40), Server(1000, 40).add(1), 120)
    assert machine.overlap(None, "green").first(4) == 2


# --- growing --------------------------------------------------------------------------------------


def grow(machine: Machine, made: Overlap, workers: int, idle: random.Random, until: float) -> bool:
    """Do as finish does: grow, wait; some old workers are idle at a time. Return whether all run."""
    end = machine.clock + until
    old = machine.servers["counter@blue.service"]
    serving = set(old.workers)
    while machine.clock < end:
        # Traffic has moved: who has become idle stays so.
        serving = {pid for pid in serving if idle.random() < 0.9}
        machine.idle = set(old.workers) - serving
        if made.grow(workers):
            return True
        machine.pass_time()
    return False


@given(
    size=st.floats(10, 200), live=st.integers(1, 8), wanted=st.integers(1, 8), spare=st.floats(1.51, 12),
    main=st.floats(0, 5), delay=st.sampled_from([0.0, 0.2, 0.6, 2.0]), seed=st.integers(0, 999),
    heavier=st.floats(0.5, 2.0), engine=st.sampled_from(["gunicorn", "uvicorn"]),
)  # fmt: skip
def test_growing_never_takes_more_than_there_is_and_ends_with_all(
    size: float, live: int, wanted: int, spare: float, main: float, delay: float, seed: int, heavier: float,
    engine: str,
) -> None:  # fmt: skip
    """`spare` is how many workers' memory is left beside the old ones, `heavier` how much more a new one takes."""
    new_size = size * heavier
    limit = max(live * size + max(new_size, size) * spare, wanted * new_size + 0.01) + 2 * main
    blue, green = Server(1, size, engine).add(live), Server(1000, new_size)
    machine = Machine(blue, green, limit, main, delay)
    green.main_pid = 0
    first = machine.overlap().first(wanted)
    # What the new release takes is seen once it is up; that is what the first guess cannot know.
    green.main_pid = 1000
    green.add(max(1, min(first, int((limit - live * size - 2 * main) // new_size))))
    made = machine.overlap()
    chance = random.Random(seed)  # noqa: S311
    done = grow(machine, made, wanted, chance, 60)
    assert not machine.cut_off, "a worker that serves somebody was ended"
    assert done or blue.workers, "the last old one stays until its slot is stopped"
    blue.workers, blue.main_pid, blue.due, made.old = [], 0, [], None
    assert grow(machine, made, wanted, chance, (ASK_SECONDS + delay) * (wanted + 1))
    machine.pass_time(10)
    assert len(green.workers) == wanted, "not one too many"
    assert machine.most <= limit + 1e-6


def tight(live: int = 3, engine: str = "gunicorn") -> tuple[Machine, Overlap]:
    """Memory for the old workers and one new one, which is up."""
    machine = Machine(Server(1, 40, engine).add(live), Server(1000, 40).add(1), 40 * live + 60)
    return machine, machine.overlap()


def test_where_there_is_no_room_an_idle_old_worker_makes_it() -> None:
    machine, made = tight()
    machine.idle = {2, 3, 4}
    assert not made.grow(3)
    assert machine.asked == [("counter@blue.service", -1)]
    machine.pass_time(1)
    assert not made.grow(3)
    assert machine.asked[1:] == [("counter@green.service", +1)]


def test_an_old_worker_that_takes_its_time_to_end_is_waited_for() -> None:
    """Its app has something to do at the end; asked once more, the server would end a second one, which is busy."""
    machine, made = tight()
    machine.delay, machine.idle = 30.0, {2}
    for _ in range(100):
        made.grow(3)
        machine.pass_time()
    assert machine.asked == [("counter@blue.service", -1)]
    machine.pass_time(10)
    assert machine.servers["counter@blue.service"].workers == [3, 4]


def test_a_busy_oldest_worker_is_not_ended_even_when_others_are_idle() -> None:
    """The server would end the oldest one, whichever is meant."""
    machine, made = tight()
    machine.idle = {3, 4}
    for _ in range(20):
        assert not made.grow(3)
        machine.pass_time()
    assert machine.asked == []


def test_of_uvicorns_none_is_ended_before_all_are_idle() -> None:
    """It ends the last of its list, which cannot be seen: one that died was replaced at its place."""
    machine, made = tight(engine="uvicorn")
    machine.idle = {2, 4}
    for _ in range(20):
        assert not made.grow(3)
        machine.pass_time()
    assert machine.asked == []
    machine.idle, machine.delay = {2, 3, 4}, 30.0
    for _ in range(100):
        made.grow(3)
        machine.pass_time()
    assert machine.asked == [("counter@blue.service", -1)], "one that takes its time to end is waited for"


def test_the_last_old_worker_stays_for_who_is_still_in_the_queue() -> None:
    machine, made = tight(live=1)
    machine.idle = {2}
    assert not made.grow(3)
    assert machine.asked == []


def test_a_worker_that_was_asked_for_is_waited_for_and_then_asked_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(Server(0, 40), Server(1000, 40).add(1), 4000, delay=math.inf)
    made = machine.overlap(None, "green")
    for _ in range(int(10 / STEP)):
        made.grow(3)
        machine.pass_time()
    assert machine.asked == [("counter@green.service", 1)], "its process may take ten seconds to come"
    made.grow(3)
    assert machine.asked == [("counter@green.service", 1)] * 2, "the signal was lost"


@pytest.mark.parametrize(("limit", "asked"), [(200, ("counter@green.service", 1)), (199, ("counter@blue.service", -1))])
def test_a_worker_is_added_where_there_is_just_room_for_it(limit: float, asked: tuple[str, int]) -> None:
    machine = Machine(Server(1, 40).add(3), Server(1000, 40).add(1), limit)
    machine.idle = {2, 3, 4}
    assert not machine.overlap().grow(2)
    assert machine.asked == [asked]


def test_a_slot_that_has_its_number_is_left_alone() -> None:
    machine, made = tight()
    assert made.grow(1)
    assert machine.asked == []


def test_of_two_old_workers_one_gives_way_but_not_both() -> None:
    machine, made = tight(live=2)
    machine.idle = {2, 3}
    for _ in range(20):
        made.grow(3)
        machine.pass_time()
    assert machine.asked.count(("counter@blue.service", -1)) == 1


def test_once_the_old_slot_is_gone_its_size_counts_no_more() -> None:
    """One that leaked takes more than the new ones ever will."""
    machine = Machine(Server(1, 90).add(2), Server(1000, 40).add(1), 100)
    made = machine.overlap()
    assert made.each == 90
    machine.servers["counter@blue.service"].workers, made.old = [], None
    assert not made.grow(2)
    assert (made.each, machine.asked) == (40, [("counter@green.service", 1)])
    machine.servers["counter@green.service"].workers = []
    assert not made.grow(2)
    assert made.each == 40, "what is not there says nothing"


def test_a_new_worker_counts_in_full_before_it_has_imported_the_app() -> None:
    machine = Machine(Server(1, 40).add(2), Server(1000, 1).add(2), 200)
    made = machine.overlap()
    assert made.used() == 160


def test_what_both_take_is_that_of_their_workers_and_main_processes() -> None:
    machine = Machine(Server(1, 0.5).add(2), Server(1000, 2).add(1), 200, main=0.25)
    assert machine.overlap().used() == 2 * 0.5 + 2 + 2 * 0.25
    assert machine.overlap(None, "green").used() == 2.25
    assert machine.overlap().room() == 200 - 3.5
    machine.servers["counter@green.service"].main_pid = 0
    assert machine.overlap().used() == 1.25, "a slot that is down takes nothing"


def test_a_server_that_is_its_own_worker_counts_once() -> None:
    machine = Machine(Server(1, 40), Server(1000, 40), 200, main=30)
    machine.servers["counter@blue.service"].workers = [1]
    assert machine.overlap(None, "green").used() == 30
    assert machine.overlap().used() == 60


@pytest.mark.parametrize(("limit", "first"), [(0, 9), (-5, 9), (1, 0)])
def test_a_limit_that_is_known_counts_however_small(limit: float, first: int) -> None:
    machine = Machine(Server(1, 40).add(1), Server(0, 40), limit)
    if first:
        assert machine.overlap().first(9) == first
    else:
        with pytest.raises(HostError, match="does not hold even one new worker"):
            machine.overlap().first(9)


# --- real processes -------------------------------------------------------------------------------


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(tmp_path / "s.sock")
    yield made
    for pid in made.pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_memory_is_the_processs_own_part_of_what_it_shares(pool: Pool) -> None:
    child = pool.fork()
    resident = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{child}/status").read_text())[0]) / 1024
    assert 0 < memory_mib(child) < resident, "a fork shares most of its pages with us"
    assert memory_mib(os.getpid()) > 1
    assert memory_mib(2**30) == 0


def test_memory_that_a_process_takes_for_itself_is_seen() -> None:
    """Pages of its own, not malloc's: that may hand out what was freed before."""
    before = memory_mib(os.getpid())
    with mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE) as ballast:
        ballast.write(b"x" * len(ballast))
        assert 15 < memory_mib(os.getpid()) - before < 20


def test_processes_are_sorted_by_their_start_not_by_their_number(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pool.fork()
    time.sleep(0.03)  # a clock tick of the kernel's is 10 ms
    second = pool.fork()
    assert oldest_first([second, first, 2**30]) == [first, second]
    started = {first: 900, second: 100}
    fake = pool.path.parent
    for pid, ticks in started.items():
        (fake / str(pid)).mkdir()
        (fake / str(pid) / "stat").write_text(f"{pid} (a ) b) S 1 " + "0 " * 17 + f"{ticks} 0 0\n")
    monkeypatch.setattr("plugins.module_utils.host.proc.PROC", fake)
    assert oldest_first([first, second]) == [second, first], "numbers begin anew when they have run out"


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until a condition holds; return whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_a_worker_is_busy_from_taking_a_connection_until_it_is_closed(pool: Pool) -> None:
    child = pool.fork(keep_open=False)
    assert is_idle(child, pool.path)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(pool.path))
    assert wait_for(lambda: not is_idle(child, pool.path)), "it has taken the connection and waits for a request"
    assert connections(pool.path) == 1
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert wait_for(lambda: is_idle(child, pool.path)), "it has answered and closed"
    client.close()
    assert wait_for(lambda: connections(pool.path) == 0)


def test_another_workers_connection_and_another_sockets_do_not_make_it_busy(pool: Pool, tmp_path: Path) -> None:
    child = pool.fork()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(pool.path))
        assert wait_for(lambda: not is_idle(child, pool.path))
        assert is_idle(child, tmp_path / "other.sock")
        assert is_idle(os.getpid(), pool.path)


def test_who_waits_in_the_queue_makes_nobody_busy_but_is_counted(pool: Pool) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(pool.path))
        assert connections(pool.path) == 1
        assert is_idle(os.getpid(), pool.path)
