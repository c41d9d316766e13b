"""What follows pruning: a new scheme is a file here and a line in ``AFTER``."""

from pytest_prunerob.compression.after import fine_tuning
from pytest_prunerob.compression.after.scheme import Finish, Scheme

__all__ = ["AFTER", "Finish", "Scheme"]

AFTER: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        fine_tuning.SCHEME,
        fine_tuning.NONE,
    )
}
