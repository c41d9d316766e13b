"""Why ZOO runs repaired: ART's own only ever makes pixels brighter."""

from __future__ import annotations

import numpy as np
import torch

from pytest_prunerob.attacks.art import load_art
from pytest_prunerob.engine import Engine
from pytest_prunerob.plans import zoo
from tests.conformance.catalogue.art_others import classifier
from tests.conformance.catalogue.case import SEED
from tests.conformance.test_attacks import Subject


def test_arts_own_makes_no_pixel_darker_and_ours_does(golden: Subject) -> None:
    module, x, y = golden
    x, y = x[4:6], y[4:6]
    load_art()
    from art.attacks.evasion import ZooAttack

    wrapped = classifier(module, x, clip=(0, 1))
    one_by_one = wrapped.predict
    wrapped.predict = lambda z, batch_size=1: one_by_one(z, batch_size=len(z))
    theirs = ZooAttack(wrapped, learning_rate=0.2, max_iter=3, initial_const=10.0, abort_early=False, use_resize=False,
                       use_importance=False, nb_parallel=64, verbose=False)  # fmt: skip
    np.random.seed(SEED)  # noqa: NPY002 - what ART draws from
    theirs.generate(x.numpy(), y.numpy())
    assert theirs._current_noise.min() >= 0
    assert theirs._current_noise.max() > 0.1
    plan = zoo(norm="l2", steps=3, search_steps=1, step_size="0.2", initial_const=10)
    ours = Engine("cpu", 256, SEED).run("crafted", module, plan, 0, x, y, 10)
    assert ours.witness is not None
    steps = torch.from_numpy(ours.witness) - x
    assert steps.min() < -0.1
    assert steps.max() > 0.1
