"""Errors written for the person who reads them; the command line prints each as one line."""

from __future__ import annotations


class RefimplError(Exception):
    """What went wrong, where, what was expected and what to do, in one line."""


class DataError(RefimplError):
    """A data file is missing, damaged or of the wrong shape; the message names the file."""


class DataMissingError(DataError):
    """The real data set is not in the expected place; no file is damaged."""


class MissingExtraError(RefimplError):
    """An optional dependency is not installed, or does not load with this torch."""


class UnknownNameError(RefimplError):
    """No example, variant, execution or data set has that name."""


class ContractError(RefimplError):
    """A plugin or variant violates the contract."""


class CheckpointError(RefimplError):
    """A checkpoint is damaged or belongs to something else."""


def printable(text: object) -> str:
    """``text`` on one line, with whatever a terminal might obey or hide written as an escape.

    For names and messages from outside: control characters would move the cursor or hide text, and
    others change the direction in which it is read.
    """
    return escaped(one_line(text))


def escaped(text: str) -> str:
    """The same for a text of several lines, whose white space stays as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")


def one_line(text: object) -> str:
    """``text`` with each run of white space replaced by one space."""
    return " ".join(str(text).split())
