"""Data sets, streams of examples, tables, toy densities, grey levels and the way back to them."""

from jflow.data.augmentation import add_noise, flip_left_right, mutate, shift
from jflow.data.column import Column
from jflow.data.complexity import complexity
from jflow.data.image_density import ImageDensity
from jflow.data.image_files import tile
from jflow.data.images import digits, images, npz, pad
from jflow.data.restoring import Restored
from jflow.data.schema import Rows, Schema
from jflow.data.sources import arrays, folder, load, skip_corrupt, tfds
from jflow.data.splits import Labelled, Splits
from jflow.data.table_density import TableDensity
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
    "Column",
    "EightGaussians",
    "Funnel",
    "GaussianGrid",
    "ImageDensity",
    "Labelled",
    "Pinwheel",
    "Restored",
    "Rings",
    "Rows",
    "Schema",
    "Splits",
    "SwissRoll",
    "Table",
    "TableDensity",
    "ToyDensity",
    "TwoMoons",
    "TwoSpirals",
    "add_noise",
    "arrays",
    "complexity",
    "dequantize",
    "digits",
    "flip_left_right",
    "folder",
    "images",
    "load",
    "mutate",
    "npz",
    "pad",
    "quantize",
    "shift",
    "skip_corrupt",
    "table",
    "tfds",
    "tile",
    "toy",
]
