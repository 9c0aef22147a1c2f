"""Bayesian networks as one call: what they compute op by op, up to rounding."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import likelihoods, programs
from bslfast.bnn import BayesianMLP
from bslfast.nn import kl, one_draw, posteriors, priors

pytestmark = pytest.mark.usefixtures("either_way")

NETWORKS: dict[str, Callable[[], BayesianMLP]] = {
    "no hidden layer": lambda: BayesianMLP(3, (), 2),
    "tanh, log_scale": lambda: BayesianMLP(
        3, (9,), 1, activation="tanh", parametrization="log_scale"
    ),
    "sigmoid, log_var, prior": lambda: BayesianMLP(
        3, (5, 7), 1, activation="sigmoid", parametrization="log_var", prior_scale=0.3
    ),
    "silu, priors by name": lambda: BayesianMLP(
        3, (40,), 1, activation="silu", prior={"bias": priors.Normal(0.5, 2.0)}
    ),
    "gelu": lambda: BayesianMLP(3, (9,), 2, activation="gelu"),
    "relu, wide": lambda: BayesianMLP(3, (33, 70), 2, likelihood="heteroscedastic_normal"),
}
of_each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def made(network: Callable[[], BayesianMLP], dtype: torch.dtype = torch.float64) -> BayesianMLP:
    torch.manual_seed(0)
    model = network().to(dtype)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def program_of(model: BayesianMLP, x: Tensor) -> programs.Lowered:
    found = model._program(x)
    assert found is not None
    return found


def both(function: Callable[[], Any]) -> tuple[Any, Any]:
    """The results as one call and op by op, which leave torch's generator in the same state."""
    results, states = [], []
    for on in (True, False):
        torch.manual_seed(1)
        with bslfast.whole_networks(on):
            results.append(function())
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    return results[0], results[1]


@of_each_network
def test_outputs_and_gradients(network: Callable[[], BayesianMLP]) -> None:
    model = made(network)
    x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    assert program_of(model, x).steps > 0
    weights = torch.randn_like(model(x))
    of = [x, *(p for layer in model.layers for p in layer.parameters())]

    def everything() -> tuple[Tensor, ...]:
        y = model(x)
        divergence = kl(model)
        loss = (y * weights).sum() + 0.3 * divergence
        grads = torch.autograd.grad(loss, of, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in grads), of)
        return y, divergence, *grads, *again

    once, by_ops = both(everything)
    for first, second in zip(once, by_ops, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_gradients_without_a_graph_of_theirs() -> None:
    model = made(NETWORKS["relu, wide"])
    x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    of = [x, *(p for layer in model.layers for p in layer.parameters())]

    def grads() -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(x).square().mean() + 0.1 * kl(model), of)

    for first, second in zip(*both(grads), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("part", ["outputs", "divergence"])
def test_gradients_of_a_part(part: str) -> None:
    model = made(NETWORKS["tanh, log_scale"])
    x = torch.randn(50, 3, dtype=torch.float64)
    model.layers[0].weight_raw_scale.requires_grad_(False)
    of = [p for layer in model.layers for p in layer.parameters() if p.requires_grad]

    def grads() -> tuple[Tensor, ...]:
        y, divergence = model(x), kl(model)
        return torch.autograd.grad(y.sum() if part == "outputs" else divergence, of)

    for first, second in zip(*both(grads), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


@of_each_network
@pytest.mark.parametrize("shape", [(50,), (3, 11), (1,)])
def test_samples(network: Callable[[], BayesianMLP], shape: tuple[int, ...]) -> None:
    model = made(network)
    x = torch.randn(*shape, 3, dtype=torch.float64)
    with torch.no_grad():
        once, by_ops = both(lambda: model.sample_outputs(x, 7))
    assert once.shape == (7, *shape, once.shape[-1])
    torch.testing.assert_close(once, by_ops, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        once, by_ops = both(lambda: model(x))
    torch.testing.assert_close(once, by_ops, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    model = made(NETWORKS["relu, wide"], dtype)
    x = torch.randn(200, 3, dtype=dtype)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(2)
        y = model(x)
        grads = torch.autograd.grad(y.square().sum() + kl(model), list(model.layers.parameters()))
        with torch.no_grad():
            found.append((y.detach(), *grads, model.sample_outputs(x, 9)))
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def _flipped(model: BayesianMLP) -> None:
    model.layers[0].estimator = _OtherEstimator()  # type: ignore[assignment]


class _OtherEstimator(bslfast.nn.estimators.WeightSample):
    pass


CHANGES: dict[str, Callable[[BayesianMLP], Any]] = {
    "an estimator": _flipped,
    "a hook": lambda model: model.layers[1].register_forward_hook(lambda *_: None),
    "a layer": lambda model: model.layers.__setitem__(
        0,
        bslfast.nn.BayesLinear(
            3, 9, posterior=posteriors.Laplace(), prior=priors.Laplace(), dtype=torch.float64
        ),
    ),
    "an activation": lambda model: setattr(model, "activation", nn.ELU()),
    "another dtype": lambda model: model.layers[1].float(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_network_goes_by_ops(change: Callable[[BayesianMLP], Any]) -> None:
    model = made(NETWORKS["tanh, log_scale"])
    x = torch.randn(4, 3, dtype=torch.float64)
    assert model._program(x) is not None
    change(model)
    assert model._program(x) is None


def test_a_changed_prior_counts() -> None:
    model = made(NETWORKS["tanh, log_scale"])
    x = torch.randn(4, 3, dtype=torch.float64)
    model(x)
    model.layers[1].priors["weight"] = priors.Normal(1.0, 3.0)
    of = list(model.layers.parameters())

    def grads() -> tuple[Tensor, ...]:
        model(x)
        divergence = kl(model)
        return divergence, *torch.autograd.grad(divergence, of)

    assert model._program(x) is not None
    for first, second in zip(*both(grads), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


LIKELIHOODS: dict[str, Callable[[BayesianMLP], Any]] = {
    "another": lambda model: setattr(model, "likelihood", bslfast.likelihoods.Laplace(2).double()),
    "degrees of freedom": lambda model: setattr(model.likelihood, "init_df", 50.0),
    "a method of its own": lambda model: _doubled(model.likelihood),
    "an unused Bayesian layer": lambda model: setattr(
        model, "more", bslfast.nn.BayesLinear(2, 2, dtype=torch.float64)
    ),
    "the class of the activation": lambda model: setattr(model.activation, "__class__", nn.Tanh),
}


def _doubled(likelihood: Any) -> None:
    before = likelihood.log_prob
    likelihood.log_prob = lambda *args: 2 * before(*args)


@pytest.mark.parametrize("change", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_the_loss_of_a_changed_network(change: Callable[[BayesianMLP], Any]) -> None:
    model = made(LOSSES["student_t"])
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    first, _ = both(lambda: model.negative_elbo(x, y, dataset_size=9))
    change(model)
    once, by_ops = both(lambda: model.negative_elbo(x, y, dataset_size=9))
    torch.testing.assert_close(once, by_ops)
    assert not torch.allclose(first, once)


def test_targets_of_any_number() -> None:
    """A likelihood for targets of any shape does not say how many there are."""
    head = bslfast.likelihoods.Normal(None, scale=0.3)
    model = made(lambda: BayesianMLP(3, (9,), 2, likelihood=head))
    x = torch.randn(5, 3, dtype=torch.float64)
    assert "training.fit: one call" in model.explain()
    for targets in (2, 1, 3, 2):
        y = torch.zeros(5, targets, dtype=torch.float64, requires_grad=True)
        if targets == 2:
            once, by_ops = both(lambda y=y: model.negative_elbo(x, y, dataset_size=9))
            torch.testing.assert_close(once, by_ops)
            assert model._loss_program(x, y) is not None
        else:
            with pytest.raises(ValueError, match="output: expected shape"):
                model.negative_elbo(x, y, dataset_size=9)


def test_a_loss_gives_its_gradients_once() -> None:
    model = made(LOSSES["student_t"])
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    loss = model.negative_elbo(x, y, dataset_size=9)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    loss = model.negative_elbo(x, y, dataset_size=9)
    with torch.no_grad():
        model.layers[0].weight_loc.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_layer_that_is_used_twice() -> None:
    model = BayesianMLP(3, (3,), 3).double()
    model.layers[1] = model.layers[0]
    x = torch.randn(5, 3, dtype=torch.float64)
    once, by_ops = both(lambda: (model(x), kl(model)))
    torch.testing.assert_close(once, by_ops)


def test_inside_one_draw_the_draw_is_used() -> None:
    model = made(NETWORKS["relu, wide"])
    x = torch.randn(4, 3, dtype=torch.float64)
    with one_draw(model):
        assert model._program(x) is None
        assert torch.equal(model(x), model(x))
    assert model._program(x) is not None
    assert not torch.equal(model(x), model(x))


def test_a_step_of_an_optimizer_before_backward() -> None:
    model = made(NETWORKS["relu, wide"])
    y = model(torch.randn(4, 3, dtype=torch.float64))
    with torch.no_grad():
        model.layers[0].weight_loc.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("shape", [(4, 2), (3,), ()])
def test_other_shapes_are_as_by_ops(shape: tuple[int, ...]) -> None:
    model = made(NETWORKS["relu, wide"])
    x = torch.randn(shape, dtype=torch.float64)
    found = []
    for on in (True, False):
        with bslfast.whole_networks(on):
            try:
                found.append(model(x).shape)
            except ValueError as error:
                found.append(str(error))
    assert found[0] == found[1]


def test_a_network_that_has_a_graph_is_collected() -> None:
    model = made(NETWORKS["relu, wide"])
    y = model(torch.randn(4, 3, dtype=torch.float64))
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
    assert y.requires_grad


def test_copies_have_programs_of_their_own() -> None:
    model = made(NETWORKS["relu, wide"])
    x = torch.randn(4, 3, dtype=torch.float64)
    model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layers[0].weight_loc.fill_(0.0)
    once, by_ops = both(lambda: twin(x))
    torch.testing.assert_close(once, by_ops)


def test_draws_are_checked() -> None:
    from bslfast._native import _cpu

    def program(draws: list[Any], parameters: list[int]) -> None:
        dense = ("dense", [0], [1], parameters, [0, 0, 1, 1], [])
        _cpu.Program(1, 0, [dense], [1], [1, 1, 2], draws)

    program([(0, 1, 0, 0.0, 1.0)], [3, -1])
    for draws, parameters, message in (
        ([(0, 7, 0, 0.0, 1.0)], [3, -1], "draws: parameters out of range"),
        ([(0, 1, 9, 0.0, 1.0)], [3, -1], "parametrization out of range"),
        ([(0, 2, 0, 0.0, 1.0)], [3, -1], "sizes differ"),
        ([(0, 0, 0, 0.0, 1.0)], [3, -1], "in two of them"),
        ([(0, 1, 0, 0.0, 1.0)], [0, -1], "that samples are drawn from"),
        ([(0, 1, 0, 0.0, 1.0)], [4, -1], "parameters out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            program(draws, parameters)


def test_seeds_are_counted() -> None:
    from bslfast._native import _cpu

    dense = ("dense", [0], [1], [2, -1], [0, 0, 1, 1], [])
    program = _cpu.Program(1, 0, [dense], [1], [1, 1], [(0, 1, 0, 0.0, 1.0)])
    one = torch.ones(1)
    at = one.data_ptr()
    with pytest.raises(ValueError, match="number of seeds or streams"):
        program.forward(False, 1, 1, 1, [at, at], ([], []), at, 0, at, 0)
    with pytest.raises(ValueError, match="n_draws"):
        program.forward(False, 1, 1, 0, [at, at], ([1], [0]), at, 0, at, 0)


LOSSES: dict[str, Callable[[], BayesianMLP]] = {
    **NETWORKS,
    "student_t": lambda: BayesianMLP(3, (9,), 2, likelihood="student_t"),
    "bernoulli": lambda: BayesianMLP(3, (9,), 2, likelihood="bernoulli"),
    "categorical": lambda: BayesianMLP(3, (9,), 4, likelihood="categorical"),
    "poisson": lambda: BayesianMLP(3, (9,), 2, likelihood="poisson"),
    **{
        f"negative_binomial, {total}": lambda total=total: BayesianMLP(
            3, (9,), 2, likelihood=likelihoods.NegativeBinomial(2, total_count=total)
        )
        for total in ("learned", "outputs", 1.5)
    },
    **{
        f"{kind.__name__}, log_scale, {scale}": lambda kind=kind, scale=scale: BayesianMLP(
            3, (9,), 2, likelihood=kind(2, scale=scale, parametrization="log_scale")
        )
        for kind in (likelihoods.Laplace, likelihoods.StudentT)
        for scale in ("learned", "outputs")
    },
}


@pytest.mark.parametrize("rows", [50, 300])
@pytest.mark.parametrize("drawn_together", [1 << 18, 0], ids=["small", "large"])
@pytest.mark.parametrize("network", LOSSES.values(), ids=LOSSES)
def test_loss_and_its_gradients(
    network: Callable[[], BayesianMLP],
    drawn_together: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers of a large network are drawn by seeds of their own.

    Samples of a large one lie where gradients will be, if all rows go together.
    """
    monkeypatch.setattr("bslfast.bnn.MOST_DRAWN_TOGETHER", drawn_together)
    model = made(network)
    x = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
    y = torch.rand(rows, model.likelihood.targets or 0, dtype=torch.float64)
    if isinstance(model.likelihood, bslfast.likelihoods.Categorical):
        y = torch.randint(4, (rows,))
    elif model.likelihood.kind == "counts":
        y = torch.randint(4, (rows, 2)).double()
    of = [x, *model.parameters()]
    assert model._loss_program(x, y) is not None

    def twice(loss: Tensor) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(3 * loss, of, create_graph=True)
        again = torch.autograd.grad(sum(g.square().sum() for g in grads), of)
        return loss, *grads, *again

    def at_once() -> tuple[Tensor, ...]:
        loss = model.negative_elbo(x, y, dataset_size=200, beta=0.7)
        first = torch.autograd.grad(3 * loss, of, retain_graph=True)
        return *first, *twice(loss)

    def written_out() -> tuple[Tensor, ...]:
        log_likelihood = model.likelihood.log_prob(model(x), y)
        loss = bslfast.negative_elbo(log_likelihood, kl(model), dataset_size=200, beta=0.7)
        first = torch.autograd.grad(3 * loss, of, retain_graph=True)
        return *first, *twice(loss)

    once, _ = both(at_once)
    _, by_ops = both(written_out)
    for first, second in zip(once, by_ops, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        once, by_ops = both(lambda: model.negative_elbo(x, y, dataset_size=200))
    torch.testing.assert_close(once, by_ops)


def test_loss_of_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer is one node, with its divergence."""
    monkeypatch.setattr("bslfast.bnn._MOST_PRODUCTS", 2**20)
    model = made(lambda: BayesianMLP(500, (550,), 2))
    x, y = torch.randn(5, 500, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    of = list(model.parameters())
    assert model._loss_program(x, y) is None

    def at_once() -> tuple[Tensor, ...]:
        loss = model.negative_elbo(x, y, dataset_size=200, beta=0.7)
        return loss, *torch.autograd.grad(loss, of)

    def written_out() -> tuple[Tensor, ...]:
        log_likelihood = model.likelihood.log_prob(model(x), y)
        loss = bslfast.negative_elbo(log_likelihood, kl(model), dataset_size=200, beta=0.7)
        return loss, *torch.autograd.grad(loss, of)

    once, _ = both(at_once)
    _, by_ops = both(written_out)
    for first, second in zip(once, by_ops, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)
    seen: list[int] = []
    model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    at_once()
    assert seen
    with one_draw(model):
        assert torch.equal(
            model.negative_elbo(x, y, dataset_size=9), model.negative_elbo(x, y, dataset_size=9)
        )


def test_explain() -> None:
    for network, shown in (
        (
            BayesianMLP(3, (9,), 4, likelihood="categorical"),
            "negative_elbo, training.fit: one call",
        ),
        (BayesianMLP(300, (300,), 2), "but with a graph op by op: 90600 weights"),
        (BayesianMLP(1200, (1200, 600), 2), "negative_elbo: one call of"),
        (BayesianMLP(1200, (1200, 600), 2), "training.fit: op by op: 216"),
        (
            BayesianMLP(3, (9,), 2, likelihood=likelihoods.ContinuousBernoulli(2)),
            "op by op: ContinuousBernoulli",
        ),
    ):
        assert shown in network.explain()


def test_weights_of_several_parametrizations(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"weight": posteriors.Normal("softplus"), "bias": posteriors.Normal("log_scale")}
    for drawn_together in (1 << 18, 0):
        monkeypatch.setattr("bslfast.bnn.MOST_DRAWN_TOGETHER", drawn_together)
        assert "several parametrizations" in BayesianMLP(3, (4,), 1, posterior=kinds).explain()


def test_loss_checks_its_arguments() -> None:
    model = made(LOSSES["bernoulli"])
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"y: expected values in \[0, 1\]"):
        model.negative_elbo(x, y + 1, dataset_size=4)
    with pytest.raises(ValueError, match="y: expected"):
        model.negative_elbo(x, y[:, :1], dataset_size=4)
    with pytest.raises(ValueError, match="y: expected class indices"):
        made(LOSSES["categorical"]).negative_elbo(x, torch.full((4,), 4), dataset_size=4)
    with pytest.raises(ValueError, match="dataset_size"):
        model.negative_elbo(x, y, dataset_size=0)
    with pytest.raises(ValueError, match="beta"):
        model.negative_elbo(x, y, dataset_size=4, beta=-1.0)
