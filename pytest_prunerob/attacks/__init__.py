"""The attacks: one file per attack or library family, all listed in ``ATTACKS``."""

from __future__ import annotations

from pytest_prunerob.attacks.apgd import APGD_CE, APGD_DLR, APGD_T
from pytest_prunerob.attacks.art_jsma import JSMA
from pytest_prunerob.attacks.attack import OPTIONAL, OWN, Attack, Load, Passes, Pool, Settings, drive, drive_voted
from pytest_prunerob.attacks.brendel_bethge import BRENDEL_BETHGE
from pytest_prunerob.attacks.clever import CLEVER
from pytest_prunerob.attacks.corruption import CORRUPTION, OCCLUSION
from pytest_prunerob.attacks.cw import CW_L2
from pytest_prunerob.attacks.cw_linf_l0 import CW_L0, CW_LINF
from pytest_prunerob.attacks.deepfool import DEEPFOOL
from pytest_prunerob.attacks.exits import MULTI_EXIT_PGD
from pytest_prunerob.attacks.fab import FAB, FAB_MIN, FAB_T
from pytest_prunerob.attacks.fmn import FMN, FMN_OWN
from pytest_prunerob.attacks.gradient import BIM, FGSM, MOMENTUM, PGD, R_FGSM
from pytest_prunerob.attacks.square import SQUARE
from pytest_prunerob.attacks.substitute import SUBSTITUTE
from pytest_prunerob.attacks.universal import UNIVERSAL
from pytest_prunerob.attacks.wrm import WRM
from pytest_prunerob.attacks.zoo import ZOO

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        APGD_CE,
        APGD_DLR,
        APGD_T,
        FAB,
        FAB_T,
        SQUARE,
        PGD,
        FGSM,
        R_FGSM,
        BIM,
        MOMENTUM,
        FMN,
        FMN_OWN,
        CW_L2,
        CW_LINF,
        CW_L0,
        DEEPFOOL,
        BRENDEL_BETHGE,
        FAB_MIN,
        ZOO,
        JSMA,
        WRM,
        MULTI_EXIT_PGD,
        SUBSTITUTE,
        UNIVERSAL,
        CORRUPTION,
        OCCLUSION,
        CLEVER,
    )
}

__all__ = ["ATTACKS", "OPTIONAL", "OWN", "Attack", "Load", "Passes", "Pool", "Settings", "drive", "drive_voted"]
