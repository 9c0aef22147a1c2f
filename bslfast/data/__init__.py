"""Data sets, splitting and scaling for the jobs."""

from bslfast.data.columns import Columns, read_columns
from bslfast.data.files import read_csv, read_table
from bslfast.data.images import load_digits, load_mnist, read_idx
from bslfast.data.splits import Splits, read_splits
from bslfast.data.tabular import Dataset, Examples, Split, Standardizer, split
from bslfast.data.toys import load_moons
from bslfast.data.wine import load_wine, load_wine_quality

__all__ = [
    "Columns",
    "Dataset",
    "Examples",
    "Split",
    "Splits",
    "Standardizer",
    "load_digits",
    "load_mnist",
    "load_moons",
    "load_wine",
    "load_wine_quality",
    "read_columns",
    "read_csv",
    "read_idx",
    "read_splits",
    "read_table",
    "split",
]
