"""Programs in both ways in which they run."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[2**60, 0], ids=["tiles", "groups"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all steps on one tile after the other, and each step on a group of them."""
    monkeypatch.setattr("bslfast.programs.building.LEAST_IN_GROUPS", request.param)
