"""my-gpu: device must be str, found int 0"""

from refimpl import Execution, hookimpl


@hookimpl
def refimpl_executions():
    return [Execution("my-gpu", "a GPU of mine", device=0)]
