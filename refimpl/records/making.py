"""What belongs into each file of records today."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from refimpl.contract import Example, Variant
from refimpl.data import Tier
from refimpl.records import files, of_data, of_models, of_runs, of_values
from refimpl.records.files import KINDS, Kind
from refimpl.requirements import missing, missing_data

OF_VARIANTS: dict[Kind, Callable[[Variant, Tier], dict[str, Any]]] = {
    "models": of_models.record,
    "runs": of_runs.record,
}
"""What is recorded of each variant, on stand-in data."""


def today(
    examples: Iterable[Example], tier: Tier, kinds: Sequence[Kind] = KINDS
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file of records that these examples have, and its records as they are now."""
    done: set[str] = set()
    for example in examples:
        values = of_values.record(example) if "values" in kinds and tier == "stand-in" else {}
        if values:
            yield files.path_of("values", example.name, example), values
        for kind, record in OF_VARIANTS.items():
            if kind in kinds and tier == "stand-in":
                own = {v.name: record(v, tier) for v in example.variants if _is_run(v)}
                if own:
                    yield files.path_of(kind, example.name, example), own
        for variant in example.variants if "data" in kinds else ():
            data = variant.data
            if data is None or data.stand_in is None or data.name in done:
                continue
            if missing(variant.needs) or missing_data(data, tier):
                continue
            done.add(data.name)
            yield files.path_of("data", data.name, example), {tier: of_data.record(data, tier)}


def _is_run(variant: Variant) -> bool:
    return variant.trains and missing(variant.needs) is None
