"""What is read of a machine and of control groups, as kernels, containers and faults leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.workers.limits import (
    Groups,
    parse_affinity,
    parse_cfs_quota,
    parse_cpu_max,
    parse_memory,
    read_groups,
    read_machine,
)

MIB = 1024 * 1024
NO_LIMIT = "9223372036854771712\n"
V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:12 master:3 - cgroup cgroup rw,memory\n"
)
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    """Make /proc and /sys below a folder; names without a first folder are below /sys/fs/cgroup."""
    for name, text in files.items():
        path = root / name if name.startswith(("proc/", "sys/")) else root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        pytest.param({"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2}, None, None, id="v2 root, no files"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2,
                "cpu.max": "250000 100000\n", "memory.max": f"{512 * MIB}\n", "memory.high": "max\n",
            },
            2.5, 512, id="v2 in a namespace of its own",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "cpu.max": "max 100000\n", "memory.max": "max\n"},
            None, None, id="v2 without limits",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/outer/middle/inner\n", "proc/self/mountinfo": V2,
                "outer/cpu.max": "150000 100000", "outer/middle/cpu.max": "400000 100000",
                "outer/middle/inner/cpu.max": "max 100000",
                "outer/memory.max": "max", "outer/middle/memory.max": str(300 * MIB),
                "outer/middle/inner/memory.max": str(900 * MIB), "elsewhere/cpu.max": "1000 100000",
            },
            1.5, 300, id="v2 nested: the tightest of all above counts, no other group does",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2,
                "a/memory.max": "max", "a/memory.high": str(MIB * 200),
            },
            None, 200, id="v2 memory.high",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": V2, "cpu.max": "50000 100000",
                "sys/fs/other/cpu.max": "1000 100000",
            },
            0.5, None, id="v2 outside of what the namespace shows",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/docker/abc/init\n",
                "proc/self/mountinfo": V2.replace("/ /sys", "/docker/abc /sys"),
                "cpu.max": "100000 100000", "init/cpu.max": "max 100000", "docker/abc/init/cpu.max": "1 100000",
            },
            1.0, None, id="v2 mounted from the container's own group on",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
                "proc/self/mountinfo": V1.replace("/ /sys/fs/cgroup/", "/docker/abc /sys/fs/cgroup/"),
                "cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": f"{256 * MIB}\n",
            },
            0.5, 256, id="v1 container without a namespace",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n", "proc/self/mountinfo": V1,
                "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/cpu.cfs_quota_us": "60000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "20000", "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": NO_LIMIT, "memory/a/memory.limit_in_bytes": str(700 * MIB),
                "memory/a/b/memory.limit_in_bytes": NO_LIMIT,
            },
            3.0, 700, id="v1 nested, -1 and huge are no limits",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n", "proc/self/mountinfo": V1,
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "memory/memory.limit_in_bytes": NO_LIMIT,
            },
            None, None, id="v1 without limits",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n0::/b\n", "proc/self/mountinfo": V1 + UNIFIED,
                "memory/a/memory.limit_in_bytes": str(400 * MIB), "unified/b/cpu.max": "200000 100000",
            },
            2.0, 400, id="hybrid: memory by v1, CPU by v2",
        ),
        pytest.param(
            {"cpu.max": "70000 100000", "memory.max": str(128 * MIB)}, 0.7, 128, id="/proc tells nothing: usual places"
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "70000", "memory/memory.limit_in_bytes": str(128 * MIB)},
            0.7, 128, id="usual places, v1, without a period",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2.replace("/sys/fs/cgroup", "/sys/fs/c\\040g"),
                "sys/fs/c g/cpu.max": "100000 50000",
            },
            2.0, None, id="a blank in the mount's place",
        ),
        pytest.param({}, None, None, id="nothing there at all"),
    ],
)  # fmt: skip
def test_groups_limits_are_the_tightest_that_hold(
    tmp_path: Path, files: dict[str, str], quota: float | None, memory: int | None
) -> None:
    assert read_groups(tree(tmp_path, files)) == Groups(quota, memory)


@pytest.mark.parametrize(
    "text", ["", "\n", "abc", "max max max", "-5 100000", "0 100000", "100000 0", "1e5 100000", "٣ 1"]
)
def test_nonsense_in_cpu_max_is_ignored_and_noted(tmp_path: Path, text: str) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2, "a/cpu.max": "200000 100000"}
    found = read_groups(tree(tmp_path, {**files, "a/b/cpu.max": text}))
    assert found.quota == 2.0, "what makes sense still counts"
    (note,) = found.notes
    assert "a/b/cpu.max says" in note
    assert note.endswith("ignored")


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "lots"},
        {"memory.max": "0"},
        {"memory/memory.limit_in_bytes": "12 MiB"},
        {"cpu/cpu.cfs_quota_us": "soon"},
        {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "never"},
        {"cpu/cpu.cfs_quota_us": "", "cpu/cpu.cfs_period_us": "100000"},
    ],
)
def test_nonsense_elsewhere_is_ignored_and_noted(tmp_path: Path, files: dict[str, str]) -> None:
    found = read_groups(tree(tmp_path, files))
    assert (found.quota, found.memory_limit_mib, len(found.notes)) == (None, None, 1)


def test_damaged_tables_are_no_limit(tmp_path: Path) -> None:
    tables = {"proc/self/cgroup": "\0\xff:::\nx\n", "proc/self/mountinfo": "1 2 - cgroup2\n - - \n"}
    assert read_groups(tree(tmp_path, tables)) == Groups()
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # a folder where a file should be
    assert read_groups(tmp_path) == Groups()


def test_a_hosts_services_are_not_in_the_group_of_pid_1(tmp_path: Path) -> None:
    files = {
        "proc/1/cgroup": "0::/init.scope\n", "proc/self/cgroup": "0::/user.slice/session\n", "proc/self/mountinfo": V2,
        "init.scope/cpu.max": "1000 100000", "user.slice/cpu.max": "1000 100000",
        "system.slice/cpu.max": "300000 100000", "memory.max": str(800 * MIB),
    }  # fmt: skip
    assert read_groups(tree(tmp_path, files), pid="1", below="system.slice") == Groups(3.0, 800)


def test_a_container_that_shows_its_place_on_the_machine_keeps_it_for_its_services(tmp_path: Path) -> None:
    files = {
        "proc/1/cgroup": "0::/lxc/web1/init.scope\n", "proc/self/mountinfo": V2,
        "lxc/web1/cpu.max": "150000 100000", "lxc/web1/system.slice/memory.max": str(100 * MIB),
    }  # fmt: skip
    assert read_groups(tree(tmp_path, files), pid="1", below="system.slice") == Groups(1.5, 100)


@given(text=st.text())
def test_parsers_return_a_number_above_zero_or_nothing_and_raise_nothing_else(text: str) -> None:
    for parse in (parse_cpu_max, parse_cfs_quota, parse_memory):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert found is None or found > 0


@pytest.mark.parametrize(
    ("text", "count"), [("0-3", 4), ("0,2,4-5", 4), ("7", 1), ("", None), ("x", None), ("5-2", None), ("-", None)]
)
def test_affinity_is_counted(text: str, count: int | None) -> None:
    assert parse_affinity(f"Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{text}\n") == count


def test_the_machine_is_read(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n",
        "proc/meminfo": "MemTotal:        2097152 kB\nMemFree: 1 kB\n",
        "proc/self/status": "Cpus_allowed_list:\t0\n",
    }
    assert read_machine(tree(tmp_path, files)) == {"vcpus": 2, "affinity": 1, "memory_mib": 2048}


def test_a_machine_without_proc_is_read_all_the_same(tmp_path: Path) -> None:
    found = read_machine(tmp_path)
    assert found["vcpus"] == os.cpu_count()
    assert found["affinity"] is None
    assert (found["memory_mib"] or 0) > 64


def test_this_machine_is_read() -> None:
    assert read_machine()["affinity"] == len(os.sched_getaffinity(0))
    assert read_groups().notes == ()
