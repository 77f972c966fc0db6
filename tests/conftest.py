"""What all tests here share: how long Hypothesis may take."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# A machine that runs other stages beside these says nothing with its times. What an example may cost is bounded by the
# number of examples.
settings.register_profile("fleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Where only is asked whether anything fails (script/mutants.py), the smallest example of it is not looked for.
settings.register_profile("mutants", settings.get_profile("fleet"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("FLEET_HYPOTHESIS_PROFILE", "fleet"))
