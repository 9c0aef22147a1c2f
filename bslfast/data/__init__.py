"""Data sets, splitting and scaling for the jobs."""

from bslfast.data.files import read_csv
from bslfast.data.tabular import Dataset, Examples, Split, Standardizer, split
from bslfast.data.wine import load_wine, load_wine_quality

__all__ = [
    "Dataset",
    "Examples",
    "Split",
    "Standardizer",
    "load_wine",
    "load_wine_quality",
    "read_csv",
    "split",
]
