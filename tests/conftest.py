"""What all tests here share: how long Hypothesis may take."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that runs other stages beside these says nothing with its times. What an example may cost is bounded by the
# number of examples.
settings.register_profile("fleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleet")
