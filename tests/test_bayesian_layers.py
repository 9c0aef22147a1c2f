"""docs/bayesian_layers.md says what layers, posteriors, priors and estimators do together now."""

from __future__ import annotations

import runpy
from pathlib import Path

import bslfast

ROOT = Path(__file__).parents[1]


def test_the_page_is_up_to_date() -> None:
    """All combinations run. Else: python tools/bayesian_layers.py."""
    text = runpy.run_path(str(ROOT / "tools" / "bayesian_layers.py"))["page"]()
    assert (ROOT / "docs" / "bayesian_layers.md").read_text() == text
    for names, module in ((bslfast.nn.posteriors, "Posterior"), (bslfast.nn.priors, "Prior")):
        assert all(f"`{name}`" in text for name in names.__all__ if name != module)
    layers = {name for name in bslfast.nn.__all__ if name.startswith("Bayes")}
    layers -= {"BayesianLayer", "BayesianModule"}
    assert all(f"`{name}`" in text for name in layers)
