"""An example that does not state its facts yet can be run, and says what is still to do."""

from click.testing import CliRunner

from refimpl.cli.main import cli

PLUGIN = """
import numpy as np
import torch
from refimpl import DataSet, Example, Protocol, Rows, Splits, Variant, hookimpl

ROWS = np.ones((8, 1), np.float32)

EXAMPLE = Example(
    name="being-written", title="t", document="d", section="s",
    data=DataSet("ones", stand_in=lambda: Splits(Rows(ROWS, ROWS))),
    protocol=Protocol(epochs=2, learning_rate=0.1),
    loss=torch.nn.MSELoss(),
    variants=(Variant("only", build=lambda: torch.nn.Linear(1, 1), optimizer=torch.optim.SGD),),
)

@hookimpl
def refimpl_examples():
    return [EXAMPLE]
"""


def test_an_example_without_facts_runs_and_check_says_what_is_missing(tmp_path):
    path = tmp_path / "written.py"
    path.write_text(PLUGIN)
    ran = CliRunner().invoke(cli, ["run", "being-written", "--plugin", str(path)])
    assert ran.exit_code == 0, ran.output
    assert "not checked yet" in ran.output
    assert "states no fact" in ran.output
