"""Reference implementations of documented PyTorch examples, and the suite that checks them.

What authors of plugins need stands here. It is imported when it is first asked for, so that
``import refimpl`` costs neither torch nor NumPy.
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
        Layer,
        ModuleVariant,
        Protocol,
        Sizes,
        Step,
        Variant,
    )
    from refimpl.data import DataSet, Rows, Splits
    from refimpl.hookspecs import hookimpl

__all__ = [
    "CONTRACT",
    "DataSet",
    "Epoch",
    "Erratum",
    "Exact",
    "Example",
    "Execution",
    "Facts",
    "Failure",
    "Figure",
    "Layer",
    "ModuleVariant",
    "Protocol",
    "Rows",
    "Sizes",
    "Splits",
    "Step",
    "Variant",
    "__version__",
    "hookimpl",
]

_ELSEWHERE = {
    "DataSet": "refimpl.data",
    "Rows": "refimpl.data",
    "Splits": "refimpl.data",
    "hookimpl": "refimpl.hookspecs",
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
