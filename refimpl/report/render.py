"""The report as a page and as a summary. Everything that is not ours is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refimpl.checking.checks import Measurement, Result
from refimpl.errors import printable
from refimpl.markdown import inert
from refimpl.report.changes import BAD, ON_PURPOSE, TITLES
from refimpl.report.columns import Column, moment
from refimpl.report.findings import next_steps
from refimpl.report.model import WORDS, Report, counted
from refimpl.report.plots import number
from refimpl.report.verdict import number_of

LONGEST = 240
"""So many characters of a figure are shown; exact values may be whole arrays."""

BRIEF = 400

FIGURES_SHOWN, OF_A_PASS = 6, 3
"""So many figures of a check are listed, and of one that passed; what does not hold first."""

SIGNS = {
    "passed": "✓", "failed": "✗", "skipped": "–", "xfailed": "≈", "incomplete": "◌",
    "partial": "◌", "absent": "·", "unreadable": "✗",
}  # fmt: skip


def page(report: Report) -> str:
    """One self-contained HTML page: style and script are in it, and it loads nothing."""
    script = _own("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = _templates(autoescape=True).get_template("report.html.j2").render(
        report=report,
        style=Markup(_own("report.css")),
        script=Markup(script),
        environments=list(environments(report.ran)),
        # The page's own script and no other may run, whatever a plugin's text smuggles in.
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
    )  # fmt: skip
    return _compact(text)


def _compact(text: str) -> str:
    """The page without the indentation of its templates, a fifth of it; what is quoted stays."""
    parts = re.split(r"(<pre>.*?</pre>|<script>.*?</script>)", text, flags=re.DOTALL)
    return "".join(
        part if number % 2 else re.sub(r"\n\s+", "\n", part) for number, part in enumerate(parts)
    )


def summary(report: Report) -> str:
    """The same in Markdown, short: for the page of a CI job."""
    return _templates(autoescape=False).get_template("summary.md.j2").render(report=report)


@cache
def _own(name: str) -> str:
    return files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")


@cache
def _templates(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("refimpl.report", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=figure, duration=duration, headline=headline, counts=counted, md=markdown,
        number=number, moment=moment, name=name, of=number_of, steps=next_steps,
        shown=shown_figures, brief=brief,
    )  # fmt: skip
    environment.globals.update(
        SIGNS=SIGNS, WORDS=WORDS, TITLES=TITLES, BAD=BAD, ON_PURPOSE=ON_PURPOSE
    )
    return environment


# --- how single things are written ---------------------------------------------------------------


def figure(value: Any) -> str:
    """A measured value as it is shown: six digits of a float, the beginning of something long."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 0.05:
        return "<0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def name(result: Result) -> str:
    """Example, variant where it is about one, check, and execution where it is not just the CPU."""
    parts = (result.example, result.variant, result.check, result.execution)
    return " · ".join(part for part in parts if part not in ("-", "cpu"))


def headline(result: Result) -> Measurement | None:
    """The one figure to show of a check: one that fails, or else the one nearest to its limit."""
    wrong = [m for m in result.measurements if not m.holds]
    numbers = [m for m in result.measurements if m.unit or m.low is not None or m.high is not None]
    return next(iter([*wrong, *sorted(numbers, key=_tightness), *result.measurements]), None)


def shown_figures(result: Result) -> list[Measurement]:
    """The figures to list below the one that is shown: what does not hold first.

    Statements that hold say nothing beyond that, so they are left out.
    """
    top = headline(result)
    telling = [m for m in result.measurements if m is not top and m.measured is not True]
    most = OF_A_PASS if result.outcome == "passed" else FIGURES_SHOWN
    return sorted(telling, key=lambda m: m.holds)[:most]


def _tightness(measured: Measurement) -> float:
    """How much of its limit a figure leaves; errors over a budget first, by their size."""
    return -float(measured.measured) if measured.unit else 1.0


_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


def brief(text: str) -> str:
    """The beginning of a text that may be long: the rest stands with its check."""
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def markdown(text: object) -> str:
    """A text as it stands, in one line, in Markdown that also takes HTML."""
    line = printable(text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return inert(_MARKDOWN.sub(r"\\\1", line))


# --- the table of environments -------------------------------------------------------------------


def environments(columns: Sequence[Column]) -> Iterator[tuple[str, list[str]]]:
    """Each fact that is known of any environment, and its value in each."""
    for fact, tell in FACTS.items():
        values = [_text(tell(column)) for column in columns]
        if any(values):
            yield fact, values
    packages = {name for c in columns for name in c.environment.get("packages", {})}
    for package in sorted(packages - {"torch"}):
        values = [_text(c.environment.get("packages", {}).get(package)) for c in columns]
        if any(values):
            yield package, values


def _environment(key: str) -> Callable[[Column], Any]:
    return lambda column: column.environment.get(key)


def _header(key: str) -> Callable[[Column], Any]:
    return lambda column: column.header.get(key)


def _workers(column: Column) -> str:
    workers = column.header.get("workers") or {}
    threads = workers.get("threads") or column.environment.get("threads")
    threads = f"{threads} thread{'' if threads == 1 else 's'}"
    if not workers.get("count"):
        return f"none, only the main process, {threads}"
    pinned = f", pinned to GPU {', '.join(workers['gpus'])}" if workers.get("gpus") else ""
    return f"{workers['count']}, {threads} each{pinned}"


def _precision(column: Column) -> str:
    """That checks compute in float32, and what the user had set if that was something else."""
    switches = column.environment.get("precision", {}).items()
    lower = [f"{name} {setting}" for name, setting in switches if setting not in _AS_TORCH_BEGINS]
    return f"IEEE (set before: {', '.join(lower)})" if lower else "IEEE"


_AS_TORCH_BEGINS = ("none", "ieee", "highest", "False")

FACTS: dict[str, Callable[[Column], Any]] = {
    "results": lambda column: ", ".join(run.path.name for run in column.runs),
    "started": _header("started"),
    "took": lambda column: duration(column.seconds) if column.seconds else "",
    "data": _header("tier"),
    "reseed": _header("reseed"),
    "device": _header("device"),
    "devices available": lambda column: ", ".join(column.environment.get("devices", ())),
    "workers": _workers,
    "float32 products": _precision,
    "Python": _environment("python"),
    "torch": lambda column: column.environment.get("packages", {}).get("torch"),
    "CUDA of torch": _environment("cuda"),
    "platform": _environment("platform"),
    "refimpl": _environment("refimpl"),
    "run": _header("run"),
}
"""The rows of the table of environments, before the versions of packages."""


def _text(value: Any) -> str:
    return "" if value is None else str(value)
