"""What ``refimpl report`` does: read results files, build the page, write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refimpl.errors import RefimplError
from refimpl.report.columns import columns
from refimpl.report.model import Report, report
from refimpl.report.render import page, summary
from refimpl.writing import write_text


def write_report(
    results: Sequence[Path],
    output: Path,
    against: Sequence[Path] = (),
    markdown: Path | None = None,
    expected: Sequence[str] = (),
    history: Sequence[Path] = (),
) -> Report:
    """Write the page and, if ``markdown`` is given, the summary; return the report.

    Raises :class:`RefimplError` if there is no results file, or if a file cannot be written.
    """
    for path in (output, markdown):
        if path is not None and not path.absolute().parent.is_dir():
            raise RefimplError(f"cannot write {path}: its folder does not exist")
    found = columns(results, expected)
    if not found:
        where = ", ".join(str(path) for path in results)
        raise RefimplError(f"there is no results file in {where}")
    earlier, past = (columns(paths) if paths else () for paths in (against, history))
    made = report(found, earlier, past)
    write_text(output, page(made))
    if markdown is not None:
        write_text(markdown, summary(made))
    return made
