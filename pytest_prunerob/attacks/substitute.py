"""The substitute-model black-box attack (Papernot et al. 2017, arXiv:1602.02697).

Own code: no library that is kept up has it. The subject is asked for labels, never for logits or gradients; all
training and crafting happens on the substitute.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pytest_prunerob.attacks.ascent import ascent
from pytest_prunerob.attacks.attack import OWN, Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.plans import Stage

# The step along the Jacobian changes its sign after as many rounds (Papernot et al. 2017, Eq. 5 with τ = 3).
PERIOD = 3
# The paper trains with momentum 0.9 and a rate of 0.01; larger batches at a larger rate take a quarter of the time and
# break as many digits (ours).
RATE = 0.05
MOMENTUM = 0.9
BATCH = 64
# Strided convolutions until the sides are at most this long, so that any image fits a small head (ours).
SIDE = 8
WIDTH = 32
HIDDEN = 128


def network(inputs: tuple[int, ...], classes: int) -> nn.Sequential:
    """A small convolutional network for inputs (C, H, W), with ReLUs and no normalisation; ours."""
    channels, *sides = inputs
    layers: list[nn.Module] = []
    while not layers or max(sides) > SIDE:
        layers += [nn.Conv2d(WIDTH if layers else channels, WIDTH, 3, stride=2, padding=1), nn.ReLU()]
        sides = [(side + 1) // 2 for side in sides]
    features = WIDTH * sides[0] * sides[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))


def _train(net: nn.Sequential, x: Tensor, labels: Tensor, epochs: int) -> None:
    """Gradient descent with momentum; by hand, since torch.optim imports torch's compiler, which takes seconds."""
    weights = list(net.parameters())
    velocity = [torch.zeros_like(weight) for weight in weights]
    for _ in range(epochs):
        # Drawn on the CPU, so that the order does not depend on the device.
        for rows in torch.split(torch.randperm(len(x)).to(x.device), BATCH):
            gradients = torch.autograd.grad(cross_entropy(net(x[rows]), labels[rows]), weights)
            with torch.no_grad():
                for weight, speed, gradient in zip(weights, velocity, gradients, strict=True):
                    weight.sub_(RATE * speed.mul_(MOMENTUM).add_(gradient))


def _labels(model: Model, x: Tensor) -> Tensor:
    """All that is asked of the subject: the classes (N,) of ``x``."""
    with torch.no_grad():
        return model(x).argmax(1)


def _augmented(net: nn.Sequential, x: Tensor, labels: Tensor, size: float) -> Tensor:
    """New samples ``size`` away along the sign of the gradient of the substitute's output for the label."""
    z = x.clone().requires_grad_(True)
    output = net(z).gather(1, labels.unsqueeze(1)).sum()
    (gradient,) = torch.autograd.grad(output, z)
    return (x + size * gradient.sign()).clamp(0, 1)


def train_substitute(model: Model, x: Tensor, settings: Settings) -> nn.Sequential:
    """A substitute for ``model`` around the samples ``x: (N, C, H, W)``, by Algorithm 1 of the paper."""
    stage = settings.stage
    size = float(Fraction(str(stage.get("augmentation"))))
    net = network(tuple(x.shape[1:]), settings.classes).to(x)
    known, labels = x, _labels(model, x)
    for number in range(stage.integer("rounds")):
        _train(net, known, labels, stage.integer("epochs"))
        sign = -1 if number // PERIOD % 2 else 1
        new = _augmented(net, known, labels, sign * size)
        known, labels = torch.cat([known, new]), torch.cat([labels, _labels(model, new)])
    _train(net, known, labels, stage.integer("epochs"))
    return net.requires_grad_(False).eval()


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    seed(settings)
    stage = settings.stage
    with torch.enable_grad():
        net = train_substitute(model, x, settings)
    *_, last = ascent(
        lambda z: cross_entropy(net(z), y, reduction="sum"),
        x,
        norm=settings.norm,
        eps=settings.radius,
        steps=stage.integer("steps"),
        step_size=float(Fraction(str(stage.get("step_size")))),
        random_start=False,
    )
    return last


def _passes(stage: Stage, load: Load) -> Passes:
    """The samples double in each round, and each is labelled once."""
    return Passes(1, 2 ** stage.integer("rounds"), 0)


SUBSTITUTE = Attack(
    name="substitute",
    norms=("linf", "l2"),
    kind="fixed",
    library=OWN,
    source="Papernot et al. 2017",
    gradient=False,
    keeps_positions=False,
    perturb=_perturb,
    passes=_passes,
)
