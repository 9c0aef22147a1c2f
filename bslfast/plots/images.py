"""Pictures of models of images: their inputs, their outputs, and the codes in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast.plots import _BLUE, _CLASSES, _GREEN, _GREY, _ORANGE, _figure, _finish
from bslfast.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "grid",
    "label_curves",
    "latent_grid",
    "latent_space",
    "learning_curves",
    "reconstructions",
]

_TEN_CLASSES = (*_CLASSES[:7], "#8C6D31", "#882255", "#B0B000")


def grid(images: Tensor, title: str, columns: int = 10) -> Figure:
    """Plot images side by side.

    Args:
        images: [n, height, width] or [n, 1, height, width], values in [0, 1].
        title: heading of the picture.
        columns: number of images in a row.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    rows = _tiled(_images("images", images), _checks.integer("columns", columns))
    height = 0.55 + 8 * rows.shape[0] / rows.shape[1]
    figure = _figure(8, height)
    _show(figure.add_subplot(), rows)
    figure.suptitle(title, fontsize=12)
    return figure


def reconstructions(
    x: Tensor,
    reconstructed: Tensor,
    title: str = "Originals and reconstructions",
    columns: int = 12,
) -> Figure:
    """Plot original images, each with its reconstruction below it.

    Args:
        x: originals, [n, height, width] or [n, 1, height, width], values in [0, 1].
        reconstructed: of the same shape.
        title: heading of the picture.
        columns: number of pairs in a row.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    originals, made = _images("x", x), _images("reconstructed", reconstructed)
    if made.shape != originals.shape:
        raise ValueError(
            f"reconstructed: expected the shape of x, {tuple(x.shape)}, "
            f"got {_checks.describe(reconstructed)}"
        )
    columns = min(_checks.integer("columns", columns), len(originals))
    n = len(originals) // columns
    pairs = [
        _tiled(part[i * columns : (i + 1) * columns], columns)
        for i in range(n)
        for part in (originals, made)
    ]
    ratio = pairs[0].shape[0] / pairs[0].shape[1]
    figure = _figure(9, 0.6 + 2 * n * (8.2 * ratio + 0.05))
    for i, (axes, strip) in enumerate(zip(figure.subplots(2 * n, 1).flat, pairs, strict=True)):
        _show(axes, strip, "white")
        label = "reconstruction" if i % 2 else "original"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=12)
    return figure


def latent_space(
    mu: Tensor, labels: Tensor, names: Sequence[str], title: str = "Latent space by label"
) -> Figure:
    """Plot the means of codes as points, coloured by label.

    Codes of more than two dimensions are projected on their first two principal components.

    Args:
        mu: means of the codes, [n, latent].
        labels: int64 [n].
        names: one name per label.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    mu = _checks.floating("mu", mu, 2, "[n, latent]").detach().cpu().double()
    labels = _checks.class_indices("labels", labels, len(names), len(mu)).cpu()
    axis_names = [f"z{i + 1}" for i in range(mu.shape[1])]
    if mu.shape[1] > 2:
        centred = mu - mu.mean(0)
        mu = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
        axis_names = ["first principal component of the means", "second principal component"]
    elif mu.shape[1] == 1:
        mu = torch.cat([mu, torch.zeros_like(mu)], dim=1)
        axis_names = [axis_names[0], ""]
    figure = _figure(7.4, 6.2)
    axes: Any = figure.add_subplot()
    order = torch.randperm(len(mu), generator=torch.Generator().manual_seed(0))
    colours = [_TEN_CLASSES[k % len(_TEN_CLASSES)] for k in labels[order].tolist()]
    size = 14 if len(mu) < 3000 else 6
    axes.scatter(*mu[order].T.tolist(), s=size, c=colours, alpha=0.7, linewidths=0)
    for k, name in enumerate(names):
        points = mu[labels == k]
        if not len(points):
            continue
        colour = _TEN_CLASSES[k % len(_TEN_CLASSES)]
        axes.plot([], [], ls="", marker="o", color=colour, label=name)
        axes.annotate(
            name, points.median(0).values.tolist(), ha="center", va="center", fontsize=11,
            fontweight="bold", color=colour,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": colour, "alpha": 0.85},
        )  # fmt: skip
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1], aspect="equal")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title="label")
    return _finish(figure, title)


def latent_grid(model: Any, title: str = "Decoded latent grid", points: int = 20) -> Figure:
    """Plot the images that a model with two latent dimensions decodes from a grid of codes.

    The prior has equal probabilities between neighbouring grid lines. Common images are in the
    middle, and the rim is at the 2.5 % and 97.5 % quantiles.

    Args:
        model: a :class:`bslfast.vae.VAE` of images with ``latent`` 2.
        title: heading of the picture.
        points: number of grid lines in each direction.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    from bslfast.vae import VAE

    if not isinstance(model, VAE):
        raise TypeError(f"model: expected a bslfast.vae.VAE, got {_checks.describe(model)}")
    if model.latent != 2:
        raise ValueError(f"model: expected two latent dimensions, got {model.latent}")
    like = next(model.decoder.parameters())
    chances = torch.linspace(0.025, 0.975, _checks.integer("points", points), dtype=torch.float64)
    line = torch.special.ndtri(chances).to(like)
    # The first row of images has the largest z2, as in a plot.
    z = torch.stack([line.repeat(points), line.flip(0).repeat_interleave(points)], dim=1)
    with torch.no_grad():
        images = _images("decoder", model.decode(z))
    figure = _figure(7.6, 7.8)
    axes: Any = figure.add_subplot()
    tiled = _tiled(images, points)
    _show(axes, tiled, "white")
    shown = sorted({0, points // 4, points // 2, (3 * points) // 4, points - 1})
    size = tiled.shape[0] / points
    where = [(i + 0.5) * size - 0.5 for i in shown]
    axes.set_xticks(where, [f"{line[i].item():.2f}" for i in shown])
    axes.set_yticks(where, [f"{line.flip(0)[i].item():.2f}" for i in shown])
    axes.set(xlabel="z1", ylabel="z2")
    figure.suptitle(title, fontsize=12)
    return figure


def learning_curves(history: History, title: str = "Learning curves") -> Figure:
    """Plot the negative ELBO of training and validation, and the divergence in it.

    Args:
        history: from :func:`bslfast.training.fit` of a VAE, with at least one epoch.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"history: expected what training.fit returns, got {_checks.describe(history)}"
        )
    if not history.loss:
        raise ValueError("history: expected at least one epoch, got none")
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history.loss) + 1)
    marker = "o" if len(epochs) < 8 else None
    left.plot(epochs, history.loss, color=_BLUE, marker=marker, label="training: -ELBO")
    shown = list(history.loss)
    if history.validation_log_likelihood:
        validation = [-value for value in history.validation_log_likelihood]
        left.plot(epochs, validation, color=_ORANGE, marker=marker, label="validation: -ELBO")
        shown += validation
    left.axvline(history.best_epoch, color=_GREY, ls=":", label=f"best epoch, {history.best_epoch}")
    # The first epochs of many would flatten everything after them.
    settled = 0.95 if len(epochs) >= 20 else 1.0
    low, high = min(shown), torch.tensor(shown, dtype=torch.float64).quantile(settled).item()
    left.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.25 * (high - low) + 1e-9)
    left.set(xlabel="epoch", ylabel="nats per image", title="Loss")
    left.legend(framealpha=0.9, edgecolor="none")
    right.plot(epochs, history.kl, color=_GREEN, marker=marker)
    right.axvline(history.best_epoch, color=_GREY, ls=":")
    right.set(xlabel="epoch", ylabel="nats per image", title="KL(q(z | x) || p(z)), training")
    return _finish(figure, title)


def label_curves(
    history: History, errors: Sequence[float], title: str = "Learning from few labels"
) -> Figure:
    """Plot the loss of semi-supervised training, and the part of wrong classes, by epoch.

    Args:
        history: from :func:`bslfast.training.fit` of a :class:`bslfast.vae.SemiSupervisedVAE`.
        errors: part of wrong classes among held-out images, from 0 to 1, one for each epoch.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"history: expected what training.fit returns, got {_checks.describe(history)}"
        )
    if not history.loss or len(errors) != len(history.loss):
        raise ValueError(
            f"errors: expected one for each of {len(history.loss)} epochs, at least one, got "
            f"{len(errors)}"
        )
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(errors) + 1)
    marker = "o" if len(epochs) < 8 else None
    left.plot(epochs, history.loss, color=_BLUE, marker=marker, label="training: -objective")
    shown = list(history.loss)
    if history.validation_log_likelihood:
        validation = [-value for value in history.validation_log_likelihood]
        left.plot(epochs, validation, color=_ORANGE, marker=marker, label="validation: -bound")
        shown += validation
    # The first epochs of many would flatten everything after them.
    settled = 0.95 if len(epochs) >= 20 else 1.0
    low, high = min(shown), torch.tensor(shown, dtype=torch.float64).quantile(settled).item()
    left.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.25 * (high - low) + 1e-9)
    left.set(xlabel="epoch", ylabel="nats per image", title="Loss")
    left.legend(framealpha=0.9, edgecolor="none")
    right.plot(epochs, [100 * error for error in errors], color=_GREEN, marker=marker)
    right.set(
        xlabel="epoch", ylabel="%", title=f"Wrong classes, held out: {errors[-1]:.2%} at last"
    )
    right.set_ylim(bottom=0)
    return _finish(figure, title)


def _images(name: str, images: Tensor) -> Tensor:
    what = "[n, height, width] or [n, 1, height, width]"
    _checks.floating(name, images, None, what)
    if images.dim() == 4 and images.shape[1] == 1:
        images = images.squeeze(1)
    if images.dim() != 3 or len(images) == 0:
        raise ValueError(
            f"{name}: expected {what} and at least one, got {_checks.describe(images)}"
        )
    return images.detach().cpu().float()


def _tiled(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """One image [height, width] with all of them in rows; gaps and empty places are NaN."""
    n, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    padded = images.new_full((rows * columns, height + gap, width + gap), torch.nan)
    padded[:n, :height, :width] = images
    tiled = padded.view(rows, columns, height + gap, width + gap).transpose(1, 2)
    flat = tiled.reshape(rows * (height + gap), columns * (width + gap))
    return flat[: flat.shape[0] - gap, : flat.shape[1] - gap]


def _show(axes: Any, image: Tensor, behind: str = "#C8D4E0") -> None:
    axes.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(behind)  # shows in the gaps
    axes.spines[:].set_visible(False)
