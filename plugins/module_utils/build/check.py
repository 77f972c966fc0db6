"""Checks of an assembled release that need no host: does the module exist, does it have the app, can hosts run it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

from .lock import python_meets
from .uv import BuildError

SHOWN = 5  # hosts named in a message

_MODULE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)([\w.]*)(\(.*\))?$")


def place(platform: Mapping[str, Any]) -> str:
    """Name a platform and its hosts for a message."""
    hosts = list(platform.get("hosts") or [])
    shown = ", ".join(hosts[:SHOWN]) + (f" and {len(hosts) - SHOWN} more" if len(hosts) > SHOWN else "")
    return f"Python {platform['python']} on {platform['arch']}" + (f" ({shown})" if shown else "")


def check_python(requires: str, platforms: list[dict[str, Any]]) -> None:
    """Refuse hosts whose Python is not the app's."""
    wrong = [place(p) for p in platforms if not python_meets(p["python"], requires)]
    if wrong:
        raise BuildError(
            f"The app's requires-python is {requires}, but these hosts have another: {'; '.join(wrong)}. Widen "
            "requires-python in pyproject.toml and lock again, or use hosts with a newer Ubuntu "
            "(22.04 has Python 3.10, 24.04 has 3.12, 26.04 has 3.14)."
        )


def search_path(names: set[str]) -> list[str]:
    """Return the folders of a release that go on PYTHONPATH, in order."""
    path = ["app"]
    if any(name.startswith("app/src/") for name in names):
        path.append("app/src")
    if any(name.startswith("site/") for name in names):
        path.append("site")
    return [*path, "lib"]


def find_module(module: str, path: list[str], names: set[str]) -> str | None:
    """Return the file of a dotted module among the release's names; "" for a namespace package or compiled code."""
    dotted = module.replace(".", "/")
    for folder in path:
        for name in (f"{folder}/{dotted}/__init__.py", f"{folder}/{dotted}.py"):
            if name in names:
                return name
        inside = (f"{folder}/{dotted}/", f"{folder}/{dotted}.")
        if any(name.startswith(inside) and name.endswith((".py", ".so")) for name in names):
            return ""
    return None


def bound_names(source: str) -> set[str] | None:
    """Return the names that a module binds at its top level; None when that cannot be told without running it."""
    try:
        top = ast.parse(source)
    except (SyntaxError, ValueError):
        return None  # a host's newer Python may well read it
    names: set[str] = set()
    queue: list[ast.AST] = list(top.body)
    while queue:
        node = queue.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name == "__getattr__":
                return None
            names.add(node.name)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names.add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.Name):
            if node.id in {"globals", "setattr", "exec"}:
                return None
            if isinstance(node.ctx, ast.Store):
                names.add(node.id)
        queue += ast.iter_child_nodes(node)
    return names


def find_apps(sources: Mapping[str, str], path: list[str]) -> list[str]:
    """Return `module:name` of what looks like an app: a top-level name bound to FastAPI(...) or Starlette(...)."""
    found = []
    for name, text in sources.items():
        folder = max((f for f in path if name.startswith(f + "/")), key=len, default=None)
        if folder is None:
            continue
        dotted = re.sub(r"(/__init__)?\.py$", "", name[len(folder) + 1 :]).replace("/", ".")
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                called = node.value.func
                kind = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if kind in {"FastAPI", "Starlette"}:
                    found += [f"{dotted}:{t.id}" for t in node.targets if isinstance(t, ast.Name)]
    return found


def check_module(
    module: str, names: set[str], read: Callable[[str], str], dependencies: Callable[[], set[str]]
) -> None:
    """Refuse a module that the release does not hold, or that does not have the app. Raises BuildError.

    `names` are the files of app/ and site/; `dependencies` gives those of lib/, and is asked only when needed.
    """
    match = _MODULE.match(module)
    if not match:
        raise BuildError(f"app_module is {module!r}; write it as module:name, as in main:app")
    path = search_path(names)
    file = find_module(match[1], path, names)
    if file is None:
        file = find_module(match[1], path, dependencies())
        if file is not None:
            return
    if file == "":
        return
    bound = bound_names(read(file)) if file else set()
    if file and (bound is None or match[2] in bound):
        return
    own = sorted(n for n in names if n.endswith(".py") and "/test" not in n)[:500]
    apps = find_apps({n: read(n) for n in own}, path)
    hint = f" Did you mean {' or '.join(apps[:3])}?" if apps else " No module of it makes a FastAPI()."
    what = (
        f"{file} has no name {match[2]!r} at its top level."
        if file
        else f"the source has no module {match[1]} (looked in {', '.join(path)})."
    )
    raise BuildError(f"app_module is {module}, but {what}{hint}")
