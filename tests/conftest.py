"""What the tests of the framework share; the fakes are in ``fakes/``."""

from hypothesis import settings

settings.register_profile(
    "refimpl",
    max_examples=50,
    deadline=None,  # the machine may be busy
    derandomize=True,  # whether a commit passes is not a matter of luck
    database=None,
)
settings.load_profile("refimpl")
