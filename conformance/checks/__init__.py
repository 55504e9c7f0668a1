"""The checks, by subject, from stated facts to convergence."""

from __future__ import annotations

from refimpl.checking.checks import Check
from refimpl.conformance.checks import (
    agreement,
    convergence,
    dropout,
    ends,
    evaluation,
    facts,
    gradients,
    kernels,
    parity,
    reading,
    repetition,
    starts,
    updates,
)

ALL: list[Check] = [
    facts.parameter_count,
    facts.layer_table,
    facts.state_dict_keys,
    facts.summary_sizes,
    facts.output_shape,
    facts.exact_values,
    facts.documented_failures,
    facts.errata,
    starts.starts_as_torch_does,
    ends.right_at_the_ends,
    gradients.gradient_is_the_slope,
    gradients.every_parameter_learns,
    updates.updates_as_stated,
    dropout.dropout_at_its_rate,
    parity.golden_trajectory,
    agreement.ladder_in_float64,
    repetition.same_seed_same_bits,
    repetition.seed_decides_everything,
    repetition.checkpoint_predicts_the_same,
    repetition.resumed_run_is_the_same,
    reading.reads_its_batches,
    agreement.ladder_in_float32,
    kernels.each_kernel_is_right,
    kernels.each_layer_is_right,
    dropout.dropout_keeps_its_mask,
    parity.shards_make_the_batch,
    parity.same_on_every_execution,
    convergence.reaches_documented_figures,
    convergence.stays_in_calibrated_band,
    evaluation.predicts_as_its_oracle,
]
"""Every check of the suite, cheapest first."""
