"""Whether MODULE:ATTRIBUTE names a function that makes the app, as it is read in the source: nothing is imported.

gunicorn wants `()` behind such a function. Without it, it would call the function for each request, with an ASGI app's
arguments. Python 3.10's standard library, and nothing of this bundle: it runs at the build and in a container.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

#: So many imports are followed, from `from .factory import create_app` on.
IMPORTS = 5


def called(app: str, source: Callable[[str], str | None]) -> str:
    """Return MODULE:ATTRIBUTE with `()`, where a call makes the app; otherwise as it is.

    `source` gives a dotted module's text, None where it cannot be read. What cannot be told is left alone.
    """
    module, _unused, name = app.partition(":")
    return f"{app}()" if name.isidentifier() and _is_factory(module, name, source) else app


def _is_factory(module: str, name: str, source: Callable[[str], str | None]) -> bool:
    for _unused in range(IMPORTS):
        text = source(module)
        node = _bound(text, name) if text is not None else None
        if isinstance(node, ast.FunctionDef):
            return not _required(node.args)
        if not isinstance(node, ast.ImportFrom):
            return False
        name = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        module = _absolute(module, node)
    return False


def _bound(text: str, name: str) -> ast.stmt | None:
    """Return the last statement of a module's top level that binds a name to a function or by an import."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    found: ast.stmt | None = None
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found = node if node.name == name else found
        elif isinstance(node, ast.ImportFrom):
            found = node if name in {alias.asname or alias.name for alias in node.names} else found
        elif name in {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and _stores(item)}:
            found = node
    return found


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _required(arguments: ast.arguments) -> bool:
    """Whether a function has parameters that must be given: an ASGI app has scope, receive and send."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or None in arguments.kw_defaults


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """Return the module that an import is from. Of a relative one in a package's __init__, this may be none."""
    if not node.level:
        return node.module or ""
    parent = module.split(".")[: -node.level]
    return ".".join([*parent, *([node.module] if node.module else [])])
