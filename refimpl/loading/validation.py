"""What pluggy does not check in a plugin: correct hooks, and examples that keep the contract.

Every function here yields a :class:`Finding` for each thing that is wrong and raises nothing.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import NamedTuple, TypeVar

from packaging.requirements import InvalidRequirement, Requirement

from refimpl import hookspecs
from refimpl.compatibility import refusal
from refimpl.contract import (
    Erratum,
    Exact,
    Example,
    Execution,
    Facts,
    Failure,
    Figure,
    Protocol,
    Variant,
)
from refimpl.loading.fieldtypes import wrong_fields
from refimpl.requirements import NEEDS
from refimpl.seeds import wrong_seed

HOOKS = ("refimpl_examples", "refimpl_executions")
MARK = f"{hookspecs.PROJECT}_impl"
"""The attribute that ``hookimpl`` sets on the functions that it marks."""

_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_EXECUTION = re.compile(r"[a-z0-9]+([-:.][a-z0-9]+)*")
_PARAMETER = re.compile(r"\w+(\.\w+)*")


Thing = TypeVar("Thing")


class Finding(NamedTuple):
    """Something wrong: a stable ``code``, the ``reason``, and a ``hint`` at what to do about it."""

    code: str
    reason: str
    hint: str = ""


# --- hooks ---------------------------------------------------------------------------------------


def check_hooks(plugin: object) -> Iterator[Finding]:
    """Check that a plugin has hooks, each of them known, marked, and without arguments."""
    hooks = 0
    for name in sorted(dir(plugin)):
        value = getattr(plugin, name, None)
        hook = _hook_name(name, value)
        if hook is None:
            continue
        hooks += 1
        yield from _check_hook(name, hook, value)
    if not hooks:
        yield Finding(
            "no-hooks",
            "has no hooks, so it provides nothing",
            "define refimpl_examples() and mark it with @hookimpl",
        )


def _hook_name(name: str, value: object) -> str | None:
    """The hook that this attribute of a plugin is, or looks like; ``None`` if neither."""
    marks = getattr(value, MARK, None)
    if isinstance(marks, dict):
        return str(marks.get("specname") or name)
    if name.startswith("refimpl_") and not isinstance(value, ModuleType):
        return name if callable(value) or name in HOOKS else None
    return None


def _check_hook(name: str, hook: str, value: object) -> Iterator[Finding]:
    if hook not in HOOKS:
        near = difflib.get_close_matches(hook, HOOKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(HOOKS)}"
        yield Finding("unknown-hook", f"{name} is not a hook of refimpl", hint)
    elif not callable(value):
        yield Finding(
            "not-a-function",
            f"{name} is {_a(type(value))}, not a function",
            f"write def {name}(): return ..., and mark it with @hookimpl",
        )
    elif not isinstance(getattr(value, MARK, None), dict):
        yield Finding(
            "unmarked-hook",
            f"{name} looks like a hook but is not marked",
            "put @hookimpl above it (from refimpl import hookimpl)",
        )
    else:
        yield from _check_signature(name, value)


def _check_signature(name: str, function: Callable[..., object]) -> Iterator[Finding]:
    marks = getattr(function, MARK)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield Finding("hook-signature", f"{name} is async", "make it a plain def")
    elif marks.get("wrapper") or marks.get("hookwrapper"):
        yield Finding(
            "hook-signature", f"{name} wraps other hooks", "mark it with a plain @hookimpl"
        )
    else:
        required = ", ".join(_required(function))
        if required:
            yield Finding(
                "hook-signature",
                f"{name} is called without arguments but takes ({required})",
                "remove them",
            )


def _required(function: Callable[..., object]) -> list[str]:
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def check_returned(hook: str, returned: object, kind: type) -> Iterator[Finding]:
    """Check that a hook returned an iterable, and not a single object of ``kind``."""
    hint = f"return a list of {kind.__name__}s"
    if returned is None:
        yield Finding("not-iterable", f"{hook} returned nothing", hint)
    elif isinstance(returned, kind):
        hint = f"put brackets around it: return [{kind.__name__.lower()}]"
        yield Finding("not-iterable", f"{hook} returned one {kind.__name__}, not a list", hint)
    elif isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
        yield Finding("not-iterable", f"{hook} returned {_a(type(returned))}", hint)


def check_item(hook: str, item: object, kind: type) -> Iterator[Finding]:
    """Check that one thing that a hook gave is of ``kind``."""
    if isinstance(item, type) and issubclass(item, kind):
        reason = f"{hook} returned the class {item.__name__} instead of an instance"
        yield Finding("wrong-type", reason, f"call it: {item.__name__}(...)")
    elif not isinstance(item, kind):
        reason = f"{hook} returned {_a(type(item))} where {_a(kind)} is expected"
        yield Finding("wrong-type", reason, f"make it with {kind.__name__}(...)")


def check_given(hook: str, given: Sequence[object], kind: type) -> Iterator[Finding]:
    """Check that a hook gave something: a plugin of which nothing is checked is not in order."""
    if not given:
        yield Finding(
            "gives-nothing",
            f"{hook} returned no {kind.__name__.lower()}, so nothing of it is checked",
            f"return at least one {kind.__name__}",
        )


# --- examples ------------------------------------------------------------------------------------


def check_example(example: Example) -> Iterator[Finding]:
    """Check everything about an example that can be checked without running it."""
    why = refusal(example.contract) if isinstance(example.contract, int) else None
    if why is not None:
        yield Finding("contract", *why)
        return
    wrong = [*check_fields(example)]
    if wrong:
        yield from wrong
        return
    yield from check_example_name(example.name)
    for finding in (*_check_parts(example), *_check_claims(example), *_check_training(example)):
        yield finding._replace(reason=f"{example.name or 'the example'}: {finding.reason}")


def check_example_name(name: str) -> Iterator[Finding]:
    """Check that a name can be an example's."""
    yield from _check_name("the example's name", name, _KEBAB)


def check_fields(contracted: Example | Execution) -> Iterator[Finding]:
    """Find the fields that do not have the type that the contract gives them."""
    wrong = [*wrong_fields(contracted)]
    own = [field for field in wrong if not field.path.startswith("variants[")]
    # Variants have the fields that their example hands down, which would be reported twice.
    name: object = contracted.name
    who = name if isinstance(name, str) and name else f"the {type(contracted).__name__.lower()}"
    for field in own or wrong:
        yield Finding("wrong-type", f"{who}: {field}")


def _check_parts(example: Example) -> Iterator[Finding]:
    """Check the names of the document and of the example's parts."""
    for field in ("title", "document"):
        if not getattr(example, field).strip():
            yield Finding("no-name", f"{field} is empty", "say what the document calls it")
    for variant in example.variants:
        yield from _check_name("a variant's name", variant.name, _KEBAB)
    for field in ("variants", "values", "failures", "errata"):
        names = [part.name for part in getattr(example, field)]
        for name in _twice(names):
            yield Finding(
                "duplicate-name", f"{field} has {name!r} twice", "give each a different name"
            )


def _check_name(what: str, name: str, allowed: re.Pattern[str]) -> Iterator[Finding]:
    if not name:
        yield Finding("bad-name", f"{what} is empty", "give it a name such as 'titanic-dnn'")
    elif not allowed.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "-", _kebab(name)).strip("-")
        hint = f"write it {near!r}" if near else "use letters a to z"
        yield Finding("bad-name", f"{what} {name!r} is not in kebab-case", hint)


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _check_claims(example: Example) -> Iterator[Finding]:
    """Check that the document states something at all, and nothing that contradicts itself."""
    every_facts = [example.facts, *(v.facts for v in example.variants if v.facts is not None)]
    claims = (*example.values, *example.failures, *example.errata)
    if not claims and all(facts == Facts() for facts in every_facts):
        yield Finding(
            "no-facts",
            "states no facts, so there is nothing to check",
            "give it facts, values, failures or errata",
        )
    for facts in _each_once(every_facts):
        yield from _check_facts(facts)
    for variant in example.variants:
        facts, protocol = variant.facts or example.facts, variant.protocol or example.protocol
        if protocol and protocol.report != "epoch" and any(f.step for f in facts.figures):
            reason = f"variant {variant.name!r} states figures at a step and reports the last batch"
            yield Finding("bad-figure", reason, "a figure at a step needs report='epoch'")
    for failure in example.failures:
        yield from _check_failure(failure)
    for erratum in example.errata:
        yield from _check_erratum(erratum)
    yield from _check_needs(example)


def _check_needs(example: Example) -> Iterator[Finding]:
    parts: dict[str, Sequence[Variant | Exact | Failure | Erratum]] = {
        "variant": example.variants,
        "value": example.values,
        "failure": example.failures,
        "erratum": example.errata,
    }
    for kind, named in parts.items():
        for part in named:
            if part.needs is not None and part.needs not in NEEDS:
                reason = f"{kind} {part.name!r} needs {part.needs!r}, which refimpl does not know"
                yield Finding("unknown-need", reason, f"there are: {', '.join(NEEDS)}")


def _check_facts(facts: Facts) -> Iterator[Finding]:
    if facts.parameters is not None and facts.parameters < 0:
        yield Finding("bad-fact", f"parameters={facts.parameters} is below 0")
    if None not in (facts.parameters, facts.trainable) and facts.trainable > facts.parameters:  # type: ignore[operator]
        reason = f"trainable={facts.trainable} is more than parameters={facts.parameters}"
        yield Finding("bad-fact", reason, "trainable parameters are counted among all parameters")
    for figure in facts.figures:
        yield from _check_figure(figure)


def _check_figure(figure: Figure) -> Iterator[Finding]:
    who = f"figure {figure.metric!r}"
    for tier in ("real", "stand_in"):
        limits = getattr(figure, tier)
        if limits is not None and not limits[0] <= limits[1]:
            reason = f"{who} has {tier}={limits}, which contains no number"
            yield Finding("bad-range", reason, "a range is (low, high)")
    if figure.epoch is not None and figure.epoch < 0:
        yield Finding("bad-figure", f"{who} has epoch={figure.epoch}", "epochs count from 1")
    if figure.step is not None and (figure.step < 1 or not figure.epoch):
        reason = f"{who} has step={figure.step} and epoch={figure.epoch}"
        yield Finding("bad-figure", reason, "a step is one of an epoch; both count from 1")
    if figure.digits is not None and figure.documented is None:
        yield Finding("bad-figure", f"{who} has digits but no documented number", "give both")


def _check_failure(failure: Failure) -> Iterator[Finding]:
    who = f"failure {failure.name!r}"
    try:
        re.compile(failure.match)
    except re.error as error:
        reason = f"{who} has match={failure.match!r}, which is not a regular expression: {error}"
        yield Finding("bad-pattern", reason, "write it as for re.search")
    if failure.raises in (Exception, BaseException) and not failure.match:
        yield Finding(
            "any-failure",
            f"{who} accepts any {failure.raises.__name__}, so a typing error would pass",
            "name a more specific exception, or give match=",
        )


def _check_erratum(erratum: Erratum) -> Iterator[Finding]:
    try:
        Requirement(erratum.since)
    except InvalidRequirement:
        reason = (
            f"erratum {erratum.name!r} has since={erratum.since!r}, "
            "which is not a version requirement"
        )
        yield Finding("bad-since", reason, "write it like 'torch>=2.6'")


# --- training ------------------------------------------------------------------------------------


def _check_training(example: Example) -> Iterator[Finding]:
    for variant in example.variants:
        for finding in (*_check_missing(variant), *_check_steps(variant), *_check_mapping(variant)):
            yield finding._replace(reason=f"variant {variant.name!r} {finding.reason}")
    for protocol in _each_once(v.protocol for v in example.variants if v.protocol is not None):
        yield from _check_protocol(protocol)
    yield from _check_ladders(example.variants)


def _check_missing(variant: Variant) -> Iterator[Finding]:
    """Check that a variant has what training and checks need, from itself or its example."""
    for field in ("data", "protocol"):
        if getattr(variant, field) is None:
            yield Finding(
                "missing-field", f"has no {field}", "set it on the variant or on its example"
            )
    yield from _check_data(variant)
    if variant.facts is None or variant.facts.parameters is None:
        hint = "state Facts(parameters=...) for it or for its example"
        yield Finding("missing-fact", "has no parameter count", hint)
    if not variant.has_own_loop:
        missing = [f for f in ("build", "optimizer", "loss") if getattr(variant, f) is None]
        if missing:
            reason = f"has no steps, and no {' or '.join(missing)} for a loop of the framework's"
            hint = f"give it steps=, or {' and '.join(f'{field}=' for field in missing)}"
            yield Finding("missing-field", reason, hint)
    elif variant.start is None and variant.build is None:
        hint = "give it start= or build=, from which other seeds draw their start"
        yield Finding("missing-field", "has no start to draw", hint)
    if hasattr(variant.build, "named_parameters") and not isinstance(variant.build, type):
        made = type(variant.build).__name__
        hint = f"give a function that makes a new module each time, such as build={made}"
        yield Finding("wrong-type", f"has a build that is a module, {made}", hint)
    if said := wrong_seed(variant.seed):
        yield Finding("bad-seed", f"has seed={variant.seed}", said)
    if isinstance(variant.loss, type):
        kind = variant.loss.__name__
        yield Finding("wrong-type", f"has a loss that is a class, {kind}", f"make one: {kind}()")


def _check_data(variant: Variant) -> Iterator[Finding]:
    """Check that a data set has rows or batches, and exemptions their reasons."""
    data = variant.data
    if data is not None and data.stand_in is None and data.batches is None:
        hint = "give it stand_in= (rows), or batches= and length= (a stream)"
        yield Finding("missing-field", f"has data {data.name!r} without rows or batches", hint)
    if data is not None and data.batches is not None and (data.length or 0) < 1:
        reason = f"has a stream {data.name!r} without a length"
        yield Finding("missing-field", reason, "give length=, the number of batches in an epoch")
    for name, reason in variant.exempt.items():
        if not reason.strip():
            hint = "say why it cannot apply"
            yield Finding("bad-exemption", f"is exempt from {name!r} without a reason", hint)


def _check_steps(variant: Variant) -> Iterator[Finding]:
    """Check, as far as possible, that ``steps`` can be called with a problem and yields steps."""
    if variant.steps is None:
        return
    function = inspect.unwrap(variant.steps)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield Finding("not-a-generator", "has async steps", "make it a plain generator")
    elif inspect.isfunction(function) and _returns_nothing(function):
        reason = f"is trained by {function.__name__}(), which yields nothing"
        yield Finding("not-a-generator", reason, "yield Step(loss, ...) after each update")
    elif not _takes_one(variant.steps):
        hint = "its signature is steps(problem)"
        yield Finding("steps-signature", "has steps that cannot be called with a problem", hint)


def _returns_nothing(function: Callable[..., object]) -> bool:
    """Whether a function can give its caller only ``None``: no ``yield``, no ``return value``."""
    if inspect.isgeneratorfunction(function):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return False  # no source to judge by: a lambda in a longer line, or typed at a prompt
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return False
    return not any(isinstance(node, ast.Return) and node.value for node in _own_nodes(definition))


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of the functions defined in it."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        return False
    except ValueError:  # a builtin without a known signature
        return True
    return True


def _check_mapping(variant: Variant) -> Iterator[Finding]:
    """Check that ``names`` maps parameter names to parameter names, each used once."""
    for own, other in variant.names.items():
        if not (_PARAMETER.fullmatch(own) and _PARAMETER.fullmatch(other.removesuffix(".T"))):
            reason = f"maps {own!r} to {other!r}, which are not both names of parameters"
            yield Finding("bad-names", reason, "write it like {'lin.weight': 'weights.T'}")
        elif own.endswith(".T"):
            reason = f"maps {own!r}, but .T belongs to the name it is mapped to"
            yield Finding("bad-names", reason, f"write {{{own[:-2]!r}: {other + '.T'!r}}}")
    for name in _twice(other.removesuffix(".T") for other in variant.names.values()):
        yield Finding("bad-names", f"maps two parameters to {name!r}", "each has its own")


def _check_protocol(protocol: Protocol) -> Iterator[Finding]:
    for field in ("epochs", "batch_size", "valid_batch_size", "stand_in_epochs", "accumulate"):
        value = getattr(protocol, field)
        if value is not None and value < 1:
            yield Finding("bad-protocol", f"protocol has {field}={value}", "it must be 1 or more")
    if protocol.clip is not None and not protocol.clip > 0:
        yield Finding("bad-protocol", f"protocol has clip={protocol.clip}", "it must be above 0")
    if protocol.stop is not None and protocol.stop.patience < 1:
        reason = f"protocol has stop with patience={protocol.stop.patience}"
        yield Finding("bad-protocol", reason, "it must be 1 or more")
    rate = protocol.learning_rate
    if not (math.isfinite(rate) and rate > 0):
        reason = f"protocol has learning_rate={rate}"
        yield Finding("bad-protocol", reason, "it must be a number above 0")


def _check_ladders(variants: Iterable[Variant]) -> Iterator[Finding]:
    rungs = Counter(variant.ladder for variant in variants if variant.ladder is not None)
    for ladder, count in rungs.items():
        if count == 1:
            yield Finding(
                "lonely-ladder",
                f"ladder {ladder!r} has one variant, so it is compared with nothing",
                "use the same ladder name in all its variants, or leave it out",
            )


# --- executions ----------------------------------------------------------------------------------


def check_execution(execution: Execution) -> Iterator[Finding]:
    """Check everything about an execution that can be checked without running it."""
    wrong = [*check_fields(execution)]
    yield from wrong or _check_name("the execution's name", execution.name, _EXECUTION)


# --- helpers -------------------------------------------------------------------------------------


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _each_once(things: Iterable[Thing]) -> list[Thing]:
    return list({id(thing): thing for thing in things}.values())


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"
