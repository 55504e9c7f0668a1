"""Wires the suite to pytest for this checkout; options live in ``refimpl.runner.pytest_plugin``."""

from importlib.util import find_spec

import pytest

if find_spec("refimpl.conformance") is None:
    raise pytest.UsageError("refimpl is not installed here; run: python -m pip install -e .")
