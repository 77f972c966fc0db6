"""A release's manifest: read back as written, the bytes that earlier versions wrote, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugins.module_utils.host.manifest import Manifest, ManifestError
from tests.unit.artifacts import MANIFEST

WRITTEN = {**MANIFEST, "lib_content": "ab" * 32}


def test_manifest_is_written_as_earlier_versions_did_and_read_back() -> None:
    text = (json.dumps(WRITTEN, sort_keys=True, indent=1) + "\n").encode()
    manifest = Manifest.read(text)
    assert manifest.text() == text
    assert Manifest.read(WRITTEN) == manifest
    assert manifest.shared() == {key: MANIFEST[key] for key in MANIFEST if key not in {"id", "python", "arch"}}


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert Manifest.read({**WRITTEN, "signed_by": "me"}) == Manifest.read(WRITTEN)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"format": 2}, "format"),
        ({"app": "../shop"}, "app"),
        ({"id": "0123"}, "id"),
        ({"python": "3.11\n"}, "python"),
        ({"packages": {"gunicorn": "1\x1b[2J"}}, "packages"),
        ({"packages": {"gunicorn": 27}}, "packages"),
        ({"path": ["app", "/etc"]}, "path"),
        ({"path": []}, "path"),
        ({"source": {"version": "1" * 256}}, "source"),
        ({"lib_content": None}, "TypeError: "),
        ({"packages": []}, "AttributeError: "),
    ],
)
def test_manifest_that_is_none_says_what_is_wrong(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ManifestError, match=rf"is none of format 1 \((wrong: {wrong}\)|{wrong})"):
        Manifest.read({**WRITTEN, **changes})


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestError, match="is none of format 1"):
        Manifest.read(text)
