"""What all tests share: hypothesis is repeatable, so that a failure is one of the change and not of the day.

``HYPOTHESIS_PROFILE=random`` looks for new examples.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The runs of whole suites first: they take longest, and the other worker has enough to do beside them."""
    items.sort(key=lambda item: "suites" not in item.path.parts)
