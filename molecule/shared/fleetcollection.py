"""The project as a collection: exported from the clone, built, installed and run where no clone is in reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def export(target: Path) -> Path:
    """Copy what is in version control to a folder, as it is on disk now; returns the folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file() or (REPOSITORY / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name, follow_symlinks=False)
    return target


def build(source: Path, target: Path) -> Path:
    """Build the collection; returns its archive."""
    galaxy("build", source, "--output-path", target, cwd=target)
    (archive,) = target.glob("webfleet-fastapi-*.tar.gz")
    return archive


def install(archive: Path, target: Path) -> Path:
    """Install the archive below a folder that ANSIBLE_COLLECTIONS_PATH may name; returns that folder."""
    (target / "ansible_collections").mkdir(parents=True)
    # Those that requirements.yml names, as a user would have them beside this one (script/bootstrap --aws).
    for name in ("amazon", "community"):
        (target / "ansible_collections" / name).symlink_to(REPOSITORY / "collections" / "ansible_collections" / name)
    galaxy("install", "--offline", "--collections-path", target, archive, cwd=target)
    (target / "empty.cfg").touch()
    return target


def galaxy(*words: str | Path, cwd: Path) -> None:
    """Run ansible-galaxy collection; AssertionError with its words where it fails."""
    command = [Path(sys.executable).with_name("ansible-galaxy"), "collection", *words]
    done = subprocess.run(command, cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)


def environment(collections: Path) -> dict[str, str]:
    """Return an environment in which Ansible knows the collections, and nothing of a clone's or a user's settings."""
    kept = {"ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP"}
    others = {name: text for name, text in os.environ.items() if name in kept or not name.startswith("ANSIBLE_")}
    own = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_NOCOLOR": "1"}
    config = collections / "empty.cfg"
    return {**others, **own, **({"ANSIBLE_CONFIG": str(config)} if config.exists() else {})}
