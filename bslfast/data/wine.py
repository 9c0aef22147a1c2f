"""The two wine data sets of the jobs."""

from __future__ import annotations

import torch

from bslfast import _checks
from bslfast.data.files import find, read_csv
from bslfast.data.tabular import Dataset

_QUALITY_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
_QUALITY_SHA256 = {
    "white": "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
    "red": "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
}
QUALITY_FEATURES = (
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
)


def load_wine() -> Dataset:
    """Return scikit-learn's wine data: 178 wines, 13 chemical measurements, 3 cultivars.

    ``x`` is float32 [178, 13] in the original units, ``y`` int64 [178]. It needs no network.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: Aeberhard and Forina, "Wine", UCI Machine Learning Repository (1991,
    doi:10.24432/C5PC7J), CC BY 4.0.

    Example:
        >>> data = load_wine()
        >>> tuple(data.x.shape), data.y.bincount().tolist()
        ((178, 13), [59, 71, 48])
    """
    try:
        from sklearn.datasets import load_wine as load
    except ImportError:
        raise ModuleNotFoundError(
            "load_wine: expected scikit-learn, which holds the data, to be installed: "
            "pip install scikit-learn"
        ) from None
    bunch = load()
    return Dataset(
        torch.from_numpy(bunch.data).float(),
        torch.from_numpy(bunch.target).long(),
        tuple(bunch.feature_names),
        ("cultivar 1", "cultivar 2", "cultivar 3"),
        "scikit-learn's bundled wine data",
    )


def load_wine_quality(color: str = "white") -> Dataset:
    """Return the wine quality data: 11 measurements and the grade given by tasters.

    ``x`` is float32 [rows, 11] in the original units and ``y`` float32 [rows, 1], the grade: an
    integer from 3 to 9, treated as a number. White has 4898 rows, red 1599. About a fifth of the
    published rows repeat others; a random split, here as in the literature, puts some of them on
    both sides.

    The file ``winequality-<color>.csv`` is taken from the folder that ``BSLFAST_DATA`` names, else
    from the cache folder. Otherwise it is downloaded from UCI and its checksum compared.

    Args:
        color: "white" or "red".

    Raises:
        FileNotFoundError: if none of the three ways works; the text names them.
        ValueError: naming file, line and column of wrong content.
        TypeError, ValueError: if ``color`` is not one of the two.

    Source: Cortez et al., "Modeling wine preferences by data mining from physicochemical
    properties" (2009, doi:10.1016/j.dss.2009.05.016), UCI Machine Learning Repository, CC BY 4.0.
    """
    _checks.choice("color", color, tuple(_QUALITY_SHA256))
    name = f"winequality-{color}.csv"
    path = find(name, _QUALITY_URL + name, _QUALITY_SHA256[color])
    table = read_csv(path, (*QUALITY_FEATURES, "quality"), delimiter=";").float()
    return Dataset(table[:, :-1], table[:, -1:], QUALITY_FEATURES, ("quality",), str(path))
