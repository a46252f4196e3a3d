"""What holds for all tests."""

import pytest
from hypothesis import HealthCheck, settings

# A shared machine stalls now and then: an example that took long, or was long in the making, is no failure. And the
# same code passes or fails every time; --hypothesis-profile=explore draws other examples.
STEADY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", **STEADY)
settings.register_profile("shardbench", derandomize=True, **STEADY)
settings.load_profile("shardbench")


@pytest.fixture(scope="module")
def plainly_compiled():
    """What this module's tests compile for this machine is compiled fast and runs slowly; see ``compiling.plainly``."""
    from functools import partial

    import jax
    from compiling import plainly

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", partial(jax.jit, compiler_options=plainly()))
        yield
