"""Pictures of models of images: their content and their errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bslfast.training import History
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

pytest.importorskip("matplotlib")
from bslfast.plots import images

NAMES = [str(k) for k in range(10)]


def vae(latent: int = 2) -> VAE:
    shape = (1, 8, 8)
    return VAE(mlp_encoder(shape, latent, (8,)), mlp_decoder(latent, shape, (8,)), latent=latent)


def test_grid_has_every_image_in_its_place() -> None:
    pictures = torch.rand(5, 1, 2, 3)
    shown = images.grid(pictures, "title", columns=3).axes[0].images[0].get_array()
    assert shown.shape == (2 * 2 + 1, 3 * 3 + 2)
    for i, picture in enumerate(pictures[:, 0]):
        top, left = 3 * (i // 3), 4 * (i % 3)
        assert torch.equal(torch.tensor(shown[top : top + 2, left : left + 3]), picture)
    assert shown.mask[3:, 8:].all()  # nothing where no image is


def test_reconstructions_stand_below_originals() -> None:
    x = torch.rand(6, 4, 4)
    figure = images.reconstructions(x, 1 - x, columns=3)
    assert [axes.get_ylabel() for axes in figure.axes] == ["original", "reconstruction"] * 2
    first, second = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert ((first + second).compressed() - 1).max() < 1e-6


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_latent_space(latent: int) -> None:
    mu, labels = torch.randn(30, latent), torch.arange(30) % 10
    figure = images.latent_space(mu, labels, NAMES)
    points = figure.axes[0].collections[0].get_offsets()
    assert points.shape == (30, 2)
    assert len(figure.axes[0].texts) == 10
    if latent == 2:
        shown = torch.tensor(points.data).float()
        assert torch.allclose(shown.sort(0).values, mu.sort(0).values)


def test_latent_grid_is_laid_out_as_a_plot() -> None:
    """z1 to the right, z2 upwards."""
    model = vae()
    shown = images.latent_grid(model, points=5).axes[0].images[0].get_array()
    assert shown.shape == (44, 44)
    z = torch.special.ndtri(torch.tensor([[0.975, 0.025], [0.5, 0.5]], dtype=torch.float64)).float()
    with torch.no_grad():
        corner, middle = model.decode(z)[:, 0]
    assert torch.allclose(torch.tensor(shown[-8:, -8:].data), corner, atol=1e-6)
    assert torch.allclose(torch.tensor(shown[18:26, 18:26].data), middle, atol=1e-6)


def test_learning_curves() -> None:
    history = History([3.0, 2.0], [0.1, 0.2], [-3.5, -2.5], best_epoch=2)
    left, right = images.learning_curves(history).axes
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [[3.0, 2.0], [3.5, 2.5]]
    assert list(right.lines[0].get_ydata()) == [0.1, 0.2]


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [
        (lambda: images.grid(torch.zeros(2, 3), ""), ValueError, r"^images: .*\(2, 3\)"),
        (lambda: images.grid(torch.zeros(0, 3, 3), ""), ValueError, r"^images: .*at least one"),
        (lambda: images.grid(torch.zeros(2, 3, 8, 8), ""), ValueError, r"^images: "),
        (lambda: images.grid(torch.zeros(2, 3, 3).long(), ""), TypeError, r"^images: .*int64"),
        (lambda: images.grid(torch.zeros(2, 3, 3), "", 0), ValueError, r"^columns: .*got 0"),
        (lambda: images.reconstructions(torch.zeros(2, 3, 3), torch.zeros(2, 3, 4)), ValueError,
         r"^reconstructed: expected the shape of x, \(2, 3, 3\)"),
        (lambda: images.latent_space(torch.zeros(3), torch.zeros(3).long(), NAMES), ValueError,
         r"^mu: "),
        (lambda: images.latent_space(torch.zeros(3, 2), torch.full((3,), 10), NAMES), ValueError,
         r"^labels: .*0 to 9"),
        (lambda: images.latent_grid(torch.nn.Identity()), TypeError, r"^model: .*VAE"),
        (lambda: images.latent_grid(vae(3)), ValueError, r"^model: .* got 3"),
        (lambda: images.learning_curves([1.0]), TypeError, r"^history: "),
        (lambda: images.learning_curves(History()), ValueError, r"^history: .*got none"),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[], object], exception: type[Exception], match: str) -> None:
    with pytest.raises(exception, match=match):
        call()


def test_label_curves() -> None:
    history = History(loss=[3.0, 2.0], kl=[0.0, 0.0], validation_log_likelihood=[-4.0, -1.0])
    left, right = images.label_curves(history, [0.5, 0.25]).axes
    assert [list(line.get_ydata()) for line in left.lines] == [[3, 2], [4, 1]]
    assert list(right.lines[0].get_ydata()) == [50, 25]
    assert "25.00%" in right.get_title()
    with pytest.raises(ValueError, match="errors: expected one for each of 2 epochs"):
        images.label_curves(history, [0.5])
    with pytest.raises(TypeError, match="history: expected what"):
        images.label_curves([3.0], [0.5])  # type: ignore[arg-type]
