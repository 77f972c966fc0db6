"""What the person who deploys should know of what ships from a folder, a sentence each: it would surprise later."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..host.archive import show
from .git import changes, ignored
from .secret_files import is_secret
from .selection import JUNK, SHOWN, few

LARGE = 10_000_000  # bytes
#: Calls that make a path of all their arguments; and those whose first one, or a keyword, names what an app serves or
#: reads.
_JOIN = {"Path", "PurePath", "join", "joinpath"}
_READERS = {
    *_JOIN, "StaticFiles", "FileResponse", "Jinja2Templates", "FileSystemLoader", "open", "exists", "isdir", "read_csv",
}  # fmt: skip


def notes_on(root: Path, names: Sequence[str], secrets: Sequence[str], changed: Sequence[str]) -> list[str]:
    """Return the notes on a folder of which `names` ship, `secrets` were left out, and `changed` are not committed."""
    notes = []
    if secrets:
        notes.append(
            f"Left out because they may hold secrets: {', '.join(secrets)}. Set service_env instead, or name such a "
            "file in release_include."
        )
    if changed:
        which = "an uncommitted change" if len(changed) == 1 else f"{len(changed)} uncommitted changes"
        notes.append(f"The release holds {which}: {few(changed)}.")
    if named := ignored_but_named(root, names):
        paths = ", ".join(f"{path} (in {file})" for path, file in [*named.items()][:SHOWN])
        notes.append(
            f"Git ignores what the code names, so it does not ship: {paths}. If hosts need it, set release_include: "
            f"[{', '.join(named)}]."
        )
    if large := [(name, size) for name in names if (size := _size(root / name)) > LARGE]:
        sizes = [f"{show(name)} ({size / 1e6:.0f} MB)" for name, size in large[:SHOWN]]
        more = f" and {len(large) - SHOWN} more" if len(large) > SHOWN else ""
        notes.append(f"Large files ship: {', '.join(sizes)}{more}. What hosts do not need, release_exclude leaves out.")
    return notes


def _size(path: Path) -> int:
    return 0 if path.is_symlink() else path.stat().st_size


def uncommitted(root: Path, names: Sequence[str]) -> list[str]:
    """Return what of `names` differs from the last commit, and what is in that but no longer in the folder."""
    there = set(names)
    return [name for name in changes(root) if name in there or not os.path.lexists(root / name)]


def ignored_but_named(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Return what git ignores although the app's code names it, each with a file that does; but for what ships.

    As a built front end: `StaticFiles(directory="frontend/dist")`.
    """
    shipped = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
    paths = [path for path in (name.rstrip("/") for name in ignored(root)) if _may_be_needed(root, path, shipped)]
    if not paths:
        return {}
    words = {path.rpartition("/")[2] for path in paths}
    named: dict[str, str] = {}
    for file in names:
        text = _text_of(root / file) if file.endswith(".py") else ""
        if any(word in text for word in words):
            there = {path for candidate in _named_in(text) for path in _resolved(root, file, candidate)}
            for path in paths:
                if any(other == path or other.startswith(f"{path}/") for other in there):
                    named.setdefault(path, file)
    return named


def _may_be_needed(root: Path, path: str, shipped: set[str]) -> bool:
    return not (JUNK.intersection(path.split("/")) or path in shipped or is_secret(root, path))


def _text_of(path: Path) -> str:
    return "" if path.is_symlink() else path.read_text("utf-8", "replace")


def _resolved(root: Path, file: str, candidate: str) -> Iterator[str]:
    """Return what a path in the code may mean: relative to the app's folder, or to a folder that the file is in."""
    for folder in (root / file).parents:
        path = os.path.normpath(folder / candidate)
        if os.path.lexists(path) and path.startswith(f"{root}/"):
            yield path[len(f"{root}/") :]
        if folder == root:
            return


def _named_in(text: str) -> set[str]:
    """Return the paths that a module's code names, as far as they are written out in it."""
    try:
        nodes = [*ast.walk(ast.parse(text))]
    except (SyntaxError, ValueError):
        return set()  # a host's newer Python may well read it
    constants = {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant)
    }
    named = set()
    for node in nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            named.add("/".join(_parts(node, constants)))
        elif isinstance(node, ast.Call) and _called(node) in _READERS:
            keywords = [_parts(keyword.value, constants) for keyword in node.keywords]
            named |= {"/".join(parts) for parts in (_parts(node, constants), *keywords)}
    return {path.lstrip("/") for path in named if path.strip("/.")}


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _parts(node: ast.expr, constants: Mapping[str, ast.expr]) -> list[str]:
    """Return the texts of a path, as in `Path(__file__).parent / "frontend" / NAME`, without what cannot be read."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [*_parts(node.left, constants), *_parts(node.right, constants)]
    if isinstance(node, ast.Call) and _called(node) in _READERS:
        joined = [node.func.value] if isinstance(node.func, ast.Attribute) and node.func.attr == "joinpath" else []
        words = node.args if _called(node) in _JOIN else node.args[:1]
        return [part for word in (*joined, *words) for part in _parts(word, constants)]
    return []
