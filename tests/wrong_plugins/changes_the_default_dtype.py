"""loading it changes torch's default dtype, torch's grad mode (True → False) for the whole process;
set it inside the functions that need it, and put it back there"""

import torch
from refimpl import Exact, Example, hookimpl

torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

EXAMPLE = Example(
    name="changes-the-default-dtype",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
