"""The engines that an app may be run with (service_engine), by name: each file of this folder that has an `ENGINE`.

Python 3.10's standard library, and nothing of this bundle: they are on the controller, on hosts and in the image.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from .base import LOOPS, Engine, Process, Start
from .gunicorn import ENGINE as DEFAULT

__all__ = ["DEFAULT", "ENGINES", "LOOPS", "Engine", "Process", "Start", "engine", "load"]


def load(path: Iterable[str], package: str) -> dict[str, Engine]:
    """Return the engines of a package, by their names in order."""
    modules = (importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(path))
    engines = [module.ENGINE for module in modules if hasattr(module, "ENGINE")]
    return {item.name: item for item in sorted(engines, key=lambda item: item.name)}


#: The default comes first, as in messages and tables.
ENGINES = {DEFAULT.name: DEFAULT, **load(__path__, __name__)}


def engine(name: str, setting: str = "service_engine") -> Engine:
    """Return an engine by its name, which this setting has. Raises ValueError with the names that are allowed."""
    if name not in ENGINES:
        raise ValueError(f"{setting} is {name!r}: allowed are {', '.join(ENGINES)}")
    return ENGINES[name]
