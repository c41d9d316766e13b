"""What follows pruning: a new scheme is a file here and a line in ``AFTER``."""

from pytest_prunerob.compression.after import (
    adversarial_retraining,
    bn_recalibration,
    fine_tuning,
    inverse_weights_inheritance,
    scratch,
    winning_ticket,
)
from pytest_prunerob.compression.after.scheme import Finish, Scheme

__all__ = ["AFTER", "Finish", "Scheme"]

AFTER: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        fine_tuning.SCHEME,
        fine_tuning.NONE,
        scratch.E,
        scratch.B,
        winning_ticket.SCHEME,
        bn_recalibration.SCHEME,
        adversarial_retraining.SCHEME,
        inverse_weights_inheritance.SCHEME,
    )
}
