"""A host whose PID 1 is not systemd is refused, with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MARK = Path("/run/systemd/system")  # sd_booted(3): this folder is there where systemd is PID 1
HIDDEN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run/systemd && exec "$@"', "sh"]


def test_host_without_systemd_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The host is this machine, with systemd's mark hidden. In check mode: it would be a pity about this machine."""
    if MARK.exists() and os.geteuid() != 0:
        pytest.skip(f"only root can hide {MARK} from one process")
    inventory = tmp_path / "hosts.yml"  # JSON is YAML
    settings = {"app_name": "counter", "app_source": str(REPOSITORY / "app"), "app_module": "main:app"}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **settings}
    inventory.write_text(json.dumps({"app": {"hosts": {"here": {**local, "service_python": sys.executable}}}}))
    play: list[str | Path] = [
        Path(sys.executable).with_name("ansible-playbook"),
        "-i",
        inventory,
        "deploy.yml",
        "--check",
    ]
    done = subprocess.run(
        [*(HIDDEN if MARK.exists() else []), *play],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "cannot run counter: PID 1 is not systemd (needed: systemd 249 or newer). Nothing was changed" in said, said
    assert "Build the release" not in said
