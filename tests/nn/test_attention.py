"""Attention and Transformers: no weight is read without being drawn."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
import bslfast.nn as bnn
from bslfast.nn import at_means, deterministic_twin, kl, one_draw, to_bayesian


def encoder(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **options)


def padding() -> Tensor:
    return torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


def drawn_parameters(model: nn.Module, plain: nn.Module) -> dict[str, Tensor]:
    """The samples inside ``one_draw``, by their names in the plain model."""
    samples = {}
    for path, module in model.named_modules():
        if isinstance(module, bnn.BayesianLayer):
            assert module.drawn is not None
            for name, value in zip(module._shapes, module.tensors(module.drawn), strict=True):
                name = name.replace("out_proj_", "out_proj.")
                samples[f"{path}.{name}" if path else name] = value
    assert samples.keys() == dict(plain.named_parameters()).keys()
    return samples


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"bias": False}], ids=str)
def test_a_pass_of_an_encoder_layer_is_torchs(training: bool, options: dict[str, Any]) -> None:
    plain = encoder(**options).double().train(training)
    model, x = to_bayesian(plain, init_scale=0.3), torch.randn(2, 5, 8, dtype=torch.float64)
    parameters = list(model.parameters())
    assert not any(name.endswith(("weight", "bias")) for name in model.state_dict())
    with one_draw(model, seed=1):
        y = model(x, src_key_padding_mask=padding())
        expected = torch.func.functional_call(
            plain, drawn_parameters(model, plain), (x,), {"src_key_padding_mask": padding()}
        )
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(
            torch.autograd.grad(y.sin().sum(), parameters, retain_graph=True),
            torch.autograd.grad(expected.sin().sum(), parameters),
        )
    assert all(p.grad is None for p in parameters)
    (model(x).sum() + kl(model)).backward()
    assert all(p.grad is not None for p in parameters)
    torch.testing.assert_close(
        kl(model), sum(m.compute_kl() for m in model.modules() if isinstance(m, bnn.BayesianModule))
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "select",
    [None, nn.MultiheadAttention, "*linear1", nn.LayerNorm, ("*self_attn", "*norm2")],
    ids=str,
)
def test_torchs_kernels_for_whole_layers_are_left_out(select: Any) -> None:
    """In evaluation mode, where torch would read the weights of all parts at once."""
    plain = nn.TransformerEncoder(encoder(), 2).eval()
    x = torch.randn(2, 5, 8)
    model = to_bayesian(plain, select, init_scale=0.3)
    for inputs in ({}, {"src_key_padding_mask": padding()}):
        first, second = model(x, **inputs), model(x, **inputs)
        assert not torch.allclose(first, second, atol=1e-3)
        with at_means(model):
            seen = ~padding() if inputs else slice(None)
            torch.testing.assert_close(model(x, **inputs)[seen], plain(x, **inputs)[seen])
        twin = deterministic_twin(model)
        assert torch.equal(twin(x, **inputs), plain(x, **inputs))  # by the same kernel
    assert repr(twin) == repr(plain)


def test_a_layer_of_ones_own_is_one_that_was_converted() -> None:
    torch.manual_seed(0)
    plain = encoder()
    torch.manual_seed(0)
    layer = bnn.BayesTransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x, converted = torch.randn(2, 5, 8), to_bayesian(plain)
    assert isinstance(layer, nn.TransformerEncoderLayer)
    converted.load_state_dict(layer.state_dict())
    twin = layer.deterministic_twin()
    assert type(twin) is nn.TransformerEncoderLayer
    for name, value in plain.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value)
    with one_draw(layer, seed=1), one_draw(converted, seed=1):
        assert torch.equal(layer(x), converted(x))
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    with torch.no_grad():
        padded = stack(x, src_key_padding_mask=padding())
        assert not torch.equal(stack(x, src_key_padding_mask=padding()), padded)
    kl(stack).backward()


def test_a_whole_transformer() -> None:
    plain = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True).eval()
    x, y = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    model = to_bayesian(plain, init_scale=0.3)
    assert not any(name.endswith(("weight", "bias")) for name in model.state_dict())
    with torch.no_grad(), at_means(model):
        torch.testing.assert_close(model(x, y), plain(x, y))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with one_draw(model, seed=1), one_draw(other, seed=1):
            assert torch.equal(model(x, y), other(x, y))


@torch.no_grad()
def test_masks_and_weights_of_attention() -> None:
    layer = bnn.BayesMultiheadAttention(8, 2, batch_first=True, init_scale=0.3).eval()
    twin, x = layer.deterministic_twin(), torch.randn(2, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    with at_means(layer):
        for options in (
            {"attn_mask": mask, "is_causal": True, "need_weights": False},
            {"key_padding_mask": padding(), "average_attn_weights": False},
        ):
            found, expected = layer(x, x, x, **options), twin(x, x, x, **options)
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(layer(query=x, key=x, value=x), twin(x, x, x))


def test_it_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        bnn.BayesTransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.Flatten(),
        bnn.BayesLinear(40, 1),
    )
    x = torch.randn(32, 5, 8)
    likelihood = bslfast.likelihoods.Normal(1)
    history = bslfast.training.fit(
        model, (x, x[:, :1, 0]), likelihood=likelihood, epochs=8, lr=0.01, progress=False
    )
    assert history.loss[-1] < history.loss[0]
    assert (bslfast.predict(model, x, 4, likelihood=likelihood).epistemic > 0).all()


def test_compiled_in_one_graph() -> None:
    torch._dynamo.reset()
    layer, x = bnn.BayesMultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x: Tensor) -> Tensor:
        return layer(x, x, x, seed=1)[0].square().sum() + kl(layer)

    compiled = loss(x)
    torch.testing.assert_close(compiled, layer(x, x, x, seed=1)[0].square().sum() + kl(layer))
    compiled.backward()
    assert all(p.grad is not None for p in layer.parameters())


def attend(**tensors: Tensor) -> Any:
    x = torch.ones(2, 5, 8)
    layer = bnn.BayesMultiheadAttention(8, 2)
    return layer(**{"query": x, "key": x, "value": x, **tensors})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bnn.BayesMultiheadAttention(7, 2), ValueError,
         "embed_dim: expected a multiple of num_heads, 2, got 7"),
        (lambda: bnn.BayesMultiheadAttention(8, 0), ValueError, "num_heads: expected an integer"),
        (lambda: bnn.BayesMultiheadAttention(8, 2, kdim=0), ValueError, "kdim: expected an integ"),
        (lambda: bnn.BayesTransformerEncoderLayer(7, 2), ValueError,
         "d_model: expected a multiple of nhead, 2, got 7"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, 0), ValueError, "dim_feedforward: expecte"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, prior_scale=0), ValueError, "prior_scale"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, dropout=3.0), ValueError,
         r"dropout: expected a number in \[0, 1\], got 3.0"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, activation="selu"), ValueError,
         "activation: expected one of 'relu', 'gelu', got 'selu'"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, layer_norm_eps="a"), TypeError,
         "layer_norm_eps: expected a finite number at least 0, got 'a'"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, norm_first=1), TypeError,
         "norm_first: expected a bool, got 1"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, device="gpu"), ValueError, "device: expec"),
        (lambda: bnn.BayesTransformerEncoderLayer(8, 2, dtype=torch.int8), TypeError, "dtype: exp"),
        (lambda: bnn.BayesMultiheadAttention(8, 2, add_bias_kv=1), TypeError, "add_bias_kv: expe"),
        (lambda: attend(value=torch.ones(3, 5, 8)), ValueError,
         r"value: expected the length and the batch of key, \[2, 5\], got \[3, 5\]"),
        (lambda: attend(key=torch.ones(2, 5, 7)), ValueError,
         r"key: expected shape \[length, batch, 8\] or \[length, 8\], got \[2, 5, 7\]"),
        (lambda: attend(value=torch.ones(2, 5, 8).double()), TypeError,
         "value: expected the dtype of out_proj_weight_loc, float32, got float64"),
        (lambda: attend(query=None), TypeError, r"query: expected a torch\.Tensor, got NoneType"),  # type: ignore[arg-type]
        (lambda: bnn.BayesLayerNorm(4, elementwise_affine=False), ValueError,
         "elementwise_affine: expected True, got False"),
        (lambda: bnn.BayesLayerNorm((3, 4))(torch.ones(3, 5)), ValueError,
         r"x: expected shape \[\.\.\., 3, 4\], got \[3, 5\]"),
    ],
)  # fmt: skip
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
