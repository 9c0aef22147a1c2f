"""Pictures of models of images: their content and their errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bslfast.likelihoods import DiscretizedLogisticMixture, get
from bslfast.training import History
from bslfast.vae import VAE, conv_decoder, conv_encoder, mlp_decoder, mlp_encoder

pytest.importorskip("matplotlib")
from bslfast.plots import images

NAMES = [str(k) for k in range(10)]
ONE = torch.zeros(1, 1, 8, 8)


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


def test_reconstructions_leaves_no_image_out() -> None:
    x = torch.rand(5, 4, 4)
    figure = images.reconstructions(x, 1 - x, columns=3)
    last = figure.axes[2].images[0].get_array()
    assert torch.allclose(torch.tensor(last[:, 5:9].data), x[4])
    assert last.mask[:, 10:].all()


def test_strips_have_a_row_for_each_name() -> None:
    rows = {name: torch.rand(4, 1, 3, 2) for name in ("original", "epoch 1", "epoch 2")}
    axes = images.strips(rows).axes[0]
    shown = axes.images[0].get_array()
    assert shown.shape == (3 * 4 - 1, 4 * 3 - 1)
    assert torch.allclose(torch.tensor(shown[4:7, 3:5].data), rows["epoch 1"][1, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == [*rows]
    assert list(axes.get_yticks()) == [1, 5, 9]


@pytest.mark.parametrize("latent", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 30])
def test_latent_space(latent: int, n: int) -> None:
    scales = torch.tensor([0.1, 1.0, 0.3, 2.0, 0.2])[:latent]
    mu, labels = scales * torch.randn(n, latent) + 1, torch.arange(n) % 10
    axes = images.latent_space(mu, labels, NAMES).axes[0]
    points = torch.tensor(axes.collections[0].get_offsets().data).float()
    assert points.shape == (n, 2)
    assert len(axes.texts) == min(n, 10)
    if latent == 2:
        assert torch.allclose(points.sort(0).values, mu.sort(0).values)
        assert axes.get_title() == ""
    elif latent == 1:  # the label upwards
        assert torch.allclose(points[:, 0].sort().values, mu[:, 0].sort().values)
        assert points[:, 1].round().sort().values.tolist() == sorted(labels.tolist())
    elif n > 1:
        values = torch.linalg.svdvals(mu - mu.mean(0)).square()
        assert torch.allclose(points.square().sum(0), values[:2], rtol=1e-3)
        share = (values[:2].sum() / values.sum()).item()
        assert axes.get_title() == (
            f"two principal components of 5 dimensions: {share:.0%} of their variance"
        )


def test_kl_per_dimension() -> None:
    """Each bar is the mean over the examples, the largest first."""
    mu = torch.tensor([[0.0, 2.0, 0.0], [0.0, -2.0, 0.4]])
    log_var = torch.tensor([[0.0, -1.0, 0.0], [1.0, -1.0, 0.0]])
    axes = images.kl_per_dimension(mu, log_var).axes[0]
    expected = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean(0)
    shown = {round(bar.get_x() + 0.4): bar.get_height() for bar in axes.patches}
    order = [1, 0, 2]
    assert [shown[i] for i in range(3)] == pytest.approx(expected[order].tolist(), rel=1e-5)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["z2", "z1", "z3"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["active, 2 of 3: variance of means > 0.01", "not active"]
    assert [len(bars) for bars in axes.containers] == [2, 1]
    assert axes.get_title() == f"sum {expected.sum():.4g} nats"


@pytest.mark.parametrize("latent", [1, 60])
def test_kl_per_dimension_of_any_number(latent: int) -> None:
    mu = torch.randn(9, latent)
    axes = images.kl_per_dimension(mu, torch.zeros_like(mu)).axes[0]
    assert len(axes.patches) == latent
    assert len(axes.get_xticklabels()) <= 40


def test_interpolation_is_the_line_between_the_codes() -> None:
    model, (x, other) = vae(3), torch.rand(2, 2, 1, 8, 8)
    axes = images.interpolation(model, x, other, steps=5).axes[0]
    shown = torch.tensor(axes.images[0].get_array().filled(2.0))
    assert shown.shape == (2 * 9 - 1, 7 * 9 - 1)

    def image(row: int, column: int) -> torch.Tensor:
        return shown[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]

    with torch.no_grad():
        start, end = model.encode(x)[0], model.encode(other)[0]
        quarter = model.decode(0.75 * start + 0.25 * end)
        ends = model.decode(torch.cat([start, end]))
    for row in range(2):
        assert torch.equal(image(row, 0), x[row, 0])
        assert torch.equal(image(row, 6), other[row, 0])
        assert torch.allclose(image(row, 1), ends[row, 0], atol=1e-6)
        assert torch.allclose(image(row, 2), quarter[row, 0], atol=1e-6)
        assert torch.allclose(image(row, 5), ends[2 + row, 0], atol=1e-6)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["first", "0", "0.25", "0.5", "0.75", "1", "second"]


def test_an_arc_keeps_the_length_of_codes() -> None:
    start, end = torch.randn(2, 4, 1, 6, dtype=torch.float64)
    end = end * (start.norm(dim=-1) / end.norm(dim=-1)).unsqueeze(-1)
    t = torch.linspace(0, 1, 7, dtype=torch.float64).unsqueeze(1)
    z = images._arc(start, end, t)
    assert torch.allclose(z.norm(dim=-1), start.norm(dim=-1).expand(4, 7))
    angles = torch.cosine_similarity(z[:, 1:], z[:, :-1], dim=-1).acos()
    assert torch.allclose(angles, angles[:, :1].expand(4, 6))
    assert torch.allclose(z[:, [0]], start)
    assert torch.allclose(z[:, [-1]], end)
    # Where there is no arc it is the line, without NaN.
    for other in (2 * start, -start, torch.zeros_like(start)):
        assert torch.allclose(images._arc(start, other, t)[:, [-1]], other)
    assert torch.allclose(images._arc(start, 2 * start, t), (1 + t) * start)


def test_an_arc_is_drawn() -> None:
    model, (x, other) = vae(3), torch.rand(2, 1, 1, 8, 8)
    line, arc = (
        torch.tensor(
            images.interpolation(model, x, other, steps=3, spherical=spherical)
            .axes[0].images[0].get_array().filled(2.0)
        )
        for spherical in (False, True)
    )  # fmt: skip
    middle = slice(18, 26)
    assert not torch.allclose(line[:, middle], arc[:, middle], atol=1e-6)
    arc[:, middle] = line[:, middle]
    assert torch.allclose(line, arc, atol=1e-6)


def test_pictures_leave_the_model_as_it_was() -> None:
    """Also statistics of batches, which a pass in training mode would change."""
    torch.manual_seed(0)
    shape = (1, 4, 4)
    model = VAE(conv_encoder(shape, 2, (3,), (2,)), conv_decoder(2, shape, (3, 2), (2, 1)))
    model(torch.rand(4, *shape))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images.latent_grid(model, points=3)
    images.interpolation(model, torch.rand(2, *shape), torch.rand(2, *shape))
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(module.training for module in model.modules())


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


def test_latent_grid_of_two_dimensions_among_others() -> None:
    model = vae(4)
    axes = images.latent_grid(model, points=3, dims=(3, 1)).axes[0]
    z = torch.zeros(1, 4)
    z[0, 3] = torch.special.ndtri(torch.tensor(0.975, dtype=torch.float64))
    z[0, 1] = -z[0, 3]
    with torch.no_grad():
        corner = model.decode(z)[0, 0]
    shown = axes.images[0].get_array()
    assert torch.allclose(torch.tensor(shown[-8:, -8:].data), corner, atol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z4, all others 0", "z2")


def conditional() -> VAE:
    shape = (1, 8, 8)
    networks = (
        mlp_encoder(shape, 2, (8,), context=3), mlp_decoder(2, shape, (8,), context=3)
    )  # fmt: skip
    return VAE(*networks, latent=2)


def test_pictures_of_a_conditional_model() -> None:
    model, classes = conditional(), torch.eye(3)
    axes = images.latent_grid(model, points=3, context=classes[1:2]).axes[0]
    shown = torch.tensor(axes.images[0].get_array().filled(2.0))
    with torch.no_grad():
        middle = model.decode(torch.zeros(1, 2), classes[1:2])[0, 0]
    assert torch.allclose(shown[9:17, 9:17], middle, atol=1e-6)
    x, other = torch.rand(2, 2, 1, 8, 8)
    axes = images.interpolation(model, x, other, steps=3, context=classes[:2]).axes[0]
    shown = torch.tensor(axes.images[0].get_array().filled(2.0))
    expected = model.interpolate(x, other, 3, context=classes[:2]).detach()
    for row in range(2):
        for step in range(3):
            image = shown[9 * row : 9 * row + 8, 9 * (step + 1) : 9 * (step + 1) + 8]
            assert torch.allclose(image, expected[step, row, 0], atol=1e-6)


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
        (lambda: images.grid(torch.zeros(2, 4, 8, 8), ""), ValueError, r"^images: "),
        (lambda: images.grid(torch.zeros(2, 3, 3).long(), ""), TypeError, r"^images: .*int64"),
        (lambda: images.grid(torch.zeros(2, 3, 3), "", 0), ValueError, r"^columns: .*got 0"),
        (lambda: images.reconstructions(torch.zeros(2, 3, 3), torch.zeros(2, 3, 4)), ValueError,
         r"^reconstructed: expected the shape of x, \(2, 3, 3\)"),
        (lambda: images.latent_space(torch.zeros(3), torch.zeros(3).long(), NAMES), ValueError,
         r"^mu: "),
        (lambda: images.latent_space(torch.zeros(3, 2), torch.full((3,), 10), NAMES), ValueError,
         r"^labels: .*0 to 9"),
        (lambda: images.latent_grid(torch.nn.Identity()), TypeError, r"^model: .*VAE"),
        (lambda: images.latent_space(torch.zeros(0, 2), torch.zeros(0).long(), NAMES), ValueError,
         r"^mu: .*at least one"),
        (lambda: images.latent_grid(vae(1)), ValueError, r"^model: .*at least two.* got 1"),
        (lambda: images.latent_grid(vae(3), dims=(1, 1)), ValueError, r"^dims: .*\(1, 1\)"),
        (lambda: images.latent_grid(vae(3), dims=(0, 3)), ValueError, r"^dims: .*0 to 2"),
        (lambda: images.latent_grid(VAE(nn.Linear(4, 4), nn.Linear(2, 4))), ValueError,
         r"^model: expected a known number"),
        (lambda: images.latent_grid(vae(), context=torch.eye(3)), ValueError,
         r"^context: expected shape \[1, \.\.\.\], got .*\(3, 3\)"),
        (lambda: images.latent_grid(vae(), context=1), TypeError, r"^context: "),
        (lambda: images.latent_grid(vae(), context=torch.eye(3)[:1]), TypeError, r"^context: "),
        (lambda: images.interpolation(vae(), ONE, ONE, context=torch.eye(3)), ValueError,
         r"^context: expected shape \[1, \.\.\.\]"),
        (lambda: images.interpolation(nn.Identity(), ONE, ONE), TypeError, r"^model: .*VAE"),
        (lambda: images.interpolation(vae(), ONE, ONE[:0]), ValueError, r"^other: .*at least one"),
        (lambda: images.interpolation(vae(), ONE, ONE.repeat(2, 1, 1, 1)), ValueError,
         r"^other: expected the shape of x"),
        (lambda: images.interpolation(vae(), ONE, ONE, steps=1), ValueError, r"^steps: "),
        (lambda: images.interpolation(vae(), ONE, ONE, spherical=1), TypeError, r"^spherical: "),
        (lambda: images.strips({}), ValueError, r"^rows: .*got none"),
        (lambda: images.strips({"a": ONE, "b": ONE[..., :4]}), ValueError,
         r"^b: expected the shape of the first row"),
        (lambda: images.kl_per_dimension(torch.zeros(1, 2), torch.zeros(1, 2)), ValueError,
         r"^mu: .*at least 2"),
        (lambda: images.kl_per_dimension(torch.zeros(3, 2), torch.zeros(3, 1)), ValueError,
         r"^log_var: expected the shape of mu"),
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


def test_colours_are_in_their_places() -> None:
    pictures = torch.rand(5, 3, 2, 3)
    shown = torch.tensor(images.grid(pictures, "title", columns=3).axes[0].images[0].get_array())
    assert shown.shape == (2 * 2 + 1, 3 * 3 + 2, 4)
    for i, picture in enumerate(pictures):
        top, left = 3 * (i // 3), 4 * (i % 3)
        place = shown[top : top + 2, left : left + 3]
        assert torch.equal(place[..., :3], picture.movedim(0, -1))
        assert bool((place[..., 3] == 1).all())
    assert bool((shown[2, :, 3] == 0).all())  # the gap
    assert bool((shown[3:, 8:, 3] == 0).all())  # nothing where no image is
    # Rounding may leave [0, 1].
    far = images.grid(torch.tensor([-0.1, 0.5, 1.1]).view(1, 3, 1, 1), "title").axes[0].images[0]
    assert far.get_array()[0, 0].tolist() == [0.0, 0.5, 1.0, 1.0]


def colour_vae(likelihood: str = "bernoulli") -> VAE:
    mixture = DiscretizedLogisticMixture(None, low=0.0, high=1.0)
    law = get(mixture if "mixture" in likelihood else likelihood, None)
    decoder = mlp_decoder(2, (3 * len(law.parts), 8, 8), (8,))
    return VAE(mlp_encoder((3, 8, 8), 2, (8,)), decoder, latent=2, likelihood=law)


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized_logistic_mixture"])
def test_pictures_of_models_of_colour_images(likelihood: str) -> None:
    """What each shows is what the model decodes, as colours from 0 to 1."""
    torch.manual_seed(0)
    model, x = colour_vae(likelihood), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        made = model.reconstruct(x)
        grid = images.reconstructions(x, made, columns=4)
        decoded = model.decode(model.codes(x))
    first, second = (torch.tensor(axes.images[0].get_array()) for axes in grid.axes)
    torch.testing.assert_close(first[:, :8, :3], x[0].movedim(0, -1))
    torch.testing.assert_close(second[:, 9:17, :3], made[1].movedim(0, -1).float())
    way = torch.tensor(images.interpolation(model, x[:1], x[1:2], steps=3).axes[0].images[0]
                       .get_array())  # fmt: skip
    assert way.shape == (8, 5 * 9 - 1, 4)
    torch.testing.assert_close(way[:, 9:17, :3], decoded[0].movedim(0, -1).float())
    torch.testing.assert_close(way[:, 36:, :3], x[1].movedim(0, -1))
    axes = images.latent_grid(model, points=5).axes[0]
    assert axes.images[0].get_array().shape == (5 * 9 - 1, 5 * 9 - 1, 4)
    rows = images.strips({"original": x, "made": made}).axes[0]
    assert list(rows.get_yticks()) == [3.5, 12.5]
    sampled = images.grid(model.sample(6, seed=1).detach(), "samples", columns=3)
    assert sampled.axes[0].images[0].get_array().shape == (2 * 9 - 1, 3 * 9 - 1, 4)


def test_grey_and_colour_do_not_mix() -> None:
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="reconstructed: expected the shape of x"):
        images.reconstructions(colour, grey)
    for wrong in (torch.rand(2, 2, 4, 4), torch.rand(4, 4), torch.rand(0, 3, 4, 4)):
        with pytest.raises(
            ValueError, match=r"images: expected \[n, height, width\], \[n, 1, .* 3,"
        ):
            images.grid(wrong, "title")
