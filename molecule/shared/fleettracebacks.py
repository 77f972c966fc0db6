"""No message is a stack of the bundle's own files: what goes wrong is said in a sentence, whoever called."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

_BEGIN = "Traceback (most recent call last)"
#: A frame in the bundle's own files: in a clone, in a collection, in what Ansible packs of it, in a host's command.
#: Not what runs in the app's processes, which each of the app's own tracebacks may pass through. JSON has \" for ".
_OWN = re.compile(
    r'File \\?"(?:[^"\n]*/)?'
    r"(?:plugins/(?:action|filter|lookup|modules|module_utils|plugin_utils)/|[a-z0-9-]+-release/fleet/)"
    r'(?!workers/server/)[^"\n]*\.py\\?", line \d+'
)


def own_traceback(output: str | bytes | None) -> str:
    """Return the first frame of the bundle's own in a traceback that an output holds, "" where there is none."""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
    _before, begin, after = text.partition(_BEGIN)
    frame = _OWN.search(after) if begin else None
    return frame[0] if frame else ""


def assert_no_own_traceback(*outputs: str | bytes | None) -> None:
    """Fail where an output holds a traceback with a frame of the bundle's own."""
    for output in outputs:
        if frame := own_traceback(output):
            raise AssertionError(f"a traceback of the bundle's own was shown: {frame}\n{output!s}")


def checked(run: Callable[..., subprocess.CompletedProcess[Any]]) -> Callable[..., subprocess.CompletedProcess[Any]]:
    """Return `subprocess.run`, which then looks at all that it captures."""

    def checked_run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        done = run(*arguments, **options)
        assert_no_own_traceback(done.stdout, done.stderr)
        return done

    return checked_run
