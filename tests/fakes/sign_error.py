"""A plugin with one example, of which the second variant goes the wrong way with its bias."""

from dataclasses import replace

from fakes.failing import planted
from fakes.sound import EXAMPLE as SOUND
from fakes.sound import MODULE, SCRATCH
from refimpl import hookimpl

EXAMPLE = replace(
    SOUND,
    name="sign-error",
    variants=(SCRATCH, planted(rates=(1.0, -1.0)), replace(MODULE, name="alone", ladder=None)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
