"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A shared machine stalls now and then: an example that took long, or was long in the making, is no failure. And the
# same code passes or fails every time; --hypothesis-profile=explore draws other examples.
STEADY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", **STEADY)
settings.register_profile("shardbench", derandomize=True, **STEADY)
settings.load_profile("shardbench")
