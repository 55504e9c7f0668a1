"""Reference implementations of documented PyTorch examples, and the suite that checks them.

Everything that authors of plugins need is here. Each name is imported when it is first used, so
that ``import refimpl`` loads neither torch nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refimpl._version import __version__

if TYPE_CHECKING:
    from refimpl.contract import (
        CONTRACT,
        Epoch,
        Erratum,
        Exact,
        Example,
        Execution,
        Facts,
        Failure,
        Figure,
        Final,
        Layer,
        ModuleVariant,
        Protocol,
        Schedule,
        Sizes,
        Step,
        Stop,
        Variant,
    )
    from refimpl.data import DataSet, Rows, Splits, cache_root, philox
    from refimpl.errors import DataError, MissingExtraError
    from refimpl.hookspecs import hookimpl
    from refimpl.training.keras_like import Model
    from refimpl.training.loop import steps_of
    from refimpl.training.problem import Problem, pose
    from refimpl.training.starts import default_values, torch_default

__all__ = [
    "CONTRACT",
    "DataError",
    "DataSet",
    "Epoch",
    "Erratum",
    "Exact",
    "Example",
    "Execution",
    "Facts",
    "Failure",
    "Figure",
    "Final",
    "Layer",
    "MissingExtraError",
    "Model",
    "ModuleVariant",
    "Problem",
    "Protocol",
    "Rows",
    "Schedule",
    "Sizes",
    "Splits",
    "Step",
    "Stop",
    "Variant",
    "__version__",
    "cache_root",
    "default_values",
    "hookimpl",
    "philox",
    "pose",
    "steps_of",
    "torch_default",
]

_ELSEWHERE = {
    "DataError": "refimpl.errors",
    "DataSet": "refimpl.data",
    "MissingExtraError": "refimpl.errors",
    "Model": "refimpl.training.keras_like",
    "Problem": "refimpl.training.problem",
    "Rows": "refimpl.data",
    "Splits": "refimpl.data",
    "cache_root": "refimpl.data",
    "default_values": "refimpl.training.starts",
    "hookimpl": "refimpl.hookspecs",
    "philox": "refimpl.data",
    "pose": "refimpl.training.problem",
    "steps_of": "refimpl.training.loop",
    "torch_default": "refimpl.training.starts",
}

if not TYPE_CHECKING:  # a type checker would take any name at all from a module's __getattr__

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_ELSEWHERE.get(name, "refimpl.contract")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
