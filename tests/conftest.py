"""What all tests share: hypothesis is repeatable, so that a failure is one of the change and not of the day.

``HYPOTHESIS_PROFILE=random`` looks for new examples.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
