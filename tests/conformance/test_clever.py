"""The CLEVER score where it is known: on linear networks; and beside ART's estimate of one target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.attacks.art import load_art
from pytest_prunerob.attacks.extremes import upper_end
from pytest_prunerob.engine import Engine, Result
from pytest_prunerob.plans import Plan, fab, resolve
from pytest_prunerob.plans.clever import clever
from tests.conformance.catalogue.case import SEED
from tests.conformance.test_attacks import Subject, exact_distances

NORMS = ("linf", "l2", "l1")


def scores(plan: Plan, subject: Subject, kind: str = "estimate") -> Result:
    module, x, y = subject
    with torch.no_grad():
        classes = module(x[:1]).shape[1]
    return Engine("cpu", 256, SEED).run(kind, module, resolve(plan, classes), 0, x, y, classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
def test_the_score_of_a_linear_network_is_its_distance_or_the_radius(norm: str, linear: Subject) -> None:
    exact = exact_distances(linear, norm)
    found = scores(clever(norm=norm, radius=10, batches=3, batch_size=2), linear)
    assert found.errors == {}
    assert [found.values[p] for p in range(12)] == pytest.approx(exact, rel=1e-4)
    between = sorted(exact)[6]
    capped = scores(clever(norm=norm, radius=between, batches=3, batch_size=2), linear)
    assert [capped.values[p] for p in range(12)] == pytest.approx([min(d, between) for d in exact], rel=1e-4)


def test_clean_errors_have_negative_scores(linear: Subject) -> None:
    module, x, y = linear
    found = scores(clever(norm="l2", radius=10, batches=3, batch_size=2), (module, x[:2], 1 - y[:2]))
    assert all(value < 0 for value in found.values.values())


class Flat(nn.Module):
    """Its outputs do not depend on the input, or are not finite for bright ones."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        far = (x.flatten(1).amax(1) - 0.6).clamp(min=0).unsqueeze(1) * self.at
        return torch.tensor([[1.0, 0.0, -1.0]]) + 0 * x.flatten(1)[:, :3] + far


@pytest.mark.parametrize("at", [0.0, float("inf")])
def test_a_sample_without_an_estimate_is_an_error_and_no_number(at: float) -> None:
    x = torch.full((2, 1, 4, 4), 0.5)
    found = scores(clever(norm="linf", radius="0.3", batches=3, batch_size=2), (Flat(at), x, torch.zeros(2).long()))
    assert found.values == {}
    assert found.errors == dict.fromkeys(range(2), "clever gave no number")


def test_scores_depend_on_the_sample_alone_and_lie_below_what_an_attack_finds(golden: Subject) -> None:
    module, x, y = golden
    some = (module, x[3:9], y[3:9])
    for norm, radius in (("linf", "0.2"), ("l2", "2")):
        plan = clever(norm=norm, radius=radius, batches=20, batch_size=5)
        found = scores(plan, some)
        alone = scores(plan, (module, x[5:6], y[5:6]))
        assert alone.values[0] == pytest.approx(found.values[2], rel=1e-4)
        nearest = scores(fab(norm=norm, steps=20), some, "minimise")
        for place, value in nearest.values.items():
            assert 0.2 * value < found.values[place] < value


def test_one_target_agrees_with_arts_estimate(golden: Subject) -> None:
    load_art()
    from art.estimators.classification import PyTorchClassifier
    from art.metrics import clever_t

    module, x, y = golden
    ours = scores(clever(norm="l2", radius=2, batches=50, batch_size=10, targets=1), (module, x[4:5], y[4:5]))
    with torch.no_grad():
        runner_up = int(module(x[4:5])[0].argsort(descending=True)[1])
    wrapped = PyTorchClassifier(module, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
    np.random.seed(SEED)  # noqa: NPY002 - what ART draws from
    theirs = clever_t(wrapped, x[4].numpy(), runner_up, nb_batches=50, batch_size=10, radius=2, norm=2, pool_factor=50)
    assert ours.values[0] == pytest.approx(theirs, rel=0.25)


@pytest.mark.parametrize(("shape", "off"), [(1.5, 0.1), (3.0, 0.3), (12.0, 1.0)])
def test_the_end_of_a_reverse_weibull_distribution_is_found(shape: float, off: float) -> None:
    generator = np.random.default_rng(5)
    ends = [upper_end(10 - generator.weibull(shape, 100)) for _ in range(10)]
    assert np.median(ends) == pytest.approx(10, abs=off)
    assert max(ends) < 15  # the likelihood alone may have no end at all


def test_maxima_that_agree_are_the_end_and_those_of_two_kinds_have_none() -> None:
    assert upper_end(np.full(20, 3.0)) == 3
    two = np.concatenate([np.linspace(1, 1.001, 60), np.linspace(5, 5.001, 40)])
    assert np.isnan(upper_end(two))
