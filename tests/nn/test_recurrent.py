"""Recurrent layers: sequences, states, packed sequences; the rest is in test_layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

import bslfast
import bslfast.nn as bnn
from bslfast.nn import kl, one_draw, posteriors

both = pytest.mark.parametrize("cls", [bnn.BayesLSTM, bnn.BayesGRU])


def make(cls: Any, **options: Any) -> Any:
    return cls(4, 3, dtype=torch.float64, init_scale=0.3, **options)


def states(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def cell(layer: Any, weights: list[Tensor], x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """One step by its formula; the state of a GRU is h alone."""
    w_ih, w_hh, b_ih, b_hh = weights
    gates = zip((x @ w_ih.T + b_ih).split(3, -1), (h @ w_hh.T + b_hh).split(3, -1), strict=True)
    if isinstance(layer, nn.LSTM):
        i, f, g, o = (a + b for a, b in gates)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (r_i, r_h), (z_i, z_h), (n_i, n_h) = gates
    z = torch.sigmoid(z_i + z_h)
    return (1 - z) * torch.tanh(n_i + torch.sigmoid(r_i + r_h) * n_h) + z * h, c


@both
def test_the_weights_are_drawn_once_a_sequence(cls: Any) -> None:
    layer, x = make(cls), torch.randn(6, 2, 4, dtype=torch.float64)
    drawn = [w.rsample(seed=5, stream=i) for i, w in enumerate(layer.weights())]
    h, outputs = (torch.zeros(2, 3, dtype=torch.float64),) * 2, []
    for step in x:
        h = cell(layer, drawn, step, *h)  # type: ignore[assignment]
        outputs.append(h[0])
    found = layer(x, seed=5)
    torch.testing.assert_close(found, torch.stack(outputs))
    parameters = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.sin().sum(), parameters),
        torch.autograd.grad(torch.stack(outputs).sin().sum(), parameters),
    )


@both
def test_gradcheck(cls: Any) -> None:
    layer, x = make(cls, num_layers=2), torch.randn(3, 2, 4, dtype=torch.float64)
    names, values = zip(*layer.named_parameters(), strict=True)

    def outputs(x: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, parameters, (x,), {"seed": 1}).sum((0, 1))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(outputs, (x.requires_grad_(), *values), fast_mode=True)


@both
def test_states_go_in_and_out(cls: Any) -> None:
    layer, x = make(cls, num_layers=2, return_state=True), torch.randn(6, 2, 4, dtype=torch.float64)
    with one_draw(layer):
        outputs, state = layer(x)
        first, between = layer(x[:2])
        second, end = layer(x[2:], between)
    torch.testing.assert_close(torch.cat([first, second]), outputs)
    for a, e in zip(states(end), states(state), strict=True):
        torch.testing.assert_close(a, e)
    assert "return_state=True" in repr(layer)
    assert layer.sample_outputs(x, 3).shape == (3, 6, 2, 3)


@both
def test_packed_sequences(cls: Any) -> None:
    layer = make(cls, bidirectional=True)
    long, short = (torch.randn(n, 4, dtype=torch.float64) for n in (5, 3))
    packed = rnn.pack_sequence([short, long], enforce_sorted=False)
    outputs, lengths = rnn.pad_packed_sequence(layer(packed, seed=2))
    assert lengths.tolist() == [3, 5]
    torch.testing.assert_close(outputs[:3, 0], layer(short, seed=2))
    torch.testing.assert_close(outputs[:, 1], layer(long, seed=2))


@both
def test_dropout_is_torchs(cls: Any) -> None:
    layer, x = make(cls, num_layers=2, dropout=0.5), torch.randn(6, 2, 4, dtype=torch.float64)
    assert not torch.equal(layer(x, seed=1), layer(x, seed=1))
    layer.eval()
    assert torch.equal(layer(x, seed=1), layer(x, seed=1))


@both
def test_in_a_model(cls: Any) -> None:
    """Trained, predicted with, checkpointed, moved, and converted."""
    torch.manual_seed(0)
    model = nn.Sequential(cls(4, 8, batch_first=True), nn.Flatten(), bnn.BayesLinear(24, 1))
    x = torch.randn(16, 3, 4)
    likelihood = bslfast.likelihoods.Normal(1)
    data = x, x.sum((1, 2)).unsqueeze(1)
    history = bslfast.training.fit(
        model, data, likelihood=likelihood, epochs=10, lr=0.02, progress=False
    )
    assert history.loss[-1] < history.loss[0]
    assert (bslfast.predict(model, x, 5, likelihood=likelihood).epistemic > 0).all()
    torch.manual_seed(3)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    torch.manual_seed(3)
    again = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.sum(), list(model.parameters())), expected)
    double = copy.deepcopy(model).double()
    with bnn.at_means(model), bnn.at_means(double):
        torch.testing.assert_close(double[0](x.double()), model[0](x).double(), rtol=0, atol=1e-4)
    kl(double).backward()


@both
def test_from_torchs_in_a_model_that_takes_its_state(cls: Any) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = (nn.LSTM if cls is bnn.BayesLSTM else nn.GRU)(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs, state = self.rnn(x)
            torch.testing.assert_close(states(state)[0][-1], outputs[-1])
            return states(state)[0]

    plain, x = Last().double(), torch.randn(6, 2, 4, dtype=torch.float64)
    seen: list[Any] = []
    plain.rnn.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    model = bnn.to_bayesian(plain, init_scale=1e-9)
    assert type(model.rnn) is cls
    torch.testing.assert_close(model(x), plain(x))
    assert len(seen[0]) == len(seen[1]) == 2
    twin = bnn.deterministic_twin(model)
    torch.testing.assert_close(twin(x), plain(x))
    assert {k: v.tolist() for k, v in twin.state_dict().items()} == {
        k: v.tolist() for k, v in plain.state_dict().items()
    }


@both
def test_the_twin_returns_what_the_layer_does(cls: Any) -> None:
    x = torch.randn(6, 2, 4, dtype=torch.float64)
    for layer in (make(cls), make(cls, return_state=True)):
        twin = layer.deterministic_twin()
        found, expected = twin(x), layer(x)
        assert isinstance(found, tuple) == isinstance(expected, tuple) == layer.return_state
        with bnn.at_means(layer):
            torch.testing.assert_close(found, layer(x))
        assert not hasattr(twin, "return_state")


@both
def test_sizes_of_numpy(cls: Any) -> None:
    sizes = np.int64(2), np.int64(3)
    assert cls(*sizes, num_layers=np.int64(2))(torch.ones(4, 1, 2)).shape == (4, 1, 3)


def test_posteriors_by_name() -> None:
    layer = make(bnn.BayesGRU, posterior={"bias_hh_l0": posteriors.Deterministic()})
    assert "bias_hh_l0_raw_scale" not in layer.state_dict()
    assert layer(torch.ones(2, 4, dtype=torch.float64)).shape == (2, 3)
    kl(layer).backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bnn.BayesLSTM(0, 2), ValueError, "input_size: expected an integer of at least 1"),
        (lambda: bnn.BayesGRU(2, 1.5), TypeError, "hidden_size: expected an integer of at least"),
        (lambda: bnn.BayesGRU(2, 3, num_layers=0), ValueError, "num_layers: expected an integer"),
        (lambda: bnn.BayesLSTM(2, 3, proj_size=-1), ValueError, "proj_size: expected an integer"),
        (lambda: bnn.BayesLSTM(2, 3, proj_size=3), ValueError,
         "proj_size: expected at most hidden_size - 1, 2, got 3"),
        (lambda: bnn.BayesLSTM(2, 3, 2, dropout=2), ValueError, r"dropout: .* in \[0, 1\]"),
        (lambda: bnn.BayesGRU(2, 3, bias=None), TypeError, "bias: expected a bool, got None"),
        (lambda: bnn.BayesLSTM(2, 3, return_state=1), TypeError, "return_state: expected a bool"),
        (lambda: bnn.BayesLSTM(2, 3, prior_scale=0), ValueError, "prior_scale: expected a finite"),
        (lambda: bnn.BayesLSTM(2, 3, posterior={"weight": posteriors.Normal()}), ValueError,
         "posterior: expected names among weight_ih_l0, weight_hh_l0, bias_ih_l0, .* got 'weight'"),
        (lambda: bnn.BayesLSTM(2, 3)(torch.ones(4, 5, 3)), ValueError,
         r"x: expected shape \[length, batch, 2\] or \[length, 2\], got \[4, 5, 3\]"),
        (lambda: bnn.BayesGRU(2, 3, batch_first=True)(torch.ones(2)), ValueError,
         r"x: expected shape \[batch, length, 2\]"),
        (lambda: bnn.BayesGRU(2, 3)(torch.ones(4, 2).double()), TypeError,
         "x: expected the dtype of weight_ih_l0_loc, float32, got float64"),
        (lambda: bnn.BayesGRU(2, 3)(torch.ones(4, 5, 2), torch.ones(1, 4, 3)), ValueError,
         r"hx: expected a tensor of shape \[1, 5, 3\], got \[1, 4, 3\]"),
        (lambda: bnn.BayesGRU(2, 3, 2, bidirectional=True)(torch.ones(4, 2), hx=torch.ones(3)),
         ValueError, r"hx: expected a tensor of shape \[4, 3\], got \[3\]"),
        (lambda: bnn.BayesGRU(2, 3)(torch.ones(4, 5, 2), (torch.ones(1, 5, 3),) * 2), TypeError,
         r"hx: expected a tensor of shape \[1, 5, 3\], got a tuple"),
        (lambda: bnn.BayesLSTM(2, 3)(torch.ones(4, 5, 2), torch.ones(1, 5, 3)), TypeError,
         r"hx: expected a pair of tensors of shape \[1, 5, 3\] and \[1, 5, 3\], got a tensor of"),
        (lambda: bnn.BayesLSTM(2, 3, proj_size=1, batch_first=True)(
            torch.ones(4, 5, 2), (torch.ones(1, 4, 3), torch.ones(1, 4, 3))), ValueError,
         r"hx: .* \[1, 4, 1\] and \[1, 4, 3\], got \[1, 4, 3\] and \[1, 4, 3\]"),
        (lambda: bnn.BayesLSTM(2, 3)(torch.ones(4, 5, 2), (torch.ones(1, 5, 3),)), ValueError,
         r"hx: expected a pair of .*, got \[1, 5, 3\]"),
        (lambda: bnn.BayesGRU(2, 3)([1.0]), TypeError, r"x: expected a torch\.Tensor, got list"),
    ],
)  # fmt: skip
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
