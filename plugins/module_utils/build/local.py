"""What the app's own wheel and those of its local packages install: path dependencies, members of its workspace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .artifact import Entry, tree, wheel_tree
from .cache import Cache, hash_of
from .git import prefix_of
from .selection import check_pointers, check_submodules
from .source import Source, check_pure, selected
from .uv import BuildError, Uv, explained
from .versions import lend_git, version_inputs
from .workspace import inside, place


def site_tree(
    source: Source, local: Sequence[str], shape: Any, exclude: Sequence[str], cache: Cache, uv: Uv
) -> list[Entry]:
    """Return the entries below `site/`; none for a plain folder. `shape` stands for the source's own files."""
    if source.wheel:
        return wheel_tree(source.wheel)
    own = place(source)
    folders = [folder for folder in (*local, *([own] if source.packaged else [])) if folder]
    if not folders:
        return []
    top = source.workspace.root if source.workspace else source.root
    more = siblings(source, folders, exclude)
    from_git = version_inputs(top, folders, source.fetched)
    key = hash_of(shape, own, [entry.digest() for entry in tree(top, more, "")], from_git)
    entry = cache.get("wheels", key)
    if not entry:
        with cache.put("wheels", key) as new, cache.scratch() as work:
            # From a copy of what ships, so that ignored files do not get in and build/ does not get out.
            copy = work / "app" / (prefix_of(top) if from_git else "")
            files = {os.path.join(own, name): path for name, path in source.files.items()}
            for name, path in {**files, **more}.items():
                target = copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target, follow_symlinks=False)
            if from_git:
                lend_git(top, work / "app")
            for folder in folders:
                build_wheel(source, folder, copy, new, uv)
        entry = cache.root / "wheels" / key
    site: dict[str, Entry] = {}
    for wheel in sorted(entry.glob("*.whl")):
        check_pure(wheel)
        site.update((item.name, item) for item in wheel_tree(wheel))
    return [site[name] for name in sorted(site)]


def siblings(source: Source, folders: Sequence[str], exclude: Sequence[str]) -> dict[str, Path]:
    """Return the files of the other members of a workspace among `folders`, and its pyproject.toml, by their names."""
    members = [member for folder in folders if (member := inside(folder, source))]
    if not source.workspace or not members:
        return {}
    root = source.workspace.root
    files = {"pyproject.toml": root / "pyproject.toml"}
    for member in members:
        names, _secrets = selected(root / member, exclude, ())
        check_submodules(root / member, names)
        check_pointers(root / member, names, source.fetched)
        files.update({f"{member}/{name}": root / member / name for name in names})
    return files


def build_wheel(source: Source, folder: str, copy: Path, into: Path, uv: Uv) -> None:
    """Build the wheel of one folder of the copy. Raises BuildError."""
    where = os.path.normpath(os.path.join(copy, folder))
    if not Path(where).is_relative_to(copy) or not os.path.isdir(where):
        raise BuildError(
            f"The app requires the local package {folder}, which is outside of its folder, so a release would not hold "
            "it. Move it inside, or make both members of one uv workspace: a folder above with [tool.uv.workspace] in "
            "its pyproject.toml."
        )
    with explained(f"building the wheel of {source.root / folder}"):
        uv.run("build", "--wheel", "-o", str(into), where, cwd=copy)
