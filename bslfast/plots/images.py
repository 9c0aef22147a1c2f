"""Pictures of models of images: their inputs, their outputs, and the codes in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast import _checks, metrics
from bslfast import functional as BF
from bslfast.plots import _BLUE, _CLASSES, _GREEN, _GREY, _ORANGE, _figure, _finish
from bslfast.predict import evaluating
from bslfast.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.vae import VAE

__all__ = [
    "grid",
    "interpolation",
    "kl_per_dimension",
    "label_curves",
    "latent_grid",
    "latent_space",
    "learning_curves",
    "reconstructions",
    "strips",
]

_TEN_CLASSES = (*_CLASSES[:7], "#8C6D31", "#882255", "#B0B000")


def grid(images: Tensor, title: str, columns: int = 10) -> Figure:
    """Plot images side by side.

    Args:
        images: values in [0, 1]; [n, height, width] or [n, 1, height, width] for grey ones, which
            are dark where values are large; [n, 3, height, width] for red, green and blue.
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
        x: originals, grey or in colour, as of :func:`grid`.
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
    n = -(-len(originals) // columns)
    empty = originals.new_full((n * columns - len(originals), *originals.shape[1:]), torch.nan)
    pairs = [
        _tiled(part, columns)
        for both in zip(
            torch.cat([originals, empty]).chunk(n), torch.cat([made, empty]).chunk(n), strict=True
        )
        for part in both
    ]
    ratio = pairs[0].shape[0] / pairs[0].shape[1]
    figure = _figure(9, 0.6 + 2 * n * (8.2 * ratio + 0.05))
    for i, (axes, strip) in enumerate(zip(figure.subplots(2 * n, 1).flat, pairs, strict=True)):
        _show(axes, strip, "white")
        label = "reconstruction" if i % 2 else "original"
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=12)
    return figure


def strips(rows: Mapping[str, Tensor], title: str = "Reconstructions by epoch") -> Figure:
    """Plot a row of images for each name, such as originals and what became of them.

    Args:
        rows: images by name, grey or in colour as of :func:`grid`, all of one shape.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    parts = {name: _images(name, images) for name, images in rows.items()}
    first = next(iter(parts.values()))
    for name, images in parts.items():
        if images.shape != first.shape:
            raise ValueError(
                f"{name}: expected the shape of the first row, {tuple(first.shape)}, "
                f"got {_checks.describe(images)}"
            )
    figure, axes, _, middles = _table(torch.stack([*parts.values()]), title, 7.3)
    axes.set_yticks(middles, [*parts])
    return figure


def latent_space(
    mu: Tensor, labels: Tensor, names: Sequence[str], title: str = "Latent space by label"
) -> Figure:
    """Plot the means of codes as points, coloured by label.

    Codes of more than two dimensions are projected on their first two principal components, and the
    picture says how much of their variance these have. A single dimension is drawn label by label.

    Args:
        mu: means of the codes, [n, latent].
        labels: int64 [n].
        names: one name per label.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    mu = _checks.floating("mu", mu, 2, "[n, latent]").detach().cpu().double()
    if mu.numel() == 0:
        raise ValueError(f"mu: expected at least one code, got {_checks.describe(mu)}")
    labels = _checks.class_indices("labels", labels, len(names), len(mu)).cpu()
    generator = torch.Generator().manual_seed(0)
    latent = mu.shape[1]
    axis_names, heading = ("z1", "z2"), ""
    if latent == 1:
        noise = torch.rand(len(mu), 1, generator=generator) - 0.5
        mu = torch.cat([mu, labels.unsqueeze(1) + 0.6 * noise], dim=1)
        axis_names = ("z1", "label")
    elif latent > 2:
        mu, share = _principal(mu)
        axis_names = ("first principal component", "second principal component")
        heading = f"two principal components of {latent} dimensions: {share:.0%} of their variance"
    figure = _figure(7.4, 6.2)
    axes: Any = figure.add_subplot()
    order = torch.randperm(len(mu), generator=generator)
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
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1], title=heading)
    if latent == 1:
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_aspect("equal")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title="label")
    return _finish(figure, title)


def _principal(points: Tensor) -> tuple[Tensor, float]:
    """The first two principal components of points, and their part of the variance."""
    centred = points - points.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # in rising order
    share = variances[-2:].sum() / variances.sum().clamp_min(torch.finfo(points.dtype).tiny)
    return centred @ directions[:, -2:].flip(1), share.item()


def latent_grid(
    model: VAE,
    title: str = "Decoded latent grid",
    points: int = 20,
    *,
    dims: tuple[int, int] = (0, 1),
    context: Tensor | None = None,
) -> Figure:
    """Plot the images that a model decodes from a grid of codes in two of its dimensions.

    The prior has equal probabilities between neighbouring grid lines. Common images are in the
    middle, and the rim is at the 2.5 % and 97.5 % quantiles. All other dimensions are 0.

    Args:
        model: a :class:`bslfast.vae.VAE` of images with at least two latent dimensions.
        title: heading of the picture.
        points: number of grid lines in each direction.
        dims: the dimensions, from 0 on, to the right and upwards.
        context: what a conditional model takes beside codes, [1, ...]: the same for all images.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    latent = _latent(model)
    points = _checks.integer("points", points)
    if latent < 2:
        raise ValueError(f"model: expected at least two latent dimensions, got {latent}")
    if len(dims) != 2 or dims[0] == dims[1] or not all(d in range(latent) for d in dims):
        raise ValueError(f"dims: expected two different ones from 0 to {latent - 1}, got {dims!r}")
    if context is not None:
        _checks.floating("context", context)
        if context.shape[:1] != (1,):
            raise ValueError(f"context: expected shape [1, ...], got {_checks.describe(context)}")
        context = context.expand(points * points, *context.shape[1:])
    like = next(model.decoder.parameters())
    chances = torch.linspace(0.025, 0.975, points, dtype=torch.float64)
    line = torch.special.ndtri(chances).to(like)
    z = like.new_zeros(points, points, latent)
    z[..., dims[0]] = line
    # The first row of images has the largest code, as in a plot.
    z[..., dims[1]] = line.flip(0).unsqueeze(1)
    with torch.no_grad(), evaluating(model):
        images = _images("decoder", model.decode(z.flatten(0, 1), context))
    figure, axes, columns, rows = _table(images.unflatten(0, (points, points)), title, 7)
    shown = sorted({0, points // 4, points // 2, (3 * points) // 4, points - 1})
    axes.set_xticks([columns[i] for i in shown], [f"{line[i].item():.2f}" for i in shown])
    axes.set_yticks([rows[i] for i in shown], [f"{line.flip(0)[i].item():.2f}" for i in shown])
    rest = "" if latent == 2 else ", all others 0"
    axes.set(xlabel=f"z{dims[0] + 1}{rest}", ylabel=f"z{dims[1] + 1}")
    return figure


def interpolation(
    model: VAE,
    x: Tensor,
    other: Tensor,
    title: str = "Between the codes of two images",
    *,
    steps: int = 9,
    spherical: bool = False,
    context: Tensor | None = None,
) -> Figure:
    r"""Plot what a model decodes on the way from the code of an image to that of another.

    A row for each pair: the first image, the decoded codes, the second image. The codes are on the
    line between both means, or, with ``spherical``, on an arc:

    .. math:: z(t) = \frac{\sin((1 - t) \omega)\, z_0 + \sin(t \omega)\, z_1}{\sin \omega}, \quad
        \cos \omega = \frac{z_0 \cdot z_1}{|z_0|\, |z_1|}

    In many dimensions the middle of a line is nearer to the origin than nearly all codes of the
    prior; an arc stays among them.

    Args:
        model: a :class:`bslfast.vae.VAE` of images.
        x: first images, as the model takes them, grey or in colour as of :func:`grid`.
        other: second images, of the same shape.
        title: heading of the picture.
        steps: codes of a row, at least 2; the ends are the codes of the images.
        spherical: whether the way is an arc.
        context: what a conditional model takes beside both images of a pair, [n, ...].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: White, "Sampling generative networks" (2016, arXiv:1609.04468), section 2.1.
    """
    _latent(model)
    first, second = _images("x", x), _images("other", other)
    if first.shape != second.shape:
        raise ValueError(
            f"other: expected the shape of x, {tuple(x.shape)}, got {_checks.describe(other)}"
        )
    steps = _checks.integer("steps", steps, 2)
    _checks.flag("spherical", spherical)
    with torch.no_grad(), evaluating(model):
        start, end = (model.codes(images, context).unsqueeze(1) for images in (x, other))
        t = torch.linspace(0, 1, steps).to(start).unsqueeze(1)
        z = _arc(start, end, t) if spherical else (1 - t) * start + t * end
        if context is not None:
            context = context.repeat_interleave(steps, dim=0)
        decoded = _images("decoder", model.decode(z.flatten(0, 1), context))
    rows = [first.unsqueeze(1), decoded.unflatten(0, (len(first), steps)), second.unsqueeze(1)]
    figure, axes, middles, _ = _table(torch.cat(rows, dim=1), title, 7.3)
    axes.set_xticks(
        middles, ["first", *(f"{value:.2g}" for value in t.flatten().tolist()), "second"]
    )
    return figure


def _arc(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    angle = torch.cosine_similarity(start, end, dim=-1).clamp(-1, 1).acos().unsqueeze(-1)
    flat = angle.sin() < 1e-4  # parallel codes have no arc between them
    sine = torch.where(flat, 1.0, angle.sin())
    arc = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / sine
    return torch.where(flat, (1 - t) * start + t * end, arc)


def kl_per_dimension(
    mu: Tensor, log_var: Tensor, title: str = "KL divergence of each latent dimension"
) -> Figure:
    """Plot the divergence of each dimension of codes from N(0, 1), averaged over examples.

    The largest comes first. Dimensions that are not active (:func:`bslfast.metrics.active_units`)
    are grey.

    Args:
        mu: means of the posteriors of at least two examples, [n, latent].
        log_var: logarithms of their variances, of the same shape.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    active = metrics.is_active(mu).cpu()
    _checks.floating("log_var", log_var, 2, "[n, latent]")
    if log_var.shape != mu.shape:
        raise ValueError(
            f"log_var: expected the shape of mu, {tuple(mu.shape)}, got {_checks.describe(log_var)}"
        )
    each = BF.normal_kl(mu.detach(), log_var.detach(), parametrization="log_var", reduction="none")
    kl, order = each.mean(0).cpu().sort(descending=True)
    figure = _figure(min(12.0, max(5.0, 2.5 + 0.24 * len(kl))), 3.8)
    axes: Any = figure.add_subplot()
    on = active[order].nonzero().flatten().tolist()
    off = (~active[order]).nonzero().flatten().tolist()
    counts = f"{len(on)} of {len(kl)}"
    axes.bar(on, kl[on].tolist(), color=_BLUE, label=f"active, {counts}: variance of means > 0.01")
    if off:
        axes.bar(off, kl[off].tolist(), color=_GREY, label="not active")
    shown = range(0, len(kl), -(-len(kl) // 40))
    axes.set_xticks(shown, [f"z{order[i].item() + 1}" for i in shown], fontsize=8)
    for i, label in zip(shown, axes.get_xticklabels(), strict=True):
        label.set_color(_BLUE if i in on else _GREY)  # as some bars are too low to be seen
    axes.set(ylabel="nats per example", title=f"sum {kl.sum().item():.4g} nats", axisbelow=True)
    axes.legend(frameon=False, loc="upper right")
    axes.margins(y=0.2)
    figure = _finish(figure, title)
    axes.grid(visible=False, axis="x")
    return figure


def learning_curves(history: History, title: str = "Learning curves") -> Figure:
    """Plot the negative ELBO of training and validation, and the divergence in it.

    Args:
        history: from :func:`bslfast.training.fit` of a VAE, with at least one epoch.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    _check_history(history)
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
    for axes in (left, right):
        axes.locator_params("x", integer=True)
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
    _check_history(history)
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
    """Grey images as [n, height, width], colour images as [n, height, width, 3], on the CPU."""
    what = "[n, height, width], [n, 1, height, width] or [n, 3, height, width]"
    _checks.floating(name, images, None, what)
    given, images = images, images.detach().cpu().float()
    if images.dim() == 4 and images.shape[1] == 1:
        images = images.squeeze(1)
    elif images.dim() == 4 and images.shape[1] == 3:
        images = images.movedim(1, -1)
    elif images.dim() != 3:
        images = images.new_empty(0)
    if len(images) == 0:
        raise ValueError(f"{name}: expected {what} and at least one, got {_checks.describe(given)}")
    return images


def _check_history(history: Any) -> None:
    if not isinstance(history, History):
        raise TypeError(
            f"history: expected what training.fit returns, got {_checks.describe(history)}"
        )


def _latent(model: Any) -> int:
    from bslfast.vae import VAE

    if not isinstance(model, VAE):
        raise TypeError(f"model: expected a bslfast.vae.VAE, got {_checks.describe(model)}")
    if model.latent is None:
        raise ValueError("model: expected a known number of latent dimensions, got None")
    if model.posterior.code_size(model.latent) != model.latent:
        raise ValueError(
            "model: expected codes with a number for each latent dimension, got those of "
            f"{model.posterior}"
        )
    return model.latent


def _table(
    images: Tensor, title: str, width: float
) -> tuple[Figure, Any, list[float], list[float]]:
    """Draw images [rows, columns, height, width, ...]; return the middles of columns and rows."""
    tiled = _tiled(images.flatten(0, 1), images.shape[1])
    # Beside the images there is room for labels, above them for the title.
    figure = _figure(width + 0.7, 0.7 + width * tiled.shape[0] / tiled.shape[1])
    axes: Any = figure.add_subplot()
    _show(axes, tiled, "white")
    figure.suptitle(title, fontsize=12)
    rows, columns, height, width_in_pixels = images.shape[:4]
    middles = [
        [i * (size + 1) + 0.5 * (size - 1) for i in range(n)]
        for n, size in ((columns, width_in_pixels), (rows, height))
    ]
    return figure, axes, middles[0], middles[1]


def _tiled(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """One image [height, width, ...] with all of them in rows; gaps and empty places are NaN."""
    n, height, width, *channels = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    padded = images.new_full((rows * columns, height + gap, width + gap, *channels), torch.nan)
    padded[:n, :height, :width] = images
    tiled = padded.view(rows, columns, height + gap, width + gap, *channels).transpose(1, 2)
    flat = tiled.reshape(rows * (height + gap), columns * (width + gap), *channels)
    return flat[: flat.shape[0] - gap, : flat.shape[1] - gap]


def _show(axes: Any, image: Tensor, behind: str = "#C8D4E0") -> None:
    if image.dim() == 2:
        axes.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        # Gaps are transparent, as NaN is in grey images.
        seen = image.isnan().logical_not().all(-1, keepdim=True)
        colours = torch.cat([image.nan_to_num(0.0).clamp(0, 1), seen.float()], -1)
        axes.imshow(colours.numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(behind)  # shows in the gaps
    axes.spines[:].set_visible(False)
