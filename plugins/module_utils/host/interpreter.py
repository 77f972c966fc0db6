"""The Python that runs an app, asked for its version."""

from __future__ import annotations

import re
import subprocess


def python_version(python: str) -> str:
    """Return `3.12.3` for the interpreter at this path, or an empty string where it does not run or is no Python."""
    try:
        done = subprocess.run(
            [python, "-IS", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    version = done.stdout.strip()
    return version if re.fullmatch(r"\d+\.\d+\.\d+", version) else ""
