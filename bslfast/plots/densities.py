"""Pictures of flows in two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast.flows import Composite, Flow
from bslfast.plots import _BLUE, _GREY, _ORANGE, _figure, _finish
from bslfast.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["density", "learning_curves", "marginals", "steps"]

_GRID = 200  # points along each side of a density's picture
_POINTS = 1500  # more hide each other
_MOST = 1_000_000  # torch finds no quantiles of many more
_POINT_STYLE: dict[str, Any] = {"s": 3, "linewidths": 0, "alpha": 0.6}


@torch.no_grad()
def density(
    data: Tensor,
    samples: Tensor,
    log_prob: Callable[[Tensor], Tensor],
    title: str = "Data, samples and density",
    *,
    names: Sequence[str] = ("x1", "x2"),
) -> Figure:
    """Plot data, samples and the learned density side by side, in the same frame.

    Args:
        data: [n, 2].
        samples: [m, 2], drawn from the learned density.
        log_prob: takes points [k, 2] and returns their log densities [k].
        title: heading of the picture.
        names: of the two features.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    names = _names(names, 2)
    data, samples = _points("data", data), _points("samples", samples)
    low, high = data.amin(0), data.amax(0)
    low, high = low - 0.12 * (high - low), high + 0.12 * (high - low)
    sides = [torch.linspace(low[i].item(), high[i].item(), _GRID) for i in range(2)]
    grid = torch.cartesian_prod(*sides).to(data.dtype)
    heights = log_prob(grid).cpu().double().exp().reshape(_GRID, _GRID).T
    # The sum of heights times this is the integral over the frame: 1 if no density is outside it.
    cell = ((high - low) / (_GRID - 1)).prod().item()
    extent = (low[0].item(), high[0].item(), low[1].item(), high[1].item())

    figure = _figure(13, 4.3)
    left, middle, right = figure.subplots(1, 3)
    shown = (("data, held out", data, _BLUE), ("samples of the model", samples, _ORANGE))
    for axes, (name, points, colour) in zip((left, middle), shown, strict=True):
        count = min(len(points), _POINTS)
        x1, x2 = points[:count].T.tolist()
        axes.scatter(x1, x2, color=colour, **_POINT_STYLE)
        axes.set(title=f"{name} ({count})", xlim=extent[:2], ylim=extent[2:])
    image = right.imshow(
        heights.tolist(), origin="lower", extent=extent, aspect="auto", cmap="viridis",
        interpolation="bilinear",
    )  # fmt: skip
    figure.colorbar(image, ax=right, label="probability density")
    right.set(title=f"density; its integral over the frame is {heights.sum().item() * cell:.3f}")
    for axes in (left, middle, right):
        axes.set(xlabel=names[0], ylabel=names[1])
    _finish(figure, title)
    right.grid(visible=False)
    return figure


@torch.no_grad()
def marginals(
    data: Tensor, samples: Tensor, names: Sequence[str], title: str = "Data and samples"
) -> Figure:
    """Plot pairs of features of the data above those of samples, in the same frames.

    These are up to four pairs, no feature in two of them: first the two features whose correlation
    is the largest in the data, then likewise among the rest. A single feature is two histograms.

    Args:
        data: [n, features].
        samples: [m, features], drawn from the learned density.
        names: of the features.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    data, samples = _points("data", data, None), _points("samples", samples, data.shape[1])
    names = _names(names, data.shape[1])
    shown = (("data, held out", data, _BLUE), ("samples of the model", samples, _ORANGE))
    if len(names) == 1:
        figure = _figure(6.4, 4)
        axes = figure.add_subplot()
        frame = _frame(data[:, 0])
        for name, points, colour in shown:
            axes.hist(
                points[:, 0].tolist(), bins=60, range=frame, density=True, color=colour,
                alpha=0.5, label=name,
            )  # fmt: skip
        axes.set(xlabel=names[0], ylabel="probability density")
        axes.legend(framealpha=0.9, edgecolor="none")
        return _finish(figure, title)
    pairs = _correlated(data)
    figure = _figure(max(6.0, 3.2 * len(pairs)), 6.4)
    panels = figure.subplots(2, len(pairs), squeeze=False)
    for row, (name, points, colour) in zip(panels, shown, strict=True):
        count = min(len(points), _POINTS)
        for axes, pair in zip(row, pairs, strict=True):
            x1, x2 = points[:count, list(pair)].T.tolist()
            axes.scatter(x1, x2, color=colour, **_POINT_STYLE)
            axes.set(
                xlabel=names[pair[0]], ylabel=names[pair[1]],
                xlim=_frame(data[:, pair[0]]), ylim=_frame(data[:, pair[1]]),
            )  # fmt: skip
        row[0].set_title(f"{name} ({count})", loc="left")
    return _finish(figure, title)


def _correlated(data: Tensor, most: int = 4) -> list[tuple[int, int]]:
    """Pairs of columns, no column in two of them, those of the largest correlation first."""
    # Those of a constant column are 0.
    unit = torch.nn.functional.normalize(data.double() - data.double().mean(0), dim=0)
    size = (unit.T @ unit).abs()
    left = torch.ones_like(size).triu(1).bool()
    pairs: list[tuple[int, int]] = []
    while left.any() and len(pairs) < most:
        i, j = divmod(int(torch.where(left, size, -1.0).argmax()), len(size))
        pairs.append((i, j))
        left[[i, j]] = left[:, [i, j]] = False
    return pairs


def _frame(values: Tensor) -> tuple[float, float]:
    """The range that holds all but the outermost thousandths of the data, and some room."""
    some = values[:_MOST].double()
    low, high = some.quantile(torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


@torch.no_grad()
def steps(
    flow: Flow, data: Tensor, title: str = "The flow, step by step", *, seed: int = 0
) -> Figure:
    """Plot the points after each transform of a flow, from data to noise and from noise to data.

    A point keeps its colour on the whole way. The colour is the angle of its noise about the
    origin.

    Args:
        flow: a flow of two features, without context.
        data: [n, 2], as the flow takes them.
        title: heading of the picture.
        seed: seed of the noise.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"flow: expected a bslfast.flows.Flow, got {_checks.describe(flow)}")
    if flow.features != 2 or flow.context:
        raise ValueError(
            f"flow: expected one of 2 features without context, got {flow.features} features and "
            f"{flow.context} context features"
        )
    _points("data", data)
    x = data[:_POINTS]
    z = torch.randn(
        len(x), 2, generator=torch.Generator().manual_seed(_checks.generator_seed(seed))
    ).to(x)
    transform = flow.transform
    transforms: list[Any] = (
        list(transform.transforms) if isinstance(transform, Composite) else [transform]
    )
    there, back = [x], [z]
    for step in transforms:
        there.append(step(there[-1])[0])
    for step in reversed(transforms):
        back.append(step.inverse(back[-1])[0])

    columns = len(transforms) + 1
    figure = _figure(max(6.0, 2.3 * columns), 5.6)
    rows = figure.subplots(2, columns, squeeze=False)
    ends = ("data", "noise")  # the beginning and the end of the forward way
    for row, states, names, noise, label in (
        (rows[0], there, ends, there[-1], "forward: data to noise"),
        (rows[1], back, ends[::-1], z, "inverse: new noise to samples"),
    ):
        colours = torch.atan2(noise[:, 1], noise[:, 0]).tolist()
        for index, (axes, state) in enumerate(zip(row, states, strict=True)):
            name = names[0] if index == 0 else f"after {index}"
            if index == columns - 1:
                name += f": {names[1]}"
            _cloud(axes, state, colours)
            axes.set_title(name)
        row[0].set_ylabel(label)
    return _finish(figure, title)


def learning_curves(
    history: History, title: str = "Learning curves", *, offset: float = 0.0
) -> Figure:
    """Plot the negative log density of training and validation against the epoch.

    Args:
        history: from :func:`bslfast.training.fit` of a flow, with at least one epoch.
        title: heading of the picture.
        offset: added to every value, to give the density of the data before they were scaled.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"history: expected what training.fit returns, got {_checks.describe(history)}"
        )
    if not history.loss:
        raise ValueError("history: expected at least one epoch, got none")
    figure = _figure(6.4, 4)
    axes = figure.add_subplot()
    epochs = range(1, len(history.loss) + 1)
    marker = "o" if len(epochs) < 8 else None
    shown = [value + offset for value in history.loss]
    axes.plot(epochs, shown, color=_BLUE, marker=marker, label="training")
    if history.validation_log_likelihood:
        validation = [offset - value for value in history.validation_log_likelihood]
        axes.plot(epochs, validation, color=_ORANGE, marker=marker, label="validation")
        shown += validation
    axes.axvline(history.best_epoch, color=_GREY, ls=":", label=f"best epoch, {history.best_epoch}")
    # The first epochs would flatten everything after them.
    low, high = min(shown), torch.tensor(shown, dtype=torch.float64).quantile(0.95).item()
    axes.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
    axes.set(xlabel="epoch", ylabel="-log density, nats per point")
    axes.legend(framealpha=0.9, edgecolor="none")
    return _finish(figure, title)


def _points(name: str, value: Tensor, features: int | None = 2) -> Tensor:
    shape = f"[n, {'features' if features is None else features}]"
    points = _checks.floating(name, value, 2, shape)
    if points.numel() == 0 or features not in (None, points.shape[1]):
        raise ValueError(
            f"{name}: expected at least one point, {shape}, got {_checks.describe(value)}"
        )
    return points.detach().cpu()


def _names(names: Sequence[str], features: int) -> tuple[str, ...]:
    if len(names) != features:
        raise ValueError(f"names: expected {features} names of features, got {names!r}")
    return tuple(names)


def _cloud(axes: Axes, points: Tensor, colours: list[float]) -> None:
    x1, x2 = points.cpu().T.tolist()
    axes.scatter(x1, x2, c=colours, cmap="hsv", **_POINT_STYLE)
    axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", xticks=(), yticks=())
