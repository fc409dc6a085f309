"""Settings of Hypothesis for every test: machines may be slow, so no example has a deadline."""

from hypothesis import settings

settings.register_profile("nearcache", settings(deadline=None))
settings.load_profile("nearcache")
