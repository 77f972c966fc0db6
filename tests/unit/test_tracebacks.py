"""What counts as a traceback of the bundle's own: by its frames, not by the word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fleettracebacks import assert_no_own_traceback, own_traceback

BEGIN = "Traceback (most recent call last):\n"
OWN = [
    "plugins/modules/app_probe.py",
    "/home/me/shop/plugins/action/rollout.py",
    "/var/lib/ansible_payload.zip/ansible_collections/webfleet/fastapi/plugins/module_utils/host/unpack.py",
    "/usr/local/lib/shop-release/fleet/host/gate.py",
]
FOREIGN = [
    "/srv/shop/releases/0123456789ab/app/main.py",
    "/usr/local/lib/shop-release/worker/own_worker.py",
    "/home/me/shop/plugins/module_utils/workers/server/own_worker.py",
    "/work/.venv/lib/python3.12/site-packages/uvicorn/server.py",
]


def traceback(file: str) -> str:
    return (
        f'{BEGIN}  File "/usr/lib/python3.12/json.py", line 7, in loads\n  File "{file}", line 9, in f\nValueError: x\n'
    )


@pytest.mark.parametrize("file", OWN)
def test_frames_of_the_bundle_are_found_in_plain_text_in_bytes_and_in_json(file: str) -> None:
    text = traceback(file)
    assert own_traceback(text) == own_traceback(text.encode()) == f'File "{file}", line 9'
    assert own_traceback(json.dumps({"log": text}))
    with pytest.raises(AssertionError, match="a traceback of the bundle's own was shown"):
        assert_no_own_traceback("", None, text)
    assert own_traceback(text.removeprefix(BEGIN)) == "", "a file that is named is no traceback"


@pytest.mark.parametrize("file", FOREIGN)
def test_tracebacks_of_the_app_are_none_of_ours_also_through_what_runs_in_its_processes(file: str) -> None:
    assert own_traceback(traceback(file)) == ""


def test_programs_that_tests_call_are_looked_at() -> None:
    with pytest.raises(AssertionError, match="a traceback of the bundle's own"):
        subprocess.run(
            [sys.executable, "-c", "from plugins.module_utils.host.manifest import Manifest; Manifest.read(b'')"],
            cwd=Path(__file__).parents[2], capture_output=True, check=False,
        )  # fmt: skip
