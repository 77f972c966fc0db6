"""Which versions of ansible-core are taken; tests/integration/test_old_core.py has a real one that is too old."""

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleError

from plugins.plugin_utils.core import OLDEST, refuse_old_core
from tests.unit.rendering import REPOSITORY


@pytest.mark.parametrize("version", ["2.19.0", "2.19.14", "2.21.5", "2.30.0.dev0", "3.0.0b1"])
def test_new_enough(version: str) -> None:
    refuse_old_core(version)


@pytest.mark.parametrize("version", ["2.18.19", "2.9.27", "1.9"])
def test_too_old(version: str) -> None:
    series = ".".join(version.split(".")[:2])
    with pytest.raises(
        AnsibleError, match=rf"^ansible-core {series} is too old; webfleet\.fastapi needs 2\.19 or newer"
    ):
        refuse_old_core(version)


def test_the_collection_says_the_same() -> None:
    required = yaml.safe_load((REPOSITORY / "meta/runtime.yml").read_text())["requires_ansible"]
    assert required == ">={}.{}.0".format(*OLDEST)
