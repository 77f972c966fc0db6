"""What a switch does not wait for: recycling and measuring hold the app's lock for long, and can be ended any time."""

from __future__ import annotations

from . import recycle, tune_lease
from .context import Context
from .locks import holder

#: For each holder of the lock its unit, which tidies up by itself.
_UNITS = {recycle.VERB: recycle.unit, tune_lease.VERB: tune_lease.unit}


def switch_first(context: Context) -> None:
    """End what holds the lock and can be ended; going back must not wait for a measurement.

    Recycling goes on by itself later. Whoever still polls a measurement hears that it was ended.
    """
    about = holder(context.config) or {}
    if unit := _UNITS.get(str(about.get("what"))):
        if about["what"] == tune_lease.VERB:
            context.report(f"note: measuring by {about['by']} was ended, as a switch goes first")
        context.systemd.stop(unit(context.config))
