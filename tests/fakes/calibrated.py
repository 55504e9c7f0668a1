"""Baselines of fakes, made here and now; ``refimpl calibrate`` makes those of real examples."""

from refimpl.baselines import committed
from refimpl.baselines.calibration import begun, plan
from refimpl.baselines.sweep import train_seeds


def baseline_of(example, variant, seeds=range(1000, 1006)):
    """The baseline of one variant on stand-in data, by these seeds in this order; its path."""
    path = committed.path_of(example, variant, "stand-in")
    with committed.journal(path) as journal:
        for seed in seeds:
            (run,) = train_seeds(variant, "stand-in", [seed])
            if not journal.begun:
                journal.begin(begun(plan(example, variant, "stand-in", 6), run))
            journal.append(run)
        journal.finish()
    return path


def baselines_of(example):
    """A baseline of each variant of an example."""
    return [baseline_of(example, variant) for variant in example.variants]
