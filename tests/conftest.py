"""What holds for all tests."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# A shared machine stalls now and then: an example that took long, or was long in the making, is no failure. And the
# same code passes or fails every time; --hypothesis-profile=explore draws other examples.
STEADY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", **STEADY)
settings.register_profile("shardbench", derandomize=True, **STEADY)
settings.load_profile("shardbench")


def pytest_collection_modifyitems(items):
    """Keep a file's tests in one worker, unless they name a group of their own; begin with what takes longest.

    A file's tests share what they have compiled. Files with the most slow tests come first (``--no-loadscope-reorder``
    keeps them there), so that no worker is left with a long file at the end.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="module")
def plainly_compiled():
    """What this module's tests compile for this machine is compiled fast and runs slowly; see ``compiling.plainly``."""
    import jax
    from compiling import plainly

    original, plain = jax.jit, plainly()

    def jit(*arguments, compiler_options=None, **settings):
        return original(*arguments, compiler_options={**plain, **(compiler_options or {})}, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit)
        yield


@pytest.fixture(scope="module")
def plainly_prepared():
    """What this module's engines lower and compile before they run it, likewise; what they jit stays as it is."""
    import jax
    from compiling import plainly

    original, plain = jax.stages.Lowered.compile, plainly()

    def compile_plainly(lowered, compiler_options=None, **settings):
        return original(lowered, {**plain, **(compiler_options or {})}, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", compile_plainly)
        yield
