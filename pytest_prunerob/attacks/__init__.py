"""The attacks: one file per attack or library family, all listed in ``ATTACKS``."""

from __future__ import annotations

from pytest_prunerob.attacks.apgd import APGD_CE, APGD_DLR, APGD_T
from pytest_prunerob.attacks.attack import OPTIONAL, OWN, Attack, Load, Passes, Pool, Settings, drive
from pytest_prunerob.attacks.fab import FAB, FAB_MIN, FAB_T
from pytest_prunerob.attacks.fmn import FMN
from pytest_prunerob.attacks.gradient import FGSM, PGD
from pytest_prunerob.attacks.square import SQUARE

ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in (APGD_CE, APGD_DLR, APGD_T, FAB, FAB_T, SQUARE, PGD, FGSM, FMN, FAB_MIN)
}

__all__ = ["ATTACKS", "OPTIONAL", "OWN", "Attack", "Load", "Passes", "Pool", "Settings", "drive"]
