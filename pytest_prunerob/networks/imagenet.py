"""Networks for ImageNet from torchvision, with the normalisation of their published weights inside."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from pytest_prunerob.networks.normalised import normalised

# What the presets of torchvision's weights say. Those of Inception-v3 come from TensorFlow, which maps to [-1, 1];
# torchvision normalises as for all others and converts (``transform_input``), which is the same but for rounding.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN, INCEPTION_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
AUXILIARY = "AuxLogits."


def torchvision(inputs: tuple[int, int, int], classes: int, *, name: str) -> nn.Module:
    """The network that torchvision calls ``name``, with random weights.

    ``x: (N, 3, H, W) in [0, 1]``, normalised inside → logits ``(N, classes)``. Names are torchvision's, so that its
    published weights load strictly.
    """
    return normalised(_network(name, classes), mean=MEAN, std=STD)


def inception_v3(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567) without its auxiliary classifier, else as ``torchvision``.

    Only a training uses the auxiliary classifier: it has no part in the logits, and facts such as the sparsity would
    count it. So it is left out, and loading torchvision's published weights passes over its entries, over no others.
    """
    network = _network("inception_v3", classes, aux_logits=False, transform_input=False, init_weights=False)
    network.register_load_state_dict_pre_hook(_without_auxiliary)  # type: ignore[no-untyped-call]
    return normalised(network, mean=INCEPTION_MEAN, std=INCEPTION_STD)


alexnet = partial(torchvision, name="alexnet")
vgg16_bn = partial(torchvision, name="vgg16_bn")
resnet18 = partial(torchvision, name="resnet18")
resnet50 = partial(torchvision, name="resnet50")
mobilenet_v2 = partial(torchvision, name="mobilenet_v2")
densenet121 = partial(torchvision, name="densenet121")


def _network(name: str, classes: int, **options: bool) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=classes, **options)
    # Weights as all networks here start from, not torchvision's: training anew must draw from the same distribution.
    return network.apply(_anew)


def _anew(layer: Any) -> None:
    if hasattr(layer, "reset_parameters"):
        layer.reset_parameters()


def _without_auxiliary(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    for name in [name for name in state if name.startswith(prefix + AUXILIARY)]:
        del state[name]
