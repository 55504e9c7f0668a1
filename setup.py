"""Finds the mapped packages; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

MOVED = ("plugins", "conformance", "fixtures")
found = find_packages(include=["refimpl", "refimpl.*", *(p for m in MOVED for p in (m, m + ".*"))])
setup(packages=[p if p.split(".")[0] == "refimpl" else "refimpl." + p for p in found])
