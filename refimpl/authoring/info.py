"""Describes an example: what its document states, and what its live models contain."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from refimpl.contract import Example, Facts, Variant
from refimpl.data import Tier
from refimpl.requirements import missing, missing_data
from refimpl.training.live_model import FirstStep, first_step, live_summary
from refimpl.whereabouts import unwrapped


@dataclass(frozen=True)
class Live:
    """One variant, measured. ``skipped`` says why it could not be."""

    name: str
    summary: str
    ladder: str | None
    protocol: dict[str, Any]
    skipped: str = ""
    parameters: int | None = None
    trainable: int | None = None
    tensors: dict[str, list[int]] = field(default_factory=dict)
    state_dict: list[str] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    sizes: dict[str, float] = field(default_factory=dict)
    documented: dict[str, Any] = field(default_factory=dict)


def measure(variant: Variant, tier: Tier = "stand-in") -> Live:
    """Make the variant's first step and tabulate its live model."""
    head: dict[str, Any] = {
        "name": variant.name,
        "summary": summary_of(variant),
        "ladder": variant.ladder,
        "protocol": asdict(variant.protocol) if variant.protocol else {},
        "documented": documented(variant.facts or Facts()),
    }
    lacking = missing(variant.needs) or (variant.data and missing_data(variant.data, tier))
    if lacking:
        return Live(**head, skipped=lacking)
    found = first_step(variant, tier)
    return Live(**head, **_model(found), **_tables(variant, tier, found))


def _model(found: FirstStep) -> dict[str, Any]:
    return {
        "parameters": found.parameter_count,
        "trainable": found.trainable_count,
        "tensors": {name: list(p.shape) for name, p in found.parameters.items()},
        "state_dict": list(found.state_dict_keys),
        "output": list(found.output_shape) if found.step.output is not None else [],
    }


def _tables(variant: Variant, tier: Tier, found: FirstStep) -> dict[str, Any]:
    if found.step.module is None:
        return {}
    summary = live_summary(variant, tier)
    return {
        "layers": [asdict(layer) for layer in summary.layers],
        "sizes": {name: round(value, 6) for name, value in asdict(summary.sizes).items()},
    }


def documented(facts: Facts) -> dict[str, Any]:
    """What a document states, without the facts that it leaves open."""
    return {name: value for name, value in asdict(facts).items() if value not in (None, ())}


def summary_of(variant: Variant) -> str:
    """The variant's own summary, else the first docstring line of its loop or model."""
    if variant.summary:
        return variant.summary
    made = unwrapped(variant.steps or variant.build)
    return (getattr(made, "__doc__", None) or "").strip().partition("\n")[0]


def describe(
    example: Example, origin: str, tier: Tier = "stand-in", only: str | None = None
) -> dict[str, Any]:
    """An example as plain data, its variants measured; the first variant's model at the top."""
    chosen = [example.variant(only)] if only else list(example.variants)
    variants = [asdict(measure(variant, tier)) for variant in chosen]
    description: dict[str, Any] = {
        "name": example.name,
        "title": example.title,
        "document": example.document,
        "section": example.section,
        "origin": origin,
        "contract": example.contract,
        "data": example.data.name if example.data else None,
    }
    if variants:
        of_model = ("parameters", "trainable", "layers", "sizes", "state_dict", "output")
        description.update({name: variants[0][name] for name in of_model})
    return {
        **description,
        "variants": variants,
        "values": [{"name": v.name, "expected": v.expected} for v in example.values],
        "failures": [f.name for f in example.failures],
        "errata": [{"name": e.name, "says": e.says, "today": e.today, "since": e.since}
                   for e in example.errata],
    }  # fmt: skip
