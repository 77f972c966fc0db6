"""What all tests here share: how long Hypothesis may take; and no message is a traceback of the bundle's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator

import pytest
from fleettracebacks import assert_no_own_traceback, checked
from hypothesis import HealthCheck, Phase, settings

# A machine that runs other stages beside these says nothing with its times. What an example may cost is bounded by the
# number of examples.
settings.register_profile("fleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Where only is asked whether anything fails (script/mutants.py), the smallest example of it is not looked for.
settings.register_profile("mutants", settings.get_profile("fleet"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("FLEET_HYPOTHESIS_PROFILE", "fleet"))


@pytest.fixture(autouse=True, scope="session")
def no_own_tracebacks() -> Iterator[None]:
    """Look at whatever a program prints that a test calls, playbooks and a host's command among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", checked(subprocess.run))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at what the code printed in the test's own process."""
    report = yield
    try:
        if report.passed and report.when == "call":
            assert_no_own_traceback(report.capstdout, report.capstderr)
    except AssertionError as error:
        report.outcome, report.longrepr = "failed", str(error)
    return report
