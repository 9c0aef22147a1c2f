"""What the table of test_flow.py cannot say of single transforms."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bslfast.flows import (
    PLU,
    ActNorm,
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    Atanh,
    BatchNorm,
    Composite,
    ConvConditioner,
    Coupling,
    Flow,
    Glow,
    Householder,
    Images,
    InvertibleConv1x1,
    Leading,
    LeakyReLU,
    Logit,
    PerPixel,
    Planar,
    PLULinear,
    Sigmoid,
    Squeeze,
    Sylvester,
    Tanh,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def stir(module: Any, noise: float = 0.3) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += noise * torch.randn_like(parameter)
    return module


def reloaded(module: Any, other: Any) -> Any:
    """Return ``other`` with the state of ``module``, read from a file."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


# --- elementwise ----------------------------------------------------------------------------------


def test_logit_is_the_inverse_of_sigmoid() -> None:
    x = torch.randn(5, 3)
    torch.testing.assert_close(Logit(3).inverse(x), Sigmoid(3)(x), rtol=0, atol=0)


def test_a_flow_on_the_unit_interval_integrates_to_one() -> None:
    torch.manual_seed(0)
    flow = Flow(Composite([Logit(1), stir(AffineCoupling(1, **DOUBLE), 0.2)]))
    x = (torch.arange(20_000, **DOUBLE) + 0.5) / 20_000
    assert flow.log_prob(x.unsqueeze(1)).exp().mean().item() == pytest.approx(1.0, abs=1e-6)


def test_tanh_flow_has_the_density_of_a_squashed_normal() -> None:
    """The density is that of torch.distributions."""
    flow = Flow(Atanh(1))
    z = torch.randn(50, 1)
    x, log_det = flow.transform.inverse(z)
    base = torch.distributions.Normal(torch.zeros(1), torch.ones(1))
    squashed = torch.distributions.TransformedDistribution(
        base, [torch.distributions.TanhTransform(cache_size=1)]
    )
    value = squashed.transforms[0](z)
    expected = squashed.log_prob(value).squeeze(-1)
    torch.testing.assert_close(value, x)
    torch.testing.assert_close(base.log_prob(z).sum(-1) - log_det, expected)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-4, atol=1e-4)


# --- couplings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_additive_couplings_keep_volumes(d: int) -> None:
    coupling = stir(AdditiveCoupling(d, hidden=(8,)))
    x = torch.randn(4, d)
    for function in (coupling, coupling.inverse):
        z, log_det = function(x)
        assert not log_det.any()
        assert torch.equal(z[:, : coupling.kept], x[:, : coupling.kept])
        assert (z[:, coupling.kept :] != x[:, coupling.kept :]).all()


# --- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", [None, 0])
def test_plu(d: int, seed: int | None) -> None:
    plu = PLU(d, seed=seed, **DOUBLE)
    identity = torch.eye(d, **DOUBLE)
    w = plu.matrix()
    torch.testing.assert_close(w @ w.mT, identity, rtol=0, atol=1e-13)
    if seed is None:
        assert torch.equal(w, identity)
    stir(plu, 0.1)
    torch.testing.assert_close(plu.log_det(), torch.linalg.slogdet(plu.matrix()).logabsdet)
    torch.testing.assert_close(plu.solve(plu.matrix()), identity, rtol=0, atol=1e-9)
    other = reloaded(plu, PLU(d, seed=3, **DOUBLE))
    assert torch.equal(other.matrix(), plu.matrix())


def test_plu_starts_from_what_the_seed_stands_for() -> None:
    before = torch.get_rng_state()
    first, again, other = (PLULinear(5, seed=s).weight.matrix() for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("d", "k"), [(1, 2), (3, 1), (3, 4), (5, 2), (4, 9)])
def test_householder_is_the_product_of_its_reflections(d: int, k: int) -> None:
    module = stir(Householder(d, reflections=k, **DOUBLE))
    expected = torch.eye(d, **DOUBLE)
    for v in module.vectors:
        expected = expected @ (torch.eye(d, **DOUBLE) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(module.matrix(), expected)
    x = torch.randn(6, d, **DOUBLE)
    torch.testing.assert_close(module(x)[0], x @ expected.mT)
    torch.testing.assert_close(module.inverse(x)[0], x @ expected)
    with torch.no_grad():
        module.vectors *= 1e3  # their lengths do not matter
    torch.testing.assert_close(module(x)[0], x @ expected.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sylvester_is_inverted_wherever_it_can_be(dtype: torch.dtype) -> None:
    """Products r s range from next to -1 to large ones."""
    torch.manual_seed(0)
    sylvester = stir(Sylvester(6, rank=5, dtype=dtype))
    with torch.no_grad():
        sylvester.r.diagonal().copy_(torch.tensor([-4.0, -2.0, 0.5, 3.0, 30.0]))
    x = 3 * torch.randn(100, 6, dtype=dtype)
    with torch.no_grad():
        z, log_det = sylvester(x)
        back, back_log_det = sylvester.inverse(z)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(back, x, rtol=0, atol=1e5 * eps)
    # Rounding z changes it by as much as the slopes near a plane differ.
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e6 * eps)


def test_sylvester_of_rank_one_is_planar() -> None:
    torch.manual_seed(0)
    sylvester, planar = stir(Sylvester(3, rank=1, **DOUBLE)), Planar(3, **DOUBLE)
    q, _, s, *_ = sylvester._matrices(torch.float64)
    with torch.no_grad():
        planar.w.copy_(s[0, 0] * q[:, 0])
        planar.b.copy_(sylvester.b[0])
        # softplus(u w) corresponds to r s here.
        product = sylvester.r[0, 0]
        planar.u.copy_(product * planar.w / (planar.w @ planar.w))
    x = torch.randn(7, 3, **DOUBLE)
    torch.testing.assert_close(sylvester(x), planar(x))


# --- normalisation --------------------------------------------------------------------------------


def test_act_norm_starts_from_the_first_batch_alone() -> None:
    torch.manual_seed(0)
    norm = ActNorm(3, **DOUBLE)
    x = torch.tensor([5.0, -1.0, 100.0], **DOUBLE) + torch.randn(4, 50, 3, **DOUBLE) * 3
    assert torch.equal(norm.eval()(x)[0], x)  # not from what it sees in evaluation mode
    assert torch.equal(norm.train().inverse(x)[0], x)  # nor from latent variables
    assert not norm.initialized
    z, log_det = norm(x)
    assert norm.initialized
    rows = z.reshape(-1, 3)
    torch.testing.assert_close(rows.mean(0), torch.zeros(3, **DOUBLE), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows.var(0, correction=0), torch.ones(3, **DOUBLE))
    expected = -0.5 * x.reshape(-1, 3).var(0, correction=0).log().sum()
    torch.testing.assert_close(log_det, expected.expand(4, 50))
    before = norm.loc.detach().clone()
    norm(x + 1)
    assert torch.equal(norm.loc, before)


def test_act_norm_remembers_that_it_is_initialized() -> None:
    norm, x = ActNorm(3), torch.randn(50, 3) * 2 + 1
    expected = norm(x)[0]
    for other in (
        reloaded(norm, ActNorm(3)),
        copy.deepcopy(norm),
        pickle.loads(pickle.dumps(norm)),
    ):
        other.train()(5 * x)
        assert torch.equal(other(x)[0], expected)
    # A state from before the first batch makes a module take its scales anew.
    reset = reloaded(ActNorm(3), norm)
    reset(5 * x)
    torch.testing.assert_close(reset.loc, 5 * x.mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_act_norm_of_constant_features(dtype: torch.dtype) -> None:
    """The rounded mean of equal numbers may differ from them."""
    norm = ActNorm(2, dtype=dtype)
    x = torch.tensor([0.1, 1.7], dtype=dtype).expand(1001, 2)
    z, log_det = norm(x)
    assert z.abs().max() < 1e-6
    assert not log_det.any()
    single = ActNorm(2, dtype=dtype)
    assert not single(x[0])[0].any()


@pytest.mark.parametrize("shape", [(64,), (4, 16)])
def test_batch_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, torchs = BatchNorm(3, **DOUBLE), torch.nn.BatchNorm1d(3, eps=1e-30, **DOUBLE)
    stir(ours)
    with torch.no_grad():
        torchs.weight.copy_(ours.log_gain.exp())
        torchs.bias.copy_(ours.bias)
    for _ in range(3):
        x = (torch.randn(*shape, 3, **DOUBLE) * 5 + 100).requires_grad_()
        z, log_det = ours(x)
        expected = torchs(x.reshape(-1, 3)).reshape(x.shape)
        torch.testing.assert_close(z, expected)
        for a, e in zip(
            torch.autograd.grad(z.sin().sum(), (x, ours.bias)),
            torch.autograd.grad(expected.sin().sum(), (x, torchs.bias)),
            strict=True,
        ):
            torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)
        scale = ours.log_gain - 0.5 * x.reshape(-1, 3).var(0, correction=0).log()
        torch.testing.assert_close(log_det, scale.sum().expand(shape))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(
        ours.eval()(x)[0], torchs.eval()(x.reshape(-1, 3)).reshape(x.shape), rtol=1e-9, atol=1e-9
    )
    back, log_det = ours.inverse(ours(x)[0])
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -ours(x)[1])
    other = reloaded(ours, BatchNorm(3, **DOUBLE)).eval()
    assert torch.equal(other(x)[0], ours(x)[0])


def test_batch_norm_bounds_the_variance_from_below() -> None:
    norm = BatchNorm(1, eps=1e-4)
    z, log_det = norm(torch.full((5, 1), 3.0))
    assert not z.any()
    torch.testing.assert_close(log_det, torch.full((5,), 4.605170))


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3])
def test_squeeze_moves_numbers_only(factor: int) -> None:
    x = torch.randn(2, 5, 3, 4 * factor, 2 * factor)
    squeeze = Squeeze(3, factor=factor)
    z, log_det = squeeze(x)
    assert z.shape == (2, 5, 3 * factor**2, 4, 2)
    assert squeeze.mapped_shape((3, 4 * factor, 2 * factor)) == z.shape[2:]
    assert torch.equal(z, torch.nn.functional.pixel_unshuffle(x, factor))
    assert log_det.shape == (2, 5)
    assert torch.equal(squeeze.inverse(z)[0], x)


def test_invertible_convolution_is_a_convolution() -> None:
    conv = stir(InvertibleConv1x1(3, seed=0, **DOUBLE))
    x = torch.randn(2, 3, 4, 5, **DOUBLE)
    z, log_det = conv(x)
    weight = conv.weight.matrix()
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, weight[:, :, None, None]))
    expected = 20 * torch.linalg.slogdet(weight).logabsdet
    torch.testing.assert_close(log_det, expected.expand(2))
    back, back_log_det = conv.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_log_det, -log_det)
    linear = PLULinear(3, **DOUBLE)
    linear.weight = conv.weight
    torch.testing.assert_close(PerPixel(linear)(x), (z, log_det))
    assert conv(x[0])[0].shape == (3, 4, 5)
    strided = x.mT.contiguous().mT  # not contiguous
    torch.testing.assert_close(conv(strided)[0], z)


def test_a_flow_of_images() -> None:
    torch.manual_seed(0)
    steps = []
    for index in range(2):
        steps += [PerPixel(ActNorm(4)), InvertibleConv1x1(4, seed=index)]
        steps += [PerPixel(AffineCoupling(4, hidden=(8,)))]
    flow = Flow(Images((1, 6, 4), [Squeeze(1), *steps]))
    x = (torch.randn(64, 24) * 3 + 2).detach()
    before = flow.log_prob(x).mean()
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
    assert -loss > before
    flow.eval()
    samples, log_prob = flow.rsample_and_log_prob(5, seed=0)
    assert samples.shape == (5, 24)
    torch.testing.assert_close(flow.log_prob(samples), log_prob, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dims", [0, 1, 2])
def test_convolutions_choose_how_channels_move(dims: int) -> None:
    network = stir(ConvConditioner(1, 4, hidden=(3, 5), **DOUBLE))
    coupling = PerPixel(Coupling(Affine(), [True, False, True], network))
    x = torch.randn(*(2, 3)[:dims], 3, 4, 5, **DOUBLE)
    z, log_det = coupling(x)
    h = x[..., 1:2, :, :].reshape(-1, 1, 4, 5)
    for layer, pad in zip(network.layers, (1, 0, 1), strict=True):
        h = h if layer is network.layers[0] else h.relu()
        h = torch.nn.functional.conv2d(h, layer.weight, layer.bias, padding=pad)
    h = h.view(*x.shape[:-3], 4, 4, 5)
    shift, log_scale = h[..., :2, :, :], 2 * torch.tanh(0.5 * h[..., 2:, :, :])
    expected = x[..., [0, 2], :, :] * log_scale.exp() + shift
    torch.testing.assert_close(z[..., [0, 2], :, :], expected)
    assert torch.equal(z[..., 1, :, :], x[..., 1, :, :])
    torch.testing.assert_close(log_det, log_scale.sum(dim=(-3, -2, -1)))
    torch.testing.assert_close(coupling.inverse(z)[0], x)
    start = ConvConditioner(2, 6, start=(1.0, 2.0, 3.0))(torch.randn(0, 2, 2, 2))
    assert start.shape == (0, 2, 2, 6)


@pytest.mark.parametrize("shape", [(1, 1), (4, 5)], ids=str)
def test_contexts_of_convolutions(shape: tuple[int, int]) -> None:
    """One for all pixels or for each; what it adds to the first layer is a product of its own."""
    network = stir(ConvConditioner(2, 3, context=4, hidden=(3, 5), **DOUBLE))
    x, context = torch.randn(6, 4, 5, 2, **DOUBLE), torch.randn(6, *shape, 4, **DOUBLE)
    h = torch.nn.functional.conv2d(
        x.movedim(-1, 1), network.layers[0].weight, network.layers[0].bias, padding=1
    )
    assert network.context_layer is not None
    h = h + network.context_layer(context).movedim(-1, 1)
    for layer, pad in zip(list(network.layers)[1:], (0, 1), strict=True):
        h = torch.nn.functional.conv2d(h.relu(), layer.weight, layer.bias, padding=pad)
    torch.testing.assert_close(network(x, context), h.movedim(1, -1))
    torch.testing.assert_close(network(x[0], context), network(x[:1].expand_as(x), context))
    # Dimensions that a context has not are those that it is the same along.
    for given in (context[0, 0, 0], context[0, 0], context[0]):
        expected = network(x, given.expand(6, 4, 5, 4))
        torch.testing.assert_close(network(x, given), expected)
        torch.testing.assert_close(network(x[0], given), expected[0])


def test_glow_with_context() -> None:
    """Couplings of all scales and the noise depend on it; at the start nothing does."""
    torch.manual_seed(0)
    flow = Glow((1, 4, 4), context=3, scales=2, steps=2, hidden=(4, 4), **DOUBLE).eval()
    plain = Glow((1, 4, 4), scales=2, steps=2, hidden=(4, 4), **DOUBLE).eval()
    x, context = torch.randn(5, 16, **DOUBLE), torch.randn(5, 3, **DOUBLE)
    torch.testing.assert_close(flow.log_prob(x, context), plain.log_prob(x))
    stir(flow)
    context.requires_grad_()
    z, log_det = flow.transform(x, context)
    torch.testing.assert_close(flow.transform.inverse(z, context)[0], x)
    for row in (0, 4):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, row=row: flow.transform(v, context[row])[0], x[row]
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[row])
    grads = torch.autograd.grad(
        flow.log_prob(x, context).sum(), [context, *flow.parameters()], retain_graph=True
    )
    assert all(grad.abs().sum() > 0 for grad in grads)
    assert torch.autograd.gradcheck(lambda c: flow.log_prob(x[:2], c), context[:2])
    samples, log_prob = flow.rsample_and_log_prob(4, context, seed=0)
    assert samples.shape == (5, 4, 16)
    torch.testing.assert_close(flow.log_prob(samples, context.unsqueeze(1)), log_prob)
    torch.testing.assert_close(
        flow.log_prob(x[:1], context), flow.log_prob(x[:1].expand(5, 16), context)
    )


def test_glow() -> None:
    """The inverse and the log-determinant over several scales, and what it learns."""
    torch.manual_seed(0)
    flow = stir(Glow((1, 4, 4), scales=2, steps=2, hidden=(6, 6), **DOUBLE)).eval()
    x = torch.randn(3, 16, **DOUBLE)
    z, log_det = flow.transform(x)
    torch.testing.assert_close(flow.transform.inverse(z)[0], x)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.transform(v)[0], x[0])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[0])
    first, second = flow.transform.transforms
    assert first.mapped_shape == (4, 2, 2)
    assert second.sizes == (8, 8)  # half of the channels are noise after the first scale
    images = torch.rand(64, 1, dtype=torch.float64).expand(64, 16)
    images = images + 0.1 * torch.randn(64, 16, **DOUBLE)
    flow = Glow((1, 4, 4), scales=2, steps=2, hidden=(6, 6), **DOUBLE)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    before = flow(images).mean().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = -flow(images).mean()
        loss.backward()
        optimizer.step()
    assert -loss.item() > before + 1
    assert flow.eval().sample(3, seed=0).shape == (3, 16)


def test_no_images() -> None:
    """Of none there are samples and densities, and gradients of 0."""
    flow = Glow((1, 4, 4), scales=2, steps=1, hidden=(3,)).eval()
    x, log_prob = flow.rsample_and_log_prob(0)
    assert x.shape == (0, 16)
    for total in (x.sum() + log_prob.sum(), flow.log_prob(x.detach().requires_grad_()).sum()):
        for grad in torch.autograd.grad(total, list(flow.parameters())):
            assert (grad == 0).all()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "negative_slope: expected a finite", lambda: LeakyReLU(2, negative_slope=0)),
        (ValueError, "features: expected an integer of at least 1", lambda: Tanh(0)),
        (ValueError, r"x: .*\[..., 2\]", lambda: Tanh(2)(torch.ones(3))),
        (ValueError, "context: expected None", lambda: Tanh(2)(torch.ones(2), torch.ones(1))),
        (TypeError, "features: expected an integer", lambda: PLULinear(2.0)),
        (ValueError, "seed: expected an integer of at least 0", lambda: PLULinear(2, seed=-1)),
        (ValueError, "reflections: ", lambda: Householder(2, reflections=0)),
        (ValueError, "rank: expected at most features, 2, got 3", lambda: Sylvester(2, rank=3)),
        (ValueError, "rank: expected an integer", lambda: Sylvester(2, rank=0)),
        (ValueError, "momentum: expected", lambda: BatchNorm(2, momentum=1.5)),
        (ValueError, "eps: expected", lambda: BatchNorm(2, eps=0.0)),
        (ValueError, "x: expected at least 2 vectors", lambda: BatchNorm(2)(torch.ones(2))),
        (RuntimeError, "evaluation mode", lambda: BatchNorm(2).inverse(torch.ones(3, 2))),
        (ValueError, "x: .*2 features", lambda: ActNorm(2)(torch.ones(3))),
        (ValueError, "factor: expected an integer of at least 2", lambda: Squeeze(1, factor=1)),
        (ValueError, "multiples of 2, got", lambda: Squeeze(1)(torch.ones(1, 3, 4))),
        (ValueError, r"x: .*\[..., 3, height", lambda: InvertibleConv1x1(3)(torch.ones(2, 4, 4))),
        (ValueError, "x: ", lambda: InvertibleConv1x1(3)(torch.ones(3, 4))),
        (TypeError, "x: ", lambda: InvertibleConv1x1(3)(torch.ones(3, 4, 4).long())),
        (ValueError, r"z: .*\[..., 4, ", lambda: Squeeze(1).inverse(torch.ones(1, 4, 4))),
        (TypeError, "transform: expected an instance", lambda: PerPixel(torch.nn.ReLU())),
        (ValueError, "features: expected at least 3", lambda: Leading(Planar(3), 2)),
        (TypeError, "transform: expected an instance", lambda: Leading(torch.relu, 2)),
        (ValueError, "transform: expected one of all numbers", lambda: Leading(Tanh(1), 2)),
        (ValueError, "inputs: expected an integer", lambda: ConvConditioner(0, 2)),
        (ValueError, "hidden: expected at least 1", lambda: ConvConditioner(1, 2, hidden=())),
        (ValueError, "start: expected numbers", lambda: ConvConditioner(1, 2, start=(1.0,) * 3)),
        (ValueError, "shape: expected .* multiples of 8", lambda: Glow((1, 8, 12))),
        (ValueError, "shape: expected at least 3", lambda: Glow((8, 8))),
        (ValueError, "scales: expected an integer", lambda: Glow((1, 8, 8), scales=0)),
        (ValueError, "steps: expected an integer", lambda: Glow((1, 8, 8), steps=0)),
        (ValueError, "shape: expected .channels", lambda: Images((4, 4), [Squeeze(1)])),
        (ValueError, "shape: expected an integer", lambda: Images((1, 0, 4), [Squeeze(1)])),
        (ValueError, "transforms: expected at least one", lambda: Images((1, 4, 4), [])),
        (TypeError, "transforms: expected instances", lambda: Images((1, 4, 4), [Tanh(1)])),
        (ValueError, "shape: expected 1 channels", lambda: Images((2, 4, 4), [Squeeze(1)])),
        (ValueError, "multiples of 2 for Squeeze", lambda: Images((1, 3, 4), [Squeeze(1)])),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()


def test_shapes_in_their_text() -> None:
    text = repr(Images((1, 4, 4), [Squeeze(1), PerPixel(ActNorm(4))]))
    for part in ("shape=(1, 4, 4)", "factor=2", "features=4", "channels=4"):
        assert part in text


def test_gradients_reach_the_pixels() -> None:
    transform = stir(Images((2, 2, 2), [PerPixel(ActNorm(2, **DOUBLE)), Squeeze(2)]))

    def function(x: Tensor) -> Tensor:
        return transform(x)[0]

    x = torch.randn(3, 8, requires_grad=True, **DOUBLE)
    function(x)  # takes its scales from this batch
    assert torch.autograd.gradcheck(function, x)
