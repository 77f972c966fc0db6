"""An AWS in memory (moto), for modules that ask several services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from plugins.module_utils.aws.client import Clients


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients for a region with nothing of a fleet in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield Clients("eu-central-1")
