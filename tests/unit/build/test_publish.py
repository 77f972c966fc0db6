"""Parts in the folder that a web server serves: whole or not there, and never replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.module_utils.build.publish import parts, publish, upload_note
from plugins.module_utils.build.uv import BuildError
from plugins.module_utils.host.fetch import part_name
from plugins.module_utils.host.unpack import Order
from tests.unit.host.test_unpack import build


@pytest.fixture
def order(tmp_path: Path) -> Order:
    order, files = build(tmp_path)
    order.artifact.update({f"{part}_path": str(file) for part, file in files.items()})
    return order


def test_publish(order: Order, tmp_path: Path) -> None:
    files = parts("shop", [order.artifact])
    assert sorted(files) == sorted(part_name("shop", order.artifact[f"{part}_sha256"]) for part in ("lib", "code"))
    with pytest.raises(BuildError, match="which is no folder on the controller"):
        publish(files, tmp_path / "web")
    web = tmp_path / "web"
    web.mkdir()
    assert sorted(publish(files, web, check_mode=True)) == sorted(files)
    assert list(web.iterdir()) == []
    old = os.umask(0o077)
    try:
        assert sorted(publish(files, web)) == sorted(files)
    finally:
        os.umask(old)
    for name, file in files.items():
        assert (web / name).read_bytes() == file.read_bytes()
        assert (web / name).stat().st_mode & 0o777 == 0o644
    assert len(list((web / "shop").iterdir())) == 2
    assert publish(files, web) == []
    (web / name).write_bytes(b"half")
    with pytest.raises(BuildError, match=r"has 4 bytes, not \d+: it is damaged\. Remove it"):
        publish(files, web)
    assert f"{name}  from  {files[name]}" in upload_note(files)


def test_half_a_copy_is_never_seen(order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(BuildError, match=r"cannot be written: .*No space left on device"):
        publish(parts("shop", [order.artifact]), tmp_path)
    assert list((tmp_path / "shop").iterdir()) == []
