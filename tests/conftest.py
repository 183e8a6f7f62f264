"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples in every run of CI, so that it says the same of the same code; new ones at every desk.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
