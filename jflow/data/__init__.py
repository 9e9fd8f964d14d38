"""Data sets in memory, tables, toy densities, and the way from grey levels to values and back."""

from jflow.data.images import digits, npz, pad, tfds
from jflow.data.splits import Labelled, Splits
from jflow.data.tables import Table, table
from jflow.data.toy import TOY_NAMES, Banana, Checkerboard, Funnel, Pinwheel, Rings, toy
from jflow.data.toy_mixtures import (
    EightGaussians,
    GaussianGrid,
    SwissRoll,
    ToyDensity,
    TwoMoons,
    TwoSpirals,
)
from jflow.functional.dequantization import dequantize, quantize

__all__ = [
    "TOY_NAMES",
    "Banana",
    "Checkerboard",
    "EightGaussians",
    "Funnel",
    "GaussianGrid",
    "Labelled",
    "Pinwheel",
    "Rings",
    "Splits",
    "SwissRoll",
    "Table",
    "ToyDensity",
    "TwoMoons",
    "TwoSpirals",
    "dequantize",
    "digits",
    "npz",
    "pad",
    "quantize",
    "table",
    "tfds",
    "toy",
]
