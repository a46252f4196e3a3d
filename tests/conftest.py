"""What holds for all tests."""

from hypothesis import settings

# A shared machine stalls now and then: an example that took long is no failure.
settings.register_profile("shardbench", deadline=None)
settings.load_profile("shardbench")
