"""The oracle in L0: what counts as changed, and where an overshoot goes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_prunerob.oracle import Meter, Network, Oracle, distances, projected


class Bright(nn.Module):
    """Class 1 where at least two pixels are above 0.9, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) > 0.9).sum(1).float() - 1.5
        return torch.stack([-score, score], 1)


def oracle(x: Tensor, eps: float | None) -> Oracle:
    network = Network(Bright(), chunk=256, meter=Meter())
    mode = "minimise" if eps is None else "decide"
    return Oracle(network, x, torch.zeros(len(x), dtype=torch.long), clean=Bright()(x), norm="l0", eps=eps, mode=mode)  # type: ignore[arg-type]


def test_any_difference_of_a_bit_is_a_change() -> None:
    x = torch.full((1, 1, 2, 3), 0.5)
    z = x.clone()
    z[0, 0, 0, 0] = torch.nextafter(x[0, 0, 0, 0], torch.tensor(1.0))
    z[0, 0, 1, 2] = 1
    assert distances(x, z, "l0").tolist() == [2]
    tiny = torch.zeros_like(x)
    tiny[0, 0, 0, 1] = 1e-45  # the smallest float32 there is
    assert distances(torch.zeros_like(x), tiny, "l0").tolist() == [1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([1.0, 2.0, 5.0, 5.5, 12.0, 100.0]), st.sampled_from([(1, 2, 2), (3, 4, 4)])
)
def test_a_projection_keeps_the_largest_changes_inside_the_box(
    seed: int, eps: float, shape: tuple[int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, *shape, generator=generator)
    z = x + torch.randn(x.shape, generator=generator) * (torch.rand(x.shape, generator=generator) < 0.7)
    z[4, 0, 0, 0], z[4, 0, 0, 1] = float("nan"), float("inf")
    copy = projected(x, z, "l0", eps)
    assert copy.dtype == torch.float32
    assert (distances(x, copy, "l0") <= eps).all()
    assert copy.min() >= 0
    assert copy.max() <= 1
    goal = z.nan_to_num(0.0, posinf=1, neginf=0).clamp(0, 1)
    changed = copy != x
    assert torch.equal(copy[changed], goal[changed])  # a feature is moved all the way or not at all
    size = (goal - x).abs().flatten(1)
    kept = changed.flatten(1)
    for row in range(4):
        if bool((~kept[row]).any()) and bool(kept[row].any()):
            assert size[row][kept[row]].min() >= size[row][~kept[row]].max() or kept[row].sum() < int(eps)


@pytest.mark.parametrize(("eps", "verdicts"), [(1.0, [False, False, False, False]), (2.0, [True, False, False, True])])
def test_only_what_changes_few_enough_pixels_is_a_witness(eps: float, verdicts: list[bool]) -> None:
    x = torch.full((4, 1, 2, 4), 0.5)
    z = x.clone()
    z[0, 0, 0, :2] = 1  # two pixels
    z[1, 0, 0, :3] = 1  # three: farther out than what is projected
    z[2, 0, 0, :2] = torch.tensor([1.0, 0.8])  # two, of which one is not bright
    z[3, 0, 0, :2] = 7  # two that leave the box: their copies inside it count
    found = oracle(x, eps)
    assert found.submit(z, torch.arange(4)).tolist() == verdicts
    assert found.distance[found.broken].tolist() == [2.0] * sum(verdicts)
    assert found.witness.max() <= 1


def test_an_overshoot_by_rounding_of_the_other_pixels_is_projected() -> None:
    x = torch.full((1, 1, 5, 10), 0.5)
    z = x.clone()
    z[0, 0, 0, :2] = 1
    z[0, 0, 1:4, :6] += 1e-7
    z[0, 0, 4, 0] += 1e-7
    assert distances(x, z, "l0").tolist() == [21]
    found = oracle(x, 20.0)  # 5 % farther out than ε
    assert found.submit(z, torch.arange(1)).tolist() == [True]
    assert distances(x, found.witness, "l0").tolist() == [20]
    assert found.distance.tolist() == [20]


def test_the_smallest_number_of_pixels_stays() -> None:
    x = torch.full((1, 1, 2, 4), 0.5)
    found = oracle(x, None)
    for many in (4, 2, 3):
        z = x.clone()
        z.flatten(1)[0, :many] = 1
        found.submit(z, torch.arange(1))
    assert found.distance.tolist() == [2]
