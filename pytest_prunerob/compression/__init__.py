"""Compression of networks: methods that choose what goes, masks, and the schedule that applies them."""

from pytest_prunerob.compression.iterative import (
    CompressedModel,
    FineTune,
    compress,
    parse_sparsity,
    schedule,
)
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.methods import METHODS, Method, Select

__all__ = [
    "METHODS",
    "CompressedModel",
    "FineTune",
    "Masks",
    "Method",
    "Select",
    "apply",
    "compress",
    "parse_sparsity",
    "schedule",
]
