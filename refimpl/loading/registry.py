"""Loads each plugin by itself and keeps what is in order.

A plugin that is broken in any way becomes a :class:`Refusal` with its origin and reason;
the others are not affected.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import pluggy

from refimpl import hookspecs, process_state
from refimpl.composition import (
    CPU,
    RENAMED,
    CompositionError,
    compose,
    is_device,
    on_device,
    parts_of,
)
from refimpl.contract import Example, Execution
from refimpl.errors import UnknownNameError
from refimpl.loading import validation
from refimpl.loading.catalogue import Page, duplicate, entries, pages
from refimpl.loading.discovery import Source
from refimpl.loading.plugin_error import explain
from refimpl.loading.refusal import Refusal
from refimpl.loading.validation import Finding
from refimpl.names import unknown

Kind = TypeVar("Kind", Example, Execution)

UNSTATED = {"no-facts", "missing-fact"}
"""The findings on an example whose only fault is that it does not state its facts yet."""


@dataclass(frozen=True)
class Registered(Generic[Kind]):
    """An example or execution that is in order, and the plugin that it came from."""

    value: Kind
    source: Source

    @property
    def origin(self) -> str:
        """Where its plugin came from, in words."""
        return self.source.origin


@dataclass(frozen=True)
class Registry:
    """What the plugins gave, by name, in the order in which they gave it; and their problems.

    ``unstated`` are examples that were refused only because they do not state their facts.
    """

    examples: dict[str, Registered[Example]] = field(default_factory=dict)
    executions: dict[str, Registered[Execution]] = field(default_factory=dict)
    problems: tuple[Refusal, ...] = ()
    unstated: dict[str, Registered[Example]] = field(default_factory=dict)

    def example(self, name: str) -> Example:
        """The example of that name.

        Raises :class:`UnknownNameError` with the nearest match and the plugins that could not be
        read, or with the reason why the example was refused.
        """
        if name in self.examples:
            return self.examples[name].value
        raise self._missing("example", name, self.examples)

    def chosen(self, names: Iterable[str]) -> list[Example]:
        """The examples with these names, each once, or all if no name is given; raises as above."""
        return [self.example(name) for name in dict.fromkeys(names) or sorted(self.examples)]

    def execution(self, name: str, device: str = "cpu") -> Execution:
        """The execution that is composed by that name, on ``device`` unless it names its own.

        A part may be registered, or be torch's name for a device. Raises as :meth:`example` does,
        and :class:`~refimpl.composition.CompositionError` if its parts cannot be composed.
        """
        named = parts_of(name)
        parts = [self._part(part, name) for part in named]
        made = compose(parts, device)
        if device != CPU.device and made.device != device:
            raise CompositionError(
                f"--device {device} and execution {name} both set the device; name it once"
            )
        return made

    def _part(self, name: str, asked: str) -> Execution:
        if name in self.executions:
            return self.executions[name].value
        if name and is_device(name):
            return on_device(name)
        if name == asked:
            raise self._missing("execution", name, [*self.executions, *RENAMED])
        error = self._missing("execution", name, self.executions)
        raise UnknownNameError(f"{asked}: {error}")

    def _missing(self, what: str, name: str, known: Collection[str]) -> UnknownNameError:
        for problem in self.problems:
            if what == "example" and name in problem.examples:
                return UnknownNameError(f"example {name!r} was refused: {problem}")
        error = unknown(f"there is no {what} {name!r}", name, known)
        unread = [str(problem) for problem in self.problems if not problem.examples]
        if unread:
            return UnknownNameError(
                f"{error}; it may be in a plugin that could not be read: {'; '.join(unread)}"
            )
        return error


def load(plugins: Sequence[str] = (), *, only: Collection[str] | None = None) -> Registry:
    """Import the plugins and register what they give.

    ``plugins`` adds some: paths of files or folders, or dotted module names. ``only`` names the
    examples that are wanted: plugins whose source shows that they give none of them are not
    imported, unless a name is found in no source. Raises nothing but ``KeyboardInterrupt``.
    """
    loader = _Loader()
    for page in _wanted(pages(plugins), only):
        loader.add(page)
    return Registry(loader.examples, loader.executions, tuple(loader.problems), loader.unstated)


def _wanted(found: Sequence[Page], only: Collection[str] | None) -> list[Page]:
    known = {name for page in found for name in page.names}
    if only is None or not known.issuperset(only):
        return list(found)
    return [page for page in found if page.may_hold(only)]


class _RefusedError(Exception):
    """The plugin is refused before it has given everything."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings


class _Loader:
    """What the plugins gave so far; pluggy's manager holds those whose hooks could be called."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.examples: dict[str, Registered[Example]] = {}
        self.executions: dict[str, Registered[Execution]] = {}
        self.unstated: dict[str, Registered[Example]] = {}
        self.problems: list[Refusal] = []

    def add(self, page: Page) -> None:
        """Load one plugin; whatever it raises becomes a problem of that plugin."""
        if page.refusals:
            self.problems += (replace(p, examples=page.names) for p in page.refusals)
            return
        plugin: object = None
        try:
            with process_state.kept() as changes:
                plugin = _import(page.source)
                _demand(validation.check_hooks(plugin))
                self.manager.register(plugin, f"{page.source.module}:{page.source.attribute}")
                examples = self._ask(plugin, "refimpl_examples", Example)
                executions = self._ask(plugin, "refimpl_executions", Execution)
            _demand(_leaves_as_it_found(changes))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Also SystemExit and pytest's own outcomes: none of them may end the whole run.
            self._blame(page, error, "import-error" if plugin is None else "hook-error")
            self._forget(plugin)
            return
        for example in examples:
            self._keep(page, example, self.examples, validation.check_example)
        for execution in executions:
            self._keep(page, execution, self.executions, validation.check_execution)
        self._miss(page, examples)

    def _ask(self, plugin: object, hook: str, kind: type[Kind]) -> list[Kind]:
        """Everything that this plugin alone gives through this hook."""
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        caller = self.manager.subset_hook_caller(hook, others)
        if all(implementation.plugin is not plugin for implementation in caller.get_hookimpls()):
            return []
        given: list[Kind] = []
        for returned in caller() or [None]:  # pluggy drops a None
            _demand(validation.check_returned(hook, returned, kind))
            given += returned
        _demand(f for item in given for f in validation.check_item(hook, item, kind))
        _demand(validation.check_given(hook, given, kind))
        return given

    def _miss(self, page: Page, examples: Sequence[Example]) -> None:
        """Refuse each example that the plugin's source makes and its hook leaves out.

        Such an example is listed, and without this nobody would see that it is not checked.
        """
        given: set[str] = set()
        for example in examples:
            with suppress(Exception):  # one without a usable name is refused for that
                given.add(example.name)
        for entry in page.entries:
            if entry.name is not None and entry.name not in given:
                finding = Finding(
                    "not-given",
                    f"{entry.name} is made here, and refimpl_examples does not return it, "
                    "so it is not checked",
                    "return it, or take it out",
                )
                self._refuse(page, [finding], page.source.path, entry.line, (entry.name,))

    def _keep(
        self,
        page: Page,
        given: Kind,
        kept: dict[str, Registered[Kind]],
        check: Callable[[Kind], Iterator[Finding]],
    ) -> None:
        """Register one example or execution if it is in order and its name is free."""
        try:
            findings = list(check(given))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an object that raises when it is looked at
            self._blame(page, error, "unreadable")
            return
        if isinstance(given, Example):
            _settle(given, page.source)
        name, line = given.name, page.line(given.name)
        if findings:
            named = isinstance(given, Example) and isinstance(name, str)
            missing = (name,) if named else ()
            self._refuse(page, findings, page.source.path, line, missing)
            if isinstance(given, Example) and {f.code for f in findings} <= UNSTATED:
                self.unstated[name] = Registered(given, page.source)
        elif name in kept:
            kind = "example" if isinstance(given, Example) else "execution"
            self.problems.append(duplicate(page.source, name, kept[name].source, line, kind))
        else:
            kept[name] = Registered(given, page.source)

    def _blame(self, page: Page, error: BaseException, code: str) -> None:
        if isinstance(error, _RefusedError):
            self._refuse(page, error.findings)
            return
        findings, file, line = explain(error, page.source, code)
        trace = "".join(traceback.format_exception(error))
        self._refuse(page, findings, file, line, trace=trace)

    def _refuse(
        self,
        page: Page,
        findings: list[Finding],
        file: Path | None = None,
        line: int | None = None,
        examples: tuple[str, ...] | None = None,
        trace: str = "",
    ) -> None:
        source = page.source
        missing = page.names if examples is None else examples
        for code, reason, hint in findings:
            problem = Refusal(
                source.origin, source.plugin, code, reason, hint, file, line, missing, trace
            )
            self.problems.append(problem)

    def _forget(self, plugin: object) -> None:
        """Remove a plugin from pluggy's manager; pluggy up to 1.6 keeps one that failed."""
        if plugin is not None and self.manager.is_registered(plugin):
            self.manager.unregister(plugin)


def _demand(findings: Iterable[Finding]) -> None:
    wrong = list(findings)
    if wrong:
        raise _RefusedError(wrong)


def _leaves_as_it_found(changes: process_state.Changes) -> Iterator[Finding]:
    if changes.found:
        yield Finding(
            "changes-state",
            f"loading it changes {changes} for the whole process",
            "set it inside the functions that need it, and put it back there",
        )


BASELINES = "baselines"
"""The folder beside a plugin in which the baselines of its examples are."""


def _settle(example: Example, source: Source) -> None:
    """Give an example from outside refimpl its folder of baselines: beside its plugin."""
    outside = source.standalone or not f"{source.module}.".startswith("refimpl.")
    if outside and example.baselines is None:
        home = source.path or Path(getattr(sys.modules.get(source.module), "__file__", None) or "")
        # The same object, filled in, so that an author who has it in hand finds it registered.
        object.__setattr__(example, "baselines", home.parent.resolve() / BASELINES)


# --- import --------------------------------------------------------------------------------------


def _import(source: Source) -> object:
    if source.standalone and source.path is not None:
        module = _import_file(source.module, source.path)
    else:
        module = import_module(source.module)
    return attrgetter(source.attribute)(module) if source.attribute else module


def _import_file(name: str, path: Path) -> ModuleType:
    """The module of a file outside any package; as usual, imported only once in a process."""
    if name in sys.modules:
        return sys.modules[name]
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# --- the plugin of one example -------------------------------------------------------------------


def load_for(example: Example | str, plugins: Sequence[str] = ()) -> Registry:
    """The registry with the plugin of one example and the executions.

    An object is registered as it is, in place of the example registered by its name.
    """
    name = example if isinstance(example, str) else example.name
    known = {entry.name for entry in entries(plugins)}
    if isinstance(example, str):
        return load(plugins, only=[name])
    return _with(load(plugins, only=[name] if name in known else []), example)


def _with(loaded: Registry, example: Example) -> Registry:
    """``loaded`` with this very object, which need not be the example registered by its name."""
    examples, name = dict(loaded.examples), example.name
    there = examples.pop(name, None)
    if there is not None and there.value is example:
        return loaded
    source = there.source if there else Source(name, "an object", "")
    problems = tuple(
        Refusal(source.origin, source.plugin, code, reason, hint, examples=(name,))
        for code, reason, hint in validation.check_example(example)
    )
    if not problems:
        examples[name] = Registered(example, source)
    return replace(loaded, examples=examples, problems=(*loaded.problems, *problems))
