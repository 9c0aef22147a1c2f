"""Pictures of flows: their content and their errors."""

from __future__ import annotations

import pytest
import torch

from bslfast.flows import NSF, AffineCoupling, Flow
from bslfast.training import History

pytest.importorskip("matplotlib")
densities = pytest.importorskip("bslfast.plots.densities")


def test_density_integrates_over_the_frame() -> None:
    flow = NSF(2)  # standard normal
    x = 3 * torch.randn(400, 2)  # wide enough to hold nearly all of it
    figure = densities.density(x, flow.sample(100), flow.log_prob, "a title")
    left, middle, right = figure.axes[:3]
    assert left.get_xlim() == middle.get_xlim() == right.get_xlim()
    assert "(400)" in left.get_title()
    assert "(100)" in middle.get_title()
    assert float(right.get_title().split()[-1]) == pytest.approx(1.0, abs=0.01)
    image = right.images[0].get_array()
    # The first axis of a picture is its height: off-centre mass must show where it is.
    shifted = densities.density(x, x, lambda p: flow.log_prob(p - torch.tensor([2.0, 0.0])))
    moved = shifted.axes[2].images[0].get_array()
    assert image.shape == moved.shape
    assert moved.sum(0).argmax() > image.sum(0).argmax() + 10
    assert abs(int(moved.sum(1).argmax()) - int(image.sum(1).argmax())) < 3


@pytest.mark.parametrize("flow", [NSF(2, transforms=3), Flow(AffineCoupling(2))])
def test_steps_draw_every_transform_both_ways(flow: Flow) -> None:
    steps = len(getattr(flow.transform, "transforms", [0])) + 1
    figure = densities.steps(flow, torch.randn(50, 2), seed=3)
    assert len(figure.axes) == 2 * steps
    for axes in figure.axes:
        assert len(axes.collections[0].get_offsets()) == 50
    names = [axes.get_title() for axes in figure.axes]
    assert names[0] == names[-1].split(": ")[1] == "data"
    assert names[steps] == names[steps - 1].split(": ")[1] == "noise"
    assert figure.axes[0].get_ylabel().startswith("forward")
    assert figure.axes[steps].get_ylabel().startswith("inverse")


def test_learning_curves() -> None:
    history = History([3.0, 2.0], [0.0, 0.0], [-2.5, -2.2], best_epoch=2)
    axes = densities.learning_curves(history, offset=-1.0).axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([2.0, 1.0])
    assert axes.lines[1].get_ydata() == pytest.approx([1.5, 1.2])


def test_marginals_are_of_the_features_that_belong_together() -> None:
    x = torch.randn(300, 11)
    x[:, 7] = x[:, 2] + 0.1 * torch.randn(300)
    x[:, 0] = 3 - x[:, 9] + 0.5 * torch.randn(300)
    x[:, 4] = 1.0  # without a correlation
    names = [f"feature {i}" for i in range(11)]
    figure = densities.marginals(x, x[:50] + 1, names, "a title")
    top, bottom = figure.axes[:4], figure.axes[4:]
    assert (top[0].get_xlabel(), top[0].get_ylabel()) == ("feature 2", "feature 7")
    assert (top[1].get_xlabel(), top[1].get_ylabel()) == ("feature 0", "feature 9")
    assert len({axes.get_xlabel() for axes in top} | {axes.get_ylabel() for axes in top}) == 8
    for above, below in zip(top, bottom, strict=True):
        assert above.get_xlim() == below.get_xlim()
        assert len(above.collections[0].get_offsets()) == 300
        assert len(below.collections[0].get_offsets()) == 50
    alone = densities.marginals(x[:, :1], x[:, :1], ["one"]).axes
    assert len(alone) == 1
    assert alone[0].get_xlabel() == "one"
    assert len(densities.marginals(x[:1, :3], x[:, :3], names[:3]).axes) == 2


def test_refusals() -> None:
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match=r"samples: .*\[n, 2\].*\(5, 3\)"):
        densities.density(x, torch.randn(5, 3), NSF(2).log_prob)
    with pytest.raises(ValueError, match="names: expected 2 names"):
        densities.density(x, x, NSF(2).log_prob, names=["a"])
    with pytest.raises(ValueError, match=r"samples: .*\[n, 2\].*\(5, 3\)"):
        densities.marginals(x, torch.randn(5, 3), ["a", "b"])
    with pytest.raises(ValueError, match=r"data: .*\[n, features\]"):
        densities.marginals(torch.ones(0, 3), torch.ones(1, 3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="flow: expected one of 2 features"):
        densities.steps(NSF(3), x)
    with pytest.raises(TypeError, match=r"flow: expected a bslfast.flows.Flow"):
        densities.steps(torch.nn.ReLU(), x)
    with pytest.raises(TypeError, match="history: expected what"):
        densities.learning_curves([1.0])
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        densities.learning_curves(History())
