"""Put an artifact's parts where hosts fetch them: a folder on the controller that a web server serves."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..host.fetch import part_name
from .uv import BuildError


def parts(app: str, artifacts: Iterable[dict[str, Any]]) -> dict[str, Path]:
    """Return what hosts fetch: the name below release_url, and the file on the controller that it has to be."""
    return {
        part_name(app, artifact[f"{part}_sha256"]): Path(artifact[f"{part}_path"])
        for artifact in artifacts
        for part in ("lib", "code")
    }


def publish(files: dict[str, Path], folder: Path, check_mode: bool = False) -> list[str]:
    """Copy what the folder lacks, whole or not at all; return the names of it. Raises BuildError.

    A name stands for its bytes, so a file that is there is left alone.
    """
    made = []
    try:
        if not folder.is_dir():
            raise BuildError(
                f"release_publish is {folder}, which is no folder on the controller. Make it, or mount what belongs "
                "there: a folder made here could hide that it is not mounted."
            )
        for name, file in files.items():
            target, size = folder / name, file.stat().st_size
            if target.exists():
                if target.stat().st_size != size:
                    raise BuildError(
                        f"{target} has {target.stat().st_size} bytes, not {size}: it is damaged. Remove it, and deploy "
                        "again."
                    )
                continue
            made.append(name)
            if not check_mode:
                _copy(file, target)
    except OSError as error:
        raise BuildError(
            f"release_publish {folder} cannot be written: {error}. Nothing was changed on hosts."
        ) from error
    return made


def _copy(file: Path, target: Path) -> None:
    """Copy a file so that nobody ever finds half of it under its name."""
    target.parent.mkdir(mode=0o755, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    try:
        with open(handle, "wb") as out, file.open("rb") as stream:
            shutil.copyfileobj(stream, out, 1 << 20)
            os.fchmod(handle, 0o644)  # the web server is another user
            out.flush()
            os.fsync(handle)
        os.rename(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def upload_note(files: dict[str, Path]) -> str:
    """Say what has to be uploaded when nobody publishes it."""
    rows = "".join(f"\n  {name}  from  {file}" for name, file in sorted(files.items()))
    return f"release_publish is empty, so these files must be below release_url before hosts fetch them:{rows}"
