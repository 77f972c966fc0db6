"""Artifacts for tests: as a release build writes them, and as nobody should."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plugins.module_utils.host.unpack import Order

MANIFEST: dict[str, Any] = {
    "format": 1,
    "app": "shop",
    "module": "main:app",
    "engine": "gunicorn",
    "packages": {"gunicorn": "27.0.1", "uvicorn": "0.54.0", "uvicorn-worker": "0.4.0"},
    "path": ["app", "lib"],
    "requires_python": ">=3.10",
    "source": {"kind": "uv.lock", "version": "1.0"},
    "id": "0123456789ab",
    "python": "3.11",
    "arch": "x86_64",
}


def manifest_of(lib_content: str, **changes: Any) -> bytes:
    """Return a manifest that fits a lib part."""
    return json.dumps({**MANIFEST, "lib_content": lib_content, **changes}).encode()


Members = Iterable[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes | str | None = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a file (bytes), a symlink (text, its target) or a folder (None), with other `fields` of its header."""
    info = tarfile.TarInfo(name)
    data = b""
    match content:
        case bytes():
            info.mode, info.size, data = 0o644, len(content), content
        case str():
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, content
        case _:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(members: Members, last: bool, form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tar, with an end only where it is the `last` part."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
        end = out.tell()
    return out.getvalue() if last else out.getvalue()[:end]


def write(folder: Path, lib: bytes, code: Members, form: int = tarfile.GNU_FORMAT, about: Any = ()) -> Path:
    """Write an artifact of a tar and of any members; only its manifest is in order.

    As in artifacts of earlier versions, no part says what it unpacks to.
    """
    manifest = manifest_of(**{"lib_content": hashlib.sha256(lib).hexdigest(), **dict(about)})
    path = folder / "artifact.tar.gz"
    second = tar([*code, member("manifest.json", manifest)], last=True, form=form)
    path.write_bytes(gzip.compress(lib, mtime=0) + gzip.compress(second, mtime=0))
    return path


def sent(folder: Path, **parts: bytes) -> tuple[Order, dict[str, Path]]:
    """Return what a host is told and sent of any packed parts, as if a controller had let them through."""
    about: dict[str, Any] = {"sha256": "0", "content": "0", "python": "3.11", "arch": "x86_64"}
    files = {}
    for part, data in parts.items():
        files[part] = folder / f"{part}.tar.gz"
        files[part].write_bytes(data)
        about |= {f"{part}_sha256": hashlib.sha256(data).hexdigest(), f"{part}_content": "0"}
        about |= {f"{part}_size": len(data), f"{part}_bytes": 16 << 20, f"{part}_files": 1000}
    return Order("shop", folder / "srv", "0123456789ab", about, python="/bin/true"), files
