"""Build a wheel from a source distribution: a program of its own, which a host runs as a user without rights.

It runs code of the package and of its build backend (PEP 517). The working directory holds `order.json`, the source
distribution and, as a tar, its build requirements; the program leaves `result.json` and the wheel in `out/` there.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import site
import sys
import tarfile
from pathlib import Path
from typing import Any


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip file. Where Python has no filters, only this user's lack of rights bounds a bad tar."""
    filtered = hasattr(tarfile, "data_filter") and archive.suffix != ".zip"  # Debian 12's Python (3.11.2) has none
    options: dict[str, Any] = {"filter": "data"} if filtered else {}
    shutil.unpack_archive(archive, into, **options)


def own_scripts(folder: Path) -> None:
    """Let scripts that the controller's uv has written start with this Python."""
    for path in folder.glob("*") if folder.is_dir() else []:
        with path.open("rb") as stream:
            first = stream.readline(1000)
            if first.startswith(b"#!") and b"python" in first:
                path.write_bytes(f"#!{sys.executable}\n".encode() + stream.read())


def lacking(asked: list[str], have: list[str], tools: Path) -> list[str]:
    """Return which requirements are not there. A name without a version is there when any version is."""
    names = {re.sub(r"[-_.]+", "-", path.name.partition("-")[0]).lower() for path in tools.glob("*.dist-info")}
    bare = re.compile(r"[A-Za-z0-9._-]+")
    return [
        requirement
        for requirement in asked
        if requirement not in have
        and not (bare.fullmatch(requirement) and re.sub(r"[-_.]+", "-", requirement).lower() in names)
    ]


def main(work: Path) -> dict[str, Any]:
    """Return {"wheel": NAME}, or {"requires": [...]} when the backend wants more."""
    order = json.loads((work / "order.json").read_text("utf-8"))
    tools, source = work / "tools", work / "source"
    unpack(work / order["tools"], tools)
    own_scripts(tools / "bin")
    unpack(work / order["sdist"], source)
    (root,) = source.iterdir()
    os.chdir(root)
    importlib.invalidate_caches()  # Python has looked for `tools` before it was there
    site.addsitedir(str(tools))  # PYTHONPATH names it already, but does not read its .pth files
    sys.path[:0] = [str(root / folder) for folder in order["backend_path"]]
    module, _unused, attribute = order["backend"].partition(":")
    backend: Any = importlib.import_module(module)
    for name in filter(None, attribute.split(".")):
        backend = getattr(backend, name)
    if hasattr(backend, "get_requires_for_build_wheel"):
        more = lacking(list(backend.get_requires_for_build_wheel()), order["have"], tools)
        if more:
            return {"requires": more}
    return {"wheel": str(backend.build_wheel(str(work / "out")))}


if __name__ == "__main__":
    here = Path.cwd()
    result = main(here)
    (here / "result.json").write_text(json.dumps(result), "utf-8")
