"""Data sets, streams of examples, tables, toy densities, grey levels and the way back to them."""

from jflow.data.images import digits, flip_left_right, images, npz, pad
from jflow.data.sources import arrays, folder, load, skip_corrupt, tfds
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
    "arrays",
    "dequantize",
    "digits",
    "flip_left_right",
    "folder",
    "images",
    "load",
    "npz",
    "pad",
    "quantize",
    "skip_corrupt",
    "table",
    "tfds",
    "toy",
]
