"""The criteria by which filters and residual blocks are pruned: one file per criterion, one line here."""

from pytest_prunerob.compression.criteria import expected_abs, hrank, kl, l1, pls
from pytest_prunerob.compression.criteria.criterion import Criterion

__all__ = ["CRITERIA", "Criterion"]

CRITERIA: dict[str, Criterion] = {
    module.CRITERION.name: module.CRITERION for module in (l1, expected_abs, hrank, kl, pls)
}
