"""What the tests of the framework share; the fakes are in ``fakes/``."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from refimpl import environment

FAKES = Path(__file__).with_name("fakes")

settings.register_profile(
    "refimpl",
    max_examples=50,
    deadline=None,  # the machine may be busy
    derandomize=True,  # whether a commit passes is not a matter of luck
    database=None,
)
settings.load_profile("refimpl")


@pytest.fixture(autouse=True, scope="module")
def refimpl_is_as_it_was():
    """No module of tests leaves a function of refimpl replaced for those that come after."""
    before = _functions()
    yield
    after = _functions()
    assert [
        name for name, function in before.items() if after.get(name, function) is not function
    ] == []


def _functions():
    return {
        f"{module}.{name}": value
        for module, found in tuple(sys.modules.items())
        if module.partition(".")[0] == "refimpl" and found is not None
        for name, value in tuple(vars(found).items())
        if callable(value)
    }


@pytest.fixture
def emulated(monkeypatch):
    """``fakes/devices.py`` as a module; the libraries it names hold while the test runs."""
    for name in ("libraries", "libraries_of", "device_name"):
        monkeypatch.setattr(environment, name, getattr(environment, name))
    spec = importlib.util.spec_from_file_location("emulated_devices", FAKES / "devices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
