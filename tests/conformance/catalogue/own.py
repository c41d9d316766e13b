"""Attacks that no library has: WRM, PGD on several exits, the substitute-model black box."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor, nn

from pytest_prunerob import cw, multi_exit_pgd, substitute, wrm
from pytest_prunerob.plans import Plan
from tests.conformance.catalogue.case import Case


class TwoExits(nn.Module):
    """A network with an early exit, which sees its input with less contrast; it is judged by the last one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits

    def exits(self, x: Tensor) -> list[Tensor]:
        return [0.5 * self.inner(0.5 + 0.8 * (x - 0.5)), self.inner(x)]


def _exits(eps: str) -> Plan:
    return multi_exit_pgd(form="max-average", exits=2, eps=eps, steps=10, step_size=str(Fraction(eps) / 4))


CASES = [
    # γ must let the ascent out of the ball, and not as far as the ends of the box, which bend its way.
    Case(
        "wrm",
        "l2",
        lambda eps: wrm(eps=eps, gamma="0.1", steps=10),
        None,
        strong=lambda eps: wrm(eps=eps, gamma=5),
    ),
    Case("multi-exit-pgd", "linf", _exits, None, wrap=TwoExits),
    # What a network learns from a few labels is bounded by no closed form.
    *(
        Case("substitute", norm, lambda eps, norm=norm: substitute(norm=norm, eps=eps, rounds=3), None, linear=False)
        for norm in ("linf", "l2")
    ),
    Case("cw-linf", "linf", lambda eps: cw(norm="linf", steps=200, initial_const="0.1"), None, factor=1.15),
    # The last features must cross the box within few steps.
    Case(
        "cw-l0",
        "l0",
        lambda eps: cw(norm="l0", steps=150, step_size="0.2", initial_const=10),
        None,
        factor=1.5,
    ),
]
