"""Put the collections of requirements.yml into collections/: from Galaxy, else out of the package `ansible` on PyPI.

Run by script/bootstrap --aws. Where they are there in the pinned versions already, nothing is done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
TARGET = REPOSITORY / "collections"
PROGRAMS = Path(sys.executable).parent
#: Seconds for Galaxy to answer; where it cannot be reached, that shows at once or never.
PATIENCE = "20"


def requirements() -> dict[str, str]:
    """Return the pinned versions by the collections' names."""
    listed = yaml.safe_load((REPOSITORY / "requirements.yml").read_text(encoding="utf-8"))["collections"]
    return {item["name"]: item["version"] for item in listed}


def version(name: str) -> str:
    """Return the version that is there, "" where none is."""
    manifest = TARGET / "ansible_collections" / name.replace(".", "/") / "MANIFEST.json"
    if not manifest.exists():
        return ""
    return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])


def missing() -> dict[str, str]:
    """Return what is not there in its pinned version."""
    return {name: pinned for name, pinned in requirements().items() if version(name) != pinned}


def from_galaxy() -> str:
    """Install from Galaxy; return why that did not work, "" where it did."""
    command: list[str | Path] = [PROGRAMS / "ansible-galaxy", "collection", "install", "--force", "--timeout", PATIENCE]
    command += ["--requirements-file", REPOSITORY / "requirements.yml", "--collections-path", TARGET]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or "no reason given").splitlines()[-1] if done.returncode else ""


def from_wheel() -> None:
    """Unpack the collections' folders, and nothing else, of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        # pip, as it checks the hash and downloads without installing.
        command: list[str | Path] = [
            PROGRAMS / "uv",
            "tool",
            "run",
            "pip@26.3",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
        ]
        command += [
            "--only-binary=:all:",
            f"--requirement={REPOSITORY / 'script/ansible-wheel.txt'}",
            f"--dest={folder}",
        ]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("ansible-*.whl")
        prefixes = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in requirements())
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(TARGET, [name for name in opened.namelist() if name.startswith(prefixes)])


def main() -> None:
    """Install what is missing; fail where it is not there afterwards."""
    if not missing():
        return
    reason = from_galaxy()
    if reason:
        print(f"bootstrap: Galaxy: {reason}; taking the collections from PyPI's package ansible", flush=True)
        from_wheel()
    if left := missing():
        sys.exit(f"bootstrap: not there in these versions: {left}")
    print(f"bootstrap: collections {', '.join(f'{name} {pinned}' for name, pinned in requirements().items())}")


if __name__ == "__main__":
    main()
