"""From a health route that fails to the true reason in the last lines that Ansible prints, whatever the time limit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fleettest import REPOSITORY, App, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")

HEALTH = "async def health() -> dict[str, str | int]:\n"
FRAMES = 100  # two lines of a traceback each; functions of their own, as Python cuts a recursion's short
BOOM = "RuntimeError: table orders is away"
LAST = 20  # lines


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample app, whose health route fails far down, so each worker logs a traceback of 200 lines at each probe."""
    ignore = shutil.ignore_patterns(".venv", "__pycache__", ".*cache")
    folder = Path(shutil.copytree(REPOSITORY / "app", tmp_path_factory.mktemp("source") / "app", ignore=ignore))
    main = folder / "main.py"
    assert main.read_text().count(HEALTH) == 1
    deep = "".join(f"def f{number}() -> None:\n    f{number + 1}()\n\n\n" for number in range(FRAMES))
    deep += f'def f{FRAMES}() -> None:\n    raise RuntimeError("{BOOM.partition(": ")[2]}")\n'
    main.write_text(main.read_text().replace(HEALTH, f"{HEALTH}    f0()\n") + f"\n\n{deep}")
    return folder


@pytest.mark.fault(52)
@pytest.mark.fault(53)
@pytest.mark.parametrize("seconds", [5, 15, 20, 60])
def test_failing_health_route_is_told_by_its_own_exception_in_the_last_lines(
    app: App, source: Path, seconds: int
) -> None:
    before = app.live
    limits = {"service_boot_timeout": seconds, "service_drain_timeout": 5}
    done = playbook("deploy.yml", "--limit", "web1", variables={"app_source": str(source), **limits})
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    reason = f"not ready within {seconds} s (service_boot_timeout): /health answers 500: {BOOM}"
    assert f"refused: {reason}" in " ".join(" ".join(lines[-LAST:]).split()), done.stdout
    log = [line.partition("| ")[2] for line in lines if "  | " in line]
    assert any(line.endswith(BOOM) for line in log), done.stdout
    assert not any("in f0" in line for line in log), f"the first lines of 200, not the last: {log}"
    rc, said = app.command("history")
    assert (rc, said["history"][-1]["result"]) == (0, "refused")
    assert reason in said["history"][-1]["reason"]
    assert app.live == before
