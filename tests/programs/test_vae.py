"""The program of a VAE: its bounds and their gradients are those by ops, up to rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bslfast import functional as BF
from bslfast import programs
from bslfast._torch import unflatten
from bslfast.programs import running
from bslfast.vae import VAE, mlp_decoder, mlp_encoder
from bslfast.vae.decoding import objective_steps

pytestmark = pytest.mark.usefixtures("either_way")

SHAPE = (2, 5)


def made(latent: int, dtype: torch.dtype = torch.float64) -> tuple[VAE, programs.Lowered]:
    torch.manual_seed(0)
    model = VAE(
        mlp_encoder(SHAPE, latent, (9,)), mlp_decoder(latent, SHAPE, (7,)), likelihood="normal",
        beta=0.7, latent=latent,
    ).to(dtype)  # fmt: skip
    found = programs.Lowered(model, objective_steps, math.prod(SHAPE))
    assert found.reason is None
    return model, found


def run(
    found: programs.Lowered, x: Tensor, weights: Tensor, seed: int
) -> tuple[Tensor | None, ...]:
    """Bounds and the gradients of their weighted sum, of x and of all parameters."""
    rows, seeds = x.detach().flatten(1), ([seed], [0])
    _, log = running.forward(found, rows, None, value=False, seeds=seeds)
    again = torch.empty_like(log)
    needs = [True, False, *(True for _ in found.parameters)]
    grad_x, _, flat = running.backward(
        found, rows, None, (None, weights), needs, again, seeds=seeds
    )
    assert torch.equal(log, again)
    return log, grad_x.view(x.shape), *unflatten(flat, found.parameters)


# 1100 rows are more than two tiles in each of the chunks that gradients are summed in.
@pytest.mark.parametrize("rows", [1, 33, 1100])
@pytest.mark.parametrize("latent", [1, 2, 5, 40])
def test_bounds_and_gradients(rows: int, latent: int) -> None:
    model, found = made(latent)
    x = torch.randn(rows, *SHAPE, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(rows, dtype=torch.float64)
    elbo, kl = model.elbo_and_kl(x, seed=11)
    log_likelihood, other = model.terms(x, seed=11)
    assert torch.equal(kl, other)
    torch.testing.assert_close(elbo, log_likelihood - 0.7 * kl)
    grads = torch.autograd.grad(elbo @ weights, [x, *found.parameters])
    for first, second in zip(run(found, x, weights, 11), (elbo, *grads), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-11)


def test_rows_beyond_the_data_do_not_overflow() -> None:
    """A tile has 32 rows. With noise of their own, some here would have an infinite rate."""
    encoder, decoder = nn.Linear(1, 2), nn.Linear(1, 1)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.zero_()
        encoder.bias[1] = 2 * math.log(2000.0)
        decoder.weight.fill_(1.0)
    model = VAE(encoder, decoder, likelihood="poisson").double()
    found = programs.Lowered(model, objective_steps, 1)
    x, weights = torch.ones(1, 1, dtype=torch.float64, requires_grad=True), torch.ones(1).double()
    noise = BF.standard_normal((32, 1), dtype=torch.float64, seed=2)
    assert noise[0] < 0
    assert noise.max() > 0.5
    elbo, _ = model.elbo_and_kl(x, seed=2)
    grads = torch.autograd.grad(elbo.sum(), [x, *found.parameters])
    for first, second in zip(run(found, x, weights, 2), (elbo, *grads), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    _, found = made(3, dtype)
    x, weights = torch.randn(300, *SHAPE, dtype=dtype), torch.randn(300, dtype=dtype)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(run(found, x, weights, 5))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


BAD: dict[str, tuple[list[int], list[int], list[float]]] = {
    "inputs": ([0, 1, 2], [0], [1.0]),
    "a seed that there is not": ([0, 1], [1], [1.0]),
    "no seed": ([0, 1], [], [1.0]),
    "no factor": ([0, 1], [0], []),
}


@pytest.mark.parametrize(("inputs", "options", "numbers"), BAD.values(), ids=BAD)
def test_steps_that_do_not_fit(inputs: list[int], options: list[int], numbers: list[float]) -> None:
    builder = programs.Builder(3)
    builder.step("normal_sample", inputs, len(inputs), options=options, numbers=numbers)
    builder.noises = 1
    with pytest.raises(ValueError, match="normal_sample"):
        builder.build([])


def test_shapes_count_outside_a_vae() -> None:
    """Where nobody compares shapes, a network that changes them has no steps."""
    for module in (nn.Flatten(), nn.Unflatten(1, (1, 3))):
        with pytest.raises(programs.CannotLower, match="has no steps"):
            programs.lower(programs.Builder(3), module, [0, 1, 2])
