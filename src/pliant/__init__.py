"""One set of weights, many sub-networks: adaptive networks for PyTorch.

Everything a user needs is a name of this package. Names are resolved at first use, so that ``import pliant``
costs nothing and loads no library.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pliant.adapt import adapt_
    from pliant.checkpoint import load, save
    from pliant.core.plan import Plan, Term
    from pliant.core.subnet import SubNet
    from pliant.create import create_model
    from pliant.data import load_data
    from pliant.depth.config import Depth
    from pliant.exits.config import Exits
    from pliant.export import export
    from pliant.extract import extract
    from pliant.measure import measure, measure_file
    from pliant.measure.gates import budget_gate_
    from pliant.measure.table import Table
    from pliant.policy.confidence import ConfidencePolicy
    from pliant.policy.governor import Governor
    from pliant.policy.runner import predict
    from pliant.publish import pack, push
    from pliant.recalibrate import recalibrate_, recalibrated
    from pliant.train.engine import train
    from pliant.train.gates import GateObjective
    from pliant.train.objective import Objective
    from pliant.train.recipe import Recipe
    from pliant.width.config import Gate, Width

    __version__: str

__all__ = [
    "ConfidencePolicy",
    "Depth",
    "Exits",
    "Gate",
    "GateObjective",
    "Governor",
    "Objective",
    "Plan",
    "Recipe",
    "SubNet",
    "Table",
    "Term",
    "Width",
    "adapt_",
    "budget_gate_",
    "create_model",
    "export",
    "extract",
    "load",
    "load_data",
    "measure",
    "measure_file",
    "pack",
    "predict",
    "push",
    "recalibrate_",
    "recalibrated",
    "save",
    "train",
]

_HOMES = {
    "ConfidencePolicy": "pliant.policy.confidence",
    "Depth": "pliant.depth.config",
    "Exits": "pliant.exits.config",
    "Gate": "pliant.width.config",
    "GateObjective": "pliant.train.gates",
    "Governor": "pliant.policy.governor",
    "Objective": "pliant.train.objective",
    "Plan": "pliant.core.plan",
    "Recipe": "pliant.train.recipe",
    "SubNet": "pliant.core.subnet",
    "Table": "pliant.measure.table",
    "Term": "pliant.core.plan",
    "Width": "pliant.width.config",
    "adapt_": "pliant.adapt",
    "budget_gate_": "pliant.measure.gates",
    "create_model": "pliant.create",
    "export": "pliant.export",
    "extract": "pliant.extract",
    "load": "pliant.checkpoint",
    "load_data": "pliant.data",
    "measure": "pliant.measure",
    "measure_file": "pliant.measure",
    "pack": "pliant.publish",
    "predict": "pliant.policy.runner",
    "push": "pliant.publish",
    "recalibrate_": "pliant.recalibrate",
    "recalibrated": "pliant.recalibrate",
    "save": "pliant.checkpoint",
    "train": "pliant.train.engine",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "plans":  # a module, named by messages
        value = import_module("pliant.plans")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'pliant' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pliant")
    except PackageNotFoundError:  # a source tree that was put on the path instead of being installed
        return "0+unknown"


class _Package(ModuleType):
    """Keeps public functions in sight of their rooms.

    ``measure``, ``export``, ``train`` and ``extract`` are both functions of this package and modules inside it.
    Python binds a module to its package when it is first imported, which would hide the function of that name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
