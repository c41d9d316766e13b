"""The cases of all attacks: one file per library or family, all listed in ``CASES``."""

from __future__ import annotations

from tests.conformance.catalogue import autoattack, foolbox, own
from tests.conformance.catalogue.case import Case

CASES: list[Case] = [*autoattack.CASES, *foolbox.CASES, *own.CASES]
