"""Signatures of the public ops: one order and one default for what many of them have."""

from __future__ import annotations

import inspect

import pytest

import bslfast.functional as BF
from bslfast import reference

FUNCTIONS = {
    name: function
    for name in BF.__all__
    if inspect.isfunction(function := getattr(BF, name)) and name != "use_reference"
}


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(FUNCTIONS[name]).parameters)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if "reduction" in parameters(n)])
def test_one_default_of_reduction(name: str) -> None:
    """Log densities and log-determinants have one number for a row; a divergence is one sum."""
    expected = "sum" if "_kl" in name else "row"
    if name == "categorical_log_prob":  # a row of logits has one class
        expected = "none"
    assert parameters(name)["reduction"].default == expected


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n.endswith("_log_prob")])
def test_what_has_a_density_comes_first(name: str) -> None:
    first = next(iter(parameters(name)))
    assert "rsample" in name or first == ("index" if name == "categorical_log_prob" else "x")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_reference_has_the_same_signature(name: str) -> None:
    twin = inspect.signature(getattr(reference, name)).parameters
    assert list(twin) == list(parameters(name))
    for key, parameter in parameters(name).items():
        assert twin[key].default == parameter.default, key
