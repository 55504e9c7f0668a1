"""The warnings of a check are kept: each once, with its category and where it is from."""

import warnings

import pytest

from refimpl.checking.warned import Warned, collected


def test_a_warning_is_kept_once_however_often_it_is_raised():
    with collected() as found:
        for _ in range(3):
            warnings.warn("it is\n  slow", UserWarning, stacklevel=1)
    assert [(each.category, each.text) for each in found] == [("UserWarning", "it is slow")]
    assert found[0].origin == "tests/test_warned.py"


def test_a_deprecation_is_kept_though_python_leaves_it_out_by_default():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with collected() as found:
            warnings.warn("it goes", DeprecationWarning, stacklevel=1)
    assert [each.category for each in found] == ["DeprecationWarning"]


def test_what_a_plugin_silences_stays_silent():
    with collected() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn("known", FutureWarning, stacklevel=1)
    assert found == []


def test_whoever_wants_errors_gets_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning), collected():
            warnings.warn("it goes", DeprecationWarning, stacklevel=1)


def test_a_file_is_named_from_its_package_on():
    with collected() as found:
        warnings.warn_explicit(
            "x", UserWarning, "/home/me/lib/python3.12/site-packages/torch/a.py", 3
        )
    assert found == [Warned("UserWarning", "torch/a.py", "x")]
