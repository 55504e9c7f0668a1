"""What the plugins contain, read from their source without running it.

So ``refimpl list`` needs no torch. An example whose names are not literals in the source cannot be
read; its :class:`Entry` says so, and whoever needs it has to import the plugin.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refimpl.compatibility import NEWEST, refusal
from refimpl.errors import one_line
from refimpl.loading.discovery import Source, find_spec, named, sources
from refimpl.loading.literals import Literals, arguments, hides_some, parameters, returned
from refimpl.loading.refusal import Refusal

POSITIONAL = ("name", "title", "document", "section", "variants")
"""The first fields of an Example, which a call may pass by position."""

VARIANT_CLASSES = ("Variant", "ModuleVariant")
EXAMPLES_HOOK = "refimpl_examples"
EXECUTIONS_HOOK = "refimpl_executions"
HOW_TO_NAME = "name a .py file, a folder with an __init__.py, or a module as it is imported"


@dataclass(frozen=True)
class Entry:
    """An example as its plugin's source has it.

    A field is ``None`` if the source does not give it as a literal; then :attr:`complete` is false
    and only an import shows it. ``problem`` is why the plugin, or this example of it, will be
    refused, as far as that can be seen without running it.
    """

    name: str | None
    title: str | None
    document: str | None
    section: str | None
    variants: tuple[str, ...] | None
    contract: int | None
    origin: str
    plugin: str
    line: int | None = None
    problem: Refusal | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it could be read."""
        read = (self.name, self.title, self.document, self.section, self.variants, self.contract)
        return self.problem is None and None not in read


@dataclass(frozen=True)
class Page:
    """What the source of one plugin shows: its examples, and whether it provides executions."""

    source: Source
    entries: tuple[Entry, ...]
    gives_executions: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its examples, as far as they can be read."""
        return tuple(entry.name for entry in self.entries if entry.name is not None)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why it must not be run: its source cannot be, or its contract is unknown here."""
        return tuple(entry.problem for entry in self.entries if entry.problem is not None)

    def may_hold(self, names: Collection[str]) -> bool:
        """Whether importing it may provide one of these examples, or an execution."""
        return self.gives_executions or any(
            entry.name is None or entry.name in names for entry in self.entries
        )

    def line(self, name: str) -> int | None:
        """The line on which the example with that name is created."""
        return next((entry.line for entry in self.entries if entry.name == name), None)


def entries(plugins: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Every example of every plugin, in the order in which they are loaded; none is run.

    ``plugins`` are additional ones: paths of files or folders, or dotted modules.
    """
    found: list[Entry] = []
    owners: dict[str, Source] = {}
    for page in pages(plugins):
        for entry in page.entries:
            name = entry.name
            if name in owners and entry.problem is None:
                problem = duplicate(page.source, name, owners[name], entry.line)
                found.append(replace(entry, problem=problem))
                continue
            if name is not None and entry.problem is None:
                owners[name] = page.source
            found.append(entry)
    return tuple(found)


def not_found(plugins: Sequence[str]) -> list[str]:
    """Which of ``plugins`` do not exist, and how to name one; none of them is read."""
    lacking = []
    for plugin in plugins:
        source = named(plugin)
        if source.standalone:
            there = source.path is not None and source.path.is_file()
        else:
            there = find_spec(source.module) is not None
        if not there:
            file = Path(f"{plugin}.py")
            hint = f"did you mean the file {file}?" if file.is_file() else HOW_TO_NAME
            lacking.append(f"there is no plugin {plugin}; {hint}")
    return lacking


def pages(plugins: Sequence[str] = ()) -> tuple[Page, ...]:
    """The page of every plugin, in the order in which they are loaded."""
    return tuple(read(source) for source in sources(plugins))


def read(source: Source) -> Page:
    """The page of one plugin. A fault in its source becomes an entry, never an exception."""
    if source.path is None:
        return Page(source, (_unread(source),), gives_executions=True)
    try:
        text = source.path.read_bytes()
        module = Literals(text)
        found = tuple(_entry(source, module, call) for call in module.calls("Example"))
    except Exception as error:
        return Page(source, (replace(_unread(source), problem=_unreadable(source, error)),))
    gives_executions = EXECUTIONS_HOOK.encode() in text
    if not found and (EXAMPLES_HOOK.encode() in text or not gives_executions):
        found = (_unread(source),)
    return Page(source, found, gives_executions)


def duplicate(
    source: Source, name: str, owner: Source, line: int | None = None, kind: str = "example"
) -> Refusal:
    """The problem of an example of ``source`` whose name is already taken by one of ``owner``."""
    return Refusal(
        origin=source.origin,
        plugin=source.plugin,
        code=f"duplicate-{kind}",
        reason=f"there is an {kind} {name!r} already, from {owner.origin}",
        hint="give this one a different name",
        file=source.path,
        line=line,
    )


def _unreadable(source: Source, error: Exception) -> Refusal:
    line = None
    if isinstance(error, SyntaxError):
        code, reason, hint, line = "syntax-error", f"{error.msg}", "correct the line", error.lineno
    elif isinstance(error, OSError):
        code, reason, hint = "not-found", f"{error.strerror}: {source.path}", HOW_TO_NAME
    else:
        code, reason, hint = "unreadable", str(error), "is it a Python file?"
    reason = one_line(f"{type(error).__name__}: {reason}")
    return Refusal(source.origin, source.plugin, code, reason, hint, source.path, line)


def _unread(source: Source) -> Entry:
    return Entry(None, None, None, None, None, None, source.origin, source.plugin)


# --- one call of Example -------------------------------------------------------------------------


def _entry(source: Source, module: Literals, call: ast.Call) -> Entry:
    given = arguments(call, POSITIONAL)
    entry = Entry(
        name=module.text(given.get("name")),
        title=module.text(given.get("title")),
        document=module.text(given.get("document")),
        section=module.text(given.get("section")),
        variants=_variants(module, given.get("variants")),
        contract=module.number(given.get("contract")),
        origin=source.origin,
        plugin=source.plugin,
        line=call.lineno,
    )
    if not hides_some(call):
        entry = replace(
            entry,
            variants=entry.variants if "variants" in given else (),
            contract=entry.contract if "contract" in given else NEWEST,
        )
    return replace(entry, problem=_contract_problem(source, entry))


def _variants(module: Literals, node: ast.expr | None) -> tuple[str, ...] | None:
    """The names of a tuple of variants; ``None`` unless every one of them can be read."""
    items = module.items(node)
    if items is None:
        return None
    names = [_variant(module, item) for item in items]
    known = tuple(name for name in names if name is not None)
    return known if len(known) == len(names) else None


def _variant(module: Literals, node: ast.expr) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    called = module.called(node)
    if called in VARIANT_CLASSES:
        return module.text(arguments(node, ("name",)).get("name"))
    helper = module.function(called)
    return _made_by(module, helper, node) if helper else None


def _made_by(module: Literals, helper: ast.FunctionDef, call: ast.Call) -> str | None:
    """The name of the variant that a function of the same module makes when called like this."""
    made = returned(helper)
    if not isinstance(made, ast.Call) or module.called(made) not in VARIANT_CLASSES:
        return None
    name = arguments(made, ("name",)).get("name")
    if isinstance(name, ast.Name) and name.id in parameters(helper):
        name = arguments(call, parameters(helper)).get(name.id)
    return module.text(name)


def _contract_problem(source: Source, entry: Entry) -> Refusal | None:
    why = refusal(entry.contract) if entry.contract is not None else None
    if why is None:
        return None
    return Refusal(
        source.origin,
        source.plugin,
        "contract",
        *why,
        file=source.path,
        line=entry.line,
        examples=(entry.name,) if entry.name else (),
    )
