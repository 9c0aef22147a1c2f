"""docs/vae_models.md says what autoencoders there are, and what goes with what."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from bslfast import vae
from bslfast.vae.decoding import LIKELIHOODS

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"(?<=\| )-?\d+\.\d(?= \|)")


def test_the_page_is_up_to_date() -> None:
    """All models train and all pairs run. Else: python tools/vae_models.py.

    The numbers in the tables are those of long training, and differ between machines.
    """
    text = runpy.run_path(str(ROOT / "tools" / "vae_models.py"))["page"](epochs=2)
    written = (ROOT / "docs" / "vae_models.md").read_text()
    assert len(NUMBER.findall(written)) > 50
    assert NUMBER.sub("#", written) == NUMBER.sub("#", text)
    others = {"Posterior", "WithContext", "DiagonalGaussianDistribution"}
    assert not [name for name in vae.__all__ if name not in written and name not in others]
    assert all(f'"{name}"' in written for name in LIKELIHOODS)
