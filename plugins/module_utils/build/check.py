"""Checks of an assembled release that need no host: does the module exist, and does it have the app."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

from .uv import BuildError

#: A node that binds its name, and whose body binds nothing at the top level.
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
#: With one of these, names come to be at the top level that cannot be read there.
_DYNAMIC = {"__getattr__", "*", "globals", "setattr", "exec"}
_MODULE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)([\w.]*)(\(.*\))?$")


def search_path(names: set[str]) -> list[str]:
    """Return the folders of a release that go on PYTHONPATH, in order."""
    there = [folder for folder in ("app/src", "site") if any(name.startswith(f"{folder}/") for name in names)]
    return ["app", *there, "lib"]


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
        queue: list[ast.AST] = list(ast.parse(source).body)
    except (SyntaxError, ValueError):
        return None  # a host's newer Python may well read it
    names: set[str] = set()
    while queue:
        node = queue.pop()
        names |= _names_of(node)
        if not isinstance(node, _SCOPES):
            queue += ast.iter_child_nodes(node)
    return None if names & _DYNAMIC else names


def _names_of(node: ast.AST) -> set[str]:
    """Return the names that a node itself binds, and those of _DYNAMIC that it uses."""
    if isinstance(node, _SCOPES):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id in _DYNAMIC):
        return {node.id}
    return set()


def find_apps(sources: Mapping[str, str], path: list[str]) -> list[str]:
    """Return `module:name` of what looks like an app: a top-level name bound to FastAPI(...) or Starlette(...)."""
    apps = []
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
                function = node.value.func
                name_called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name_called in {"FastAPI", "Starlette"}:
                    apps += [f"{dotted}:{t.id}" for t in node.targets if isinstance(t, ast.Name)]
    return apps


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
