"""What a build backend wrote when it failed, without what uv adds around it."""

from __future__ import annotations

import re
import textwrap

#: Uv's own lines: that something failed, which hook it had called, and which of the backend's outputs follows.
_UV = re.compile(
    r"error: (?:Failed to |The build backend)|\s+cause: |hint: |\s*\[std(?:out|err)\]$|Building (?:wheel|source)"
)
_REASON = re.compile(r"(?:[A-Za-z_][\w.]*(?:Error|Exception|NotFound|Exit)\w*|error|ERROR|fatal)\b: *\S.*")
#: What to do about a project that is built as a package though it is none, by what its backend says then.
_NO_PACKAGE = (
    "Unable to determine which files to ship",  # hatchling
    "Multiple top-level",  # setuptools
    "No file/folder found for package",  # poetry-core
    "Expected a Python module at",  # uv_build
)


def failed(stderr: str) -> bool:
    """Whether a build backend has failed."""
    return "build backend returned an error" in " ".join(stderr.split())


def output(stderr: str) -> str:
    """Return what the backend itself wrote, which may be nothing."""
    lines = [line for line in stderr.splitlines() if not _UV.match(line)]
    return textwrap.dedent("\n".join(lines)).strip()


def reason(text: str) -> str:
    """Return the line of a backend's output that says why: the last exception or error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _REASON.fullmatch(line)), lines[-1] if lines else "")


def advice(text: str) -> str:
    """Return what to do, where the output tells; else where the build looks."""
    if any(words in text for words in _NO_PACKAGE):
        return (
            "If the app is no package, say so in its pyproject.toml: package = false in [tool.uv], or "
            "package-mode = false in [tool.poetry]; its folder ships in any case."
        )
    return "It was built from the files that ship: without what git ignores, and without release_exclude."
