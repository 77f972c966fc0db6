"""Which Python meets the app's requires-python, and which platforms are named."""

import pytest

from plugins.module_utils.build.request import Platform, check_python, lock_pythons, lowest_python, python_meets
from plugins.module_utils.build.uv import BuildError
from tests.unit.rendering import value


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("python", "requires", "good"),
    [
        ("3.11", "", True),
        ("3.11", ">=3.11", True),
        ("3.10", ">=3.11", False),
        ("3.12", ">=3.10,<3.12", False),
        ("3.11", ">=3.10,<3.12", True),
        ("3.11", ">=3.11.4", True),
        ("3.11", "<3.11.4", True),
        ("3.13", "~=3.11", True),
        ("4.0", "~=3.11", False),
        ("3.13", "~=3.11.0", False),
        ("3.11", "~=3.11.2", True),
        ("3.12", "==3.12.*", True),
        ("3.12", "==3.11.*", False),
        ("3.12", "!=3.12.*", False),
        ("3.12", "!=3.12.1", True),
        ("3.12", ">3.12", True),
        ("3.12", ">3.11", True),
        ("3.11", ">3.11", True),
        ("3.11.0", ">3.11", False),
        ("3.11.4", ">3.11", True),
        ("3.12", "!=3.12", True),
        ("3.12.3", "!=3.12", True),
        ("3.12.3", "!=3.12.3", False),
        ("3.12", "===3.12.3", True),
        ("3.12.3", "===3.12.3", True),
        ("3.12.4", "===3.12.3", False),
        ("3.13", "===3.12.3", False),
        ("3.12", "<=3.12", False),
        ("3.12.3", "<=3.12", False),
        ("3.12", "<3.12.0", False),
        ("3.12.3", "<3.12.4", True),
        ("3.12.4", "<3.12.4", False),
        ("3.12.3", "~=3.12.4", False),
        ("3.12", "==3.12", False),
        ("3.12", "<=3.11", False),
        ("3.12", "<4", True),
        ("3.12", ">= 3.10, < 4.0", True),
    ],
)
def test_requires_python(python: str, requires: str, good: bool) -> None:
    assert python_meets(python, requires) is good


@pytest.mark.parametrize(
    ("requires", "hosts", "pythons"),
    [
        ("", ["3.12"], ["3.10", "3.12"]),
        (">=3.9", ["3.14", "3.12"], ["3.10", "3.12"]),
        (">=3.9", ["3.9", "3.12"], ["3.10"]),
        ("", ["3.10", "3.12"], ["3.10"]),
        (">=3.12", ["3.12"], ["3.12"]),
    ],
)
def test_pythons_that_a_lock_is_tried_for(requires: str, hosts: list[str], pythons: list[str]) -> None:
    """3.9 is older than 3.10, though not as a text."""
    assert lock_pythons(requires, [Platform(python, "x86_64") for python in hosts]) == pythons


@pytest.mark.parametrize(
    ("requires", "low"),
    [
        ("", "3.10"),
        (">=3.8", "3.10"),
        (">=3.12,<4", "3.12"),
        ("~=3.11.2", "3.11"),
        (">3.11", "3.11"),
        ("!=3.10.*", "3.11"),
        ("===3.12.3", "3.12"),
    ],
)
def test_lowest_python(requires: str, low: str) -> None:
    assert lowest_python(requires) == low


def test_hosts_with_another_python_are_named() -> None:
    platforms = [
        Platform("3.10", "x86_64", ["web1", "web2"]),
        Platform("3.12", "x86_64", ["web3"], ["3.12.3"]),
    ]
    with pytest.raises(
        BuildError, match=r"requires-python is >=3\.11, but .*: Python 3\.10 on x86_64 \(web1, web2\)\."
    ):
        check_python(">=3.11", platforms)
    check_python(">=3.10", platforms)


def test_full_version_decides_where_it_is_known() -> None:
    hosts = [Platform("3.12", "x86_64", ["web1", "web2"], ["3.12.3", "3.12.9"])]
    with pytest.raises(BuildError, match=r"Python 3\.12 on x86_64 \(web1, web2\), which is 3\.12\.3\. Widen"):
        check_python(">=3.12.4", hosts)
    check_python(">=3.12.3", hosts)
    unknown = [Platform("3.12", "x86_64")]
    check_python("===3.12.4", unknown)
    with pytest.raises(BuildError, match=r"x86_64\. X\.Y stands for any patch release from X\.Y\.1 on\. Widen"):
        check_python("<=3.12", unknown)


def test_requires_python_that_is_none_is_refused() -> None:
    with pytest.raises(BuildError, match=r"requires-python is 'three', which is no version specifier"):
        check_python("three", [Platform("3.12", "x86_64")])


def test_platform_names_its_first_hosts() -> None:
    platform = Platform("3.12", "aarch64", [f"web{n}" for n in range(7)])
    assert str(platform) == "Python 3.12 on aarch64 (web0, web1, web2, web3, web4 and 2 more)"
    assert platform.key == "3.12-aarch64"


def test_hosts_of_a_play_are_grouped_into_platforms() -> None:
    """The role names each Python and architecture once, with the full versions that the probe has found."""
    versions = {"web1": "3.12.3", "web2": "3.12.9", "web3": "3.12.3"}
    facts = {
        host: {"ansible_facts": {"app_probe": {"python": "3.12", "arch": "x86_64", "python_version": version}}}
        for host, version in versions.items()
    }
    (row,) = value("release", "_release_platforms", ansible_play_hosts=[*versions], hostvars=facts)
    assert Platform(**row) == Platform("3.12", "x86_64", ["web1", "web2", "web3"], ["3.12.3", "3.12.9"])
