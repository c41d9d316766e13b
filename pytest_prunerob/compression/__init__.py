"""Compression of networks: one file per method, what follows pruning, and the masks and structure they leave."""

from pytest_prunerob.compression.after import AFTER, Scheme
from pytest_prunerob.compression.amounts import parse_amount
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.methods import METHODS, compress
from pytest_prunerob.compression.schedules import exponential, halving
from pytest_prunerob.compression.structure import Structure, rebuild

__all__ = [
    "AFTER",
    "METHODS",
    "CompressedModel",
    "Masks",
    "Method",
    "Scheme",
    "Structure",
    "Trainer",
    "apply",
    "compress",
    "exponential",
    "halving",
    "parse_amount",
    "rebuild",
]
