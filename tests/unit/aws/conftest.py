"""An AWS in memory (moto), for modules that ask several services."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from moto import mock_aws

from plugins.module_utils.aws.client import Clients


@contextlib.contextmanager
def aws_in_memory() -> Iterator[Clients]:
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.delenv("AWS_PROFILE", raising=False)
        yield Clients("eu-central-1")


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Clients for a region with nothing of a fleet in it."""
    with aws_in_memory() as clients:
        yield clients


@pytest.fixture(scope="module")
def empty_region() -> Iterator[Clients]:
    """The same, for tests that only read: moto takes seconds to make its images and types."""
    with aws_in_memory() as clients:
        yield clients
