"""Claims about corrupted digits, in Python and in a claims file, on linear models that nothing has to train."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pytest_prunerob.claims_file import read
from pytest_prunerob.corruptions import CORRUPTIONS, corrupt
from pytest_prunerob.datasets import load
from pytest_prunerob.errors import ClaimsFileError

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


def nearest_mean(kept: float) -> nn.Module:
    """The class whose mean image is nearest, with only the largest weights."""
    train = load("digits").train
    assert train is not None
    means = torch.stack([train.x[train.y == label].flatten(1).mean(0) for label in range(10)])
    smallest = means.flatten().sort().values[int((1 - kept) * 640)]
    layer = nn.Linear(64, 10)
    layer.weight.data = 2 * torch.where(means >= smallest, means, torch.zeros_like(means))
    layer.bias.data = -means.square().sum(1)
    return nn.Sequential(nn.Flatten(), layer).eval()


CONFTEST = f"""
import pytest, torch
from torch import nn
from pytest_prunerob.datasets import load

{inspect.getsource(nearest_mean)}

@pytest.fixture
def dense_model():
    return nearest_mean(1.0)

@pytest.fixture
def pruned_model():
    return nearest_mean(0.4)
"""
SUITE = """
from fractions import Fraction
import pytest
from pytest_prunerob import cells, corruption, occlusion, within, worst_case

DIGITS = cells(dataset="digits", samples=300)

@DIGITS
def test_numbers(pruned):
    assert within(pruned.corruption_accuracy("occlusion", 4), Fraction(COVERED, 300), 0)

@DIGITS
def test_average(pruned):
    average = sum(pruned.corruption_accuracy("gaussian_noise", severity) for severity in range(1, 6)) * 0.2
    assert within(average, Fraction(NOISY, 5 * 300), 0)

@DIGITS
def test_worst_case(dense):
    contrast, covered = corruption("contrast", 5, constants="imagenet"), occlusion(4)
    assert dense.accuracy_under(worst_case(contrast, covered)) < dense.accuracy_under(covered)
    assert dense.accuracy_under(worst_case(contrast, covered)) < dense.accuracy_under(contrast)

@DIGITS
@pytest.mark.parametrize("kind", ["fog", "jpeg_compression"])
def test_refused(pruned, kind):
    assert pruned.corruption_accuracy(kind, 1) >= 0

@DIGITS
def test_no_adversary(pruned):
    assert pruned.robust_accuracy(occlusion(4)) >= 0
"""
REFUSED = (
    "makes no sense on images of 8×8 pixels with 1 channel: allowed there are gaussian_noise, shot_noise, "
    "impulse_noise, speckle_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, gaussian_blur, brightness, "
    "contrast, occlusion"
)
CLAIMS = """
[cells]
dataset = "digits"
samples = 100
[plans.covered]
attack = "occlusion"
size = 2
[plans.dim]
attack = "corruption"
kind = "contrast"
severity = 5
constants = "imagenet"
[[claims]]
name = "worse"
claim = "pruned.corruption_accuracy('occlusion', 4) < pruned.accuracy_under(covered)"
[[claims]]
name = "same"
claim = "within(dense.corruption_accuracy('contrast', severity=5, constants='imagenet'), dense.accuracy_under(dim), 0)"
"""


def test_claims_about_corruptions(pytester: pytest.Pytester, suite: Suite) -> None:
    data, pruned = load("digits").test.first(300), nearest_mean(0.4)
    covered = data.x.clone()
    covered[:, :, 2:6, 2:6] = 0
    noisy = [corrupt(data.x, CORRUPTIONS["gaussian_noise"], severity, seed=0) for severity in range(1, 6)]
    with torch.no_grad():
        clean, right, *each = (int((pruned(x).argmax(1) == data.y).sum()) for x in (data.x, covered, *noisy))
    assert 30 < right < clean
    assert len(set(each)) > 1, each
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_digits=SUITE.replace("COVERED", str(right)).replace("NOISY", str(sum(each))))
    run = suite(None)
    run.result.assert_outcomes(passed=3, failed=3)
    for kind in ("fog", "jpeg_compression"):
        assert f"reason:   {kind} {REFUSED}" in run.out
    assert "ClaimError: robust_accuracy(occlusion 4×4) needs a plan with ε, such as autoattack(...)" in run.out


def test_corruptions_in_a_claims_file(pytester: pytest.Pytester, suite: Suite) -> None:
    pytester.makeconftest(CONFTEST)
    (pytester.path / "release.claims.toml").write_text(CLAIMS)
    suite(None).result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("severity=5,", "severity=2.5,", "'2.5' is not a whole number"),
        ("severity=5,", "severity=6,", "severity=6 is not one of 1 to 5"),
        ("'contrast', s", "'contrasts', s", "unknown kind 'contrasts': allowed are brightness, contrast"),
        ('kind = "contrast"', 'kind = "frost"\ntextures = "../f"', "'../f': a path of a claims file stays inside"),
        ('kind = "contrast"', 'kind = "frost"\ntextures = "f"', "textures='f' is no folder with images (.png, .jpg)"),
        ("size = 2", "size = 0", "size=0 is not a whole number of at least 1"),
    ],
)
def test_what_is_wrong_in_a_claims_file_is_one_sentence(right: str, wrong: str, sentence: str) -> None:
    with pytest.raises(ClaimsFileError, match=re.escape(sentence)):
        read(CLAIMS.replace(right, wrong, 1).encode(), "a.claims.toml")
