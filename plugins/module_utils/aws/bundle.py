"""The bundle that an instance sets itself up from: one reproducible `.tar.gz`, made on the controller.

setup                                    the program that runs there
ansible_collections/webfleet/fastapi/    the playbooks, roles and plugins that it runs, as they are here
inventory/                               the instance alone, and the app's settings
artifacts/                               the release, for each Python and architecture
ansible/PYTHON-ARCH.tar.gz               ansible-core for the same ones, from wheels
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..build.artifact import Entry, file_sha256, tree, write_member
from ..build.cache import Cache
from ..build.engine import is_older
from ..build.platforms import lib_member
from ..build.request import Platform
from ..build.split import check_release, judge
from ..build.uv import BuildError, Uv
from ..host.manifest import Manifest
from ..settings.definitions import load

#: The oldest Python that the pinned ansible-core runs on: Ubuntu 22.04's is older.
PYTHON_MIN = "3.11"
#: What of the project an instance needs, below its root. What the role aws_fleet does is done when an instance boots.
PROJECT = ("deploy.yml", "ansible.cfg", "playbooks", "roles", "plugins")
SPARED = "roles/aws_fleet/"
COLLECTION = "ansible_collections/webfleet/fastapi/"
#: The controller's business: where the source is, how it is built, and what happens once in a whole fleet.
DROPPED = re.compile(r"app_source|release_(?!python$).*|fleet_.*|aws_.*|ansible_.*")
#: A text that Ansible on the instance would take for a template.
TEMPLATE = re.compile(r"\{[{%#]")


def make(
    project: Path, artifacts: list[Path], settings: Mapping[str, Any], dest: Path, cache: Cache, uv: Uv
) -> dict[str, Any]:
    """Write the bundle into the folder `dest`; return its `path`, `sha256`, `size` in bytes, and `changed`.

    The file's name holds the beginning of its hash, so one that is there is the same one. Raises BuildError.
    """
    manifests = {path: judge(path)[1] for path in artifacts}
    release = check(manifests, settings)
    paths = {Platform(manifest.python, manifest.arch): path for path, manifest in manifests.items()}
    entries = [
        *project_files(project),
        *own_files(project, settings),
        *(Entry(f"artifacts/{path.name}", path) for path in paths.values()),
        *(Entry(f"ansible/{platform.key}.tar.gz", ansible(project, platform, cache, uv)) for platform in paths),
    ]
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with cache.scratch() as work:
            # The file is for its maker only: settings may hold secrets.
            os.close(os.open(work / "bundle", os.O_CREAT | os.O_WRONLY, 0o600))
            write_member(sorted(entries, key=lambda entry: entry.name), work / "bundle", last=True)
            sha256 = file_sha256(work / "bundle")
            path = dest / f"{release.app}-{release.id}-{sha256[:12]}.tar.gz"
            changed = not path.exists() or file_sha256(path) != sha256
            if changed:
                put(work / "bundle", path)
    except OSError as error:
        raise BuildError(f"The bundle cannot be written into {dest}: {error}.") from error
    return {"path": str(path), "sha256": sha256, "size": path.stat().st_size, "changed": changed}


def put(file: Path, target: Path) -> None:
    """Move a file to where it belongs, on whatever file system, whole or not at all."""
    new = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            out.write(file.read_bytes())
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)


def check(manifests: Mapping[Path, Manifest], settings: Mapping[str, Any]) -> Manifest:
    """Return the manifest of one of the artifacts; refuse what an instance could not deploy. Raises BuildError."""
    if not manifests:
        raise BuildError("artifacts is an empty list; allowed: the paths of a release's artifacts.")
    release = check_release(manifests, settings.get("app_name", ""), settings.get("app_module", ""))
    old = [str(Platform(m.python, m.arch)) for m in manifests.values() if is_older(m.python, PYTHON_MIN)]
    if old:
        raise BuildError(
            f"Instances with {'; '.join(old)} cannot set themselves up: ansible-core needs Python {PYTHON_MIN}. "
            "Use images of Ubuntu 24.04 or newer."
        )
    return release


def project_files(project: Path) -> list[Entry]:
    """Return the playbooks, roles and plugins as they are on disk, without what Python and editors leave there."""
    names = []
    for top in PROJECT:
        path = project / top
        if not path.exists():
            raise BuildError(f"{project} has no {top}: it is neither a clone of fastapi-fleet nor its collection.")
        names += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    shipped = [str(path.relative_to(project)) for path in names]
    junk = re.compile(r"(^|/)(\.|__pycache__/)|\.pyc$|~$")
    return tree(project, [n for n in shipped if not junk.search(n) and not n.startswith(SPARED)], COLLECTION)


def own_files(project: Path, settings: Mapping[str, Any]) -> list[Entry]:
    """Return what only an instance has: the program that is run there, and its inventory with the app's settings."""
    files = project / "roles" / "aws_fleet" / "files"
    # The controller has evaluated all templates: a variable of the user's own that one names is not needed there.
    known = load(project).settings
    kept = {name: value for name, value in settings.items() if name in known and not DROPPED.fullmatch(name)}
    # The instance adds its own addresses: a load balancer's health check asks for one of them.
    kept["bundle_server_names"] = kept.pop("proxy_server_names", [])
    text = json.dumps(as_data(kept), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    return [
        Entry("setup", files / "setup.sh", executable=True),
        Entry("inventory/hosts.yml", files / "instance.yml"),
        Entry("inventory/group_vars/all/settings.json", data=text.encode("utf-8", "surrogateescape")),
    ]


def as_data(value: Any) -> Any:
    """Mark what looks like a template as plain text: the controller has worked out all templates already."""
    if isinstance(value, Mapping):
        return {str(name): as_data(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_data(inner) for inner in value]
    return {"__ansible_unsafe": value} if isinstance(value, str) and TEMPLATE.search(value) else value


def ansible(project: Path, platform: Platform, cache: Cache, uv: Uv) -> Path:
    """Return ansible-core with its dependencies for a platform, installed by uv from wheels with their hashes."""
    lock = (project / "roles" / "aws_fleet" / "files" / "ansible.txt").read_text("utf-8")
    return lib_member(lock, platform, [], cache, uv, [])[0]
