"""The cases of all attacks: one file per library or family, all listed in ``CASES``."""

from __future__ import annotations

from tests.conformance.catalogue import art, art_others, autoattack, foolbox, minimum, own
from tests.conformance.catalogue.case import Case

CASES: list[Case] = [*art.CASES, *art_others.CASES, *autoattack.CASES, *foolbox.CASES, *minimum.CASES, *own.CASES]
