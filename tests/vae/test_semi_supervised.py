"""Semi-supervised autoencoders: bounds against loops over classes, gradients, errors, training."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bslfast.training import fit
from bslfast.vae import VAE, SemiSupervisedVAE, VampPrior, mlp_decoder, mlp_encoder

CLASSES = 3
PRIOR = (0.5, 0.2, 0.3)


def made(dtype: torch.dtype = torch.float64, **options: Any) -> SemiSupervisedVAE:
    torch.manual_seed(0)
    vae = VAE(
        mlp_encoder((4,), 2, (6,), activation="tanh", context=CLASSES),
        mlp_decoder(2, (4,), (6,), activation="tanh", context=CLASSES),
        latent=2,
    )
    classifier = mlp_encoder((4,), 2, (6,), activation="tanh", outputs=CLASSES)
    settings: dict[str, Any] = {"classes": CLASSES, "labelled": 0.25} | options
    return SemiSupervisedVAE(vae, classifier, **settings).to(dtype)


def data(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=generator)


class Constant(nn.Module):
    """The same outputs for all x, whatever the context."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.outputs.expand(len(x), -1)


class OfClass(nn.Module):
    """A decoder whose outputs depend on the class alone."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        return context @ self.table


def exact(**options: Any) -> tuple[SemiSupervisedVAE, Tensor, Tensor]:
    """A model whose bounds given the class have no noise; log p(x | y) of x, and x."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    table = torch.randn(CLASSES, 4, generator=generator, dtype=torch.float64)
    vae = VAE(Constant(torch.zeros(4, dtype=torch.float64)), OfClass(table), latent=2)
    weight = torch.randn(CLASSES, 4, generator=generator, dtype=torch.float64)
    classifier = nn.Linear(4, CLASSES, dtype=torch.float64)
    classifier.weight.data = weight
    settings: dict[str, Any] = {"classes": CLASSES, "labelled": 0.25} | options
    model = SemiSupervisedVAE(vae, classifier, **settings)
    # The posterior is the prior N(0, I), and a Bernoulli log likelihood is that of its logits.
    log_p = (x @ table.T) - nn.functional.softplus(table).sum(dim=1)
    return model, log_p, x


def log_probs(prior: tuple[float, ...] | None) -> Tensor:
    values = (1 / CLASSES,) * CLASSES if prior is None else prior
    return torch.tensor(values, dtype=torch.float64).log()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [None, PRIOR])
def test_bounds_in_closed_form(prior: tuple[float, ...] | None) -> None:
    model, log_p, x = exact(class_prior=prior)
    joint = log_p + log_probs(prior)
    y = torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(model.elbo(x, y), joint[torch.arange(5), y])
    q = torch.softmax(model.classifier(x), dim=1)
    expected = torch.stack(
        [
            sum((q[i, k] * (joint[i, k] - q[i, k].log()) for k in range(CLASSES)), q.new_zeros(()))
            for i in range(5)
        ]
    )
    torch.testing.assert_close(model.unlabelled_elbo(x), expected)
    torch.testing.assert_close(model.log_marginal(x, 2), joint.logsumexp(dim=1))
    # The bound is below log p(x) by the divergence of q(y | x) from p(y | x).
    gap = joint.logsumexp(dim=1) - model.unlabelled_elbo(x)
    posterior = joint.log_softmax(dim=1)
    torch.testing.assert_close(gap, (q * (q.log() - posterior)).sum(dim=1))


def test_the_best_classifier_makes_the_bound_tight() -> None:
    model, log_p, x = exact(class_prior=PRIOR)
    posterior = (log_p + log_probs(PRIOR)).log_softmax(dim=1)

    class Posterior(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return posterior

    model.classifier = Posterior()
    torch.testing.assert_close(model.unlabelled_elbo(x), model.log_marginal(x, 1))


def test_a_certain_classifier_has_the_bound_of_its_class() -> None:
    """Without an entropy, also where the logits of other classes are minus infinity."""
    model, _, x = exact(class_prior=PRIOR)
    y = torch.tensor([0, 2, 1, 1, 0])
    for least in (-1e4, -math.inf):
        logits = torch.full((5, CLASSES), least, dtype=torch.float64)
        logits[torch.arange(5), y] = 0.0
        model.classifier = Constant(logits)
        torch.testing.assert_close(model.unlabelled_elbo(x), model.elbo(x, y), rtol=0, atol=1e-12)
        model.unlabelled_elbo(x).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_classes_of_next_to_no_probability_have_no_gradient() -> None:
    """Gradients would be subnormal, with which CPUs compute a hundred times as slowly."""
    model = made(torch.float32)
    model.classifier = Constant(torch.tensor([0.0, -50.0, -95.0]))
    seen: list[Tensor] = []
    model.vae.decoder.register_full_backward_hook(lambda m, wanted, given: seen.append(given[0]))
    model.unlabelled_elbo(data()[0].float()).sum().backward()
    [by_logits] = seen
    first, second, third = by_logits.view(5, CLASSES, -1).unbind(1)
    assert first.all()
    assert second.all()
    assert not third.any()


def test_a_uniform_classifier_has_the_mean_and_the_whole_entropy() -> None:
    model, log_p, x = exact(class_prior=PRIOR)
    model.classifier = Constant(torch.zeros(CLASSES, dtype=torch.float64))
    expected = (log_p + log_probs(PRIOR)).mean(dim=1) + math.log(CLASSES)
    torch.testing.assert_close(model.unlabelled_elbo(x), expected)


def test_a_labelled_example_is_that_of_the_conditional_vae() -> None:
    model = made(class_prior=PRIOR)
    x, y = data()
    context = nn.functional.one_hot(y, CLASSES).double()
    expected = model.vae.elbo(x, 3, context=context, seed=7) + log_probs(PRIOR)[y]
    torch.testing.assert_close(model.elbo(x, y, 3, seed=7), expected)
    log_q = torch.log_softmax(model.classifier(x), dim=1)[torch.arange(5), y]
    # alpha / labelled = 0.1 / 0.25
    torch.testing.assert_close(model.objective(x, y, 3, seed=7), expected + 0.4 * log_q)
    model.alpha = 0.0
    torch.testing.assert_close(model.objective(x, y, 3, seed=7), expected)


def test_a_mixed_batch_is_made_of_both_kinds() -> None:
    """All rows of one example and one class in one call of the networks, with that noise."""
    model = made(class_prior=PRIOR)
    x, y = data()
    y[[1, 3]] = -1
    calls = []
    for module in (model.vae.encoder, model.vae.decoder):
        module.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    found = model.objective(x, y, seed=3)
    rows = [(i, k) for i in range(5) for k in range(CLASSES) if int(y[i]) in (-1, k)]
    assert calls == [len(rows)] * 2 == [3 + 2 * CLASSES] * 2
    example, label = (torch.tensor(part) for part in zip(*rows, strict=True))
    bounds = model.vae.elbo(
        x[example], context=nn.functional.one_hot(label, CLASSES).double(), seed=3
    )
    bounds = bounds + log_probs(PRIOR)[label]
    log_q = torch.log_softmax(model.classifier(x), dim=1)
    expected = torch.zeros(5, dtype=torch.float64)
    for (i, k), bound in zip(rows, bounds, strict=True):
        if y[i] < 0:
            expected[i] += log_q[i, k].exp() * (bound - log_q[i, k])
        else:
            expected[i] += bound + 0.4 * log_q[i, k]
    torch.testing.assert_close(found, expected)


def test_log_marginal_is_above_the_bound() -> None:
    model = made(class_prior=PRIOR)
    x, _ = data(50)
    with torch.no_grad():
        bound = model.unlabelled_elbo(x, 50, seed=1)
        log_p = model.log_marginal(x, 200, seed=1)
        portions = model.log_marginal(x, 200, seed=1, max_bytes=10**9)
    assert (log_p > bound).double().mean() > 0.9
    assert log_p.mean() > bound.mean()
    torch.testing.assert_close(log_p, portions, rtol=0, atol=0.1)


def test_samples_have_their_class() -> None:
    model, _, _ = exact(class_prior=PRIOR)
    decoder = model.vae.decoder
    assert isinstance(decoder, OfClass)
    y = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model.sample(3, y), decoder.table.sigmoid()[y].detach())
    drawn = model.sample(4000, seed=1)
    assert torch.equal(drawn, model.sample(4000, seed=1))
    each = (drawn.unsqueeze(1) - decoder.table.sigmoid()).abs().sum(dim=2) < 1e-9
    shares = each.double().mean(dim=0)
    torch.testing.assert_close(shares, log_probs(PRIOR).exp(), rtol=0, atol=0.03)


def test_classify() -> None:
    model = made()
    x, _ = data()
    torch.testing.assert_close(model.classify(x), model.classifier(x).softmax(dim=1))


# --- gradients and the ways torch may use a module ------------------------------------------------


def test_gradients() -> None:
    model = made(class_prior=PRIOR)
    x, y = data(3)
    y[0] = -1
    names = [name for name, _ in model.named_parameters()]

    def of(*parameters: Tensor) -> Tensor:
        by_name = dict(zip(names, parameters, strict=True))
        result = torch.func.functional_call(model, by_name, (x, y))
        assert isinstance(result, Tensor)
        return result

    seeded = copy.copy(model)
    model.forward = lambda x, y: seeded.objective(x, y, seed=5)  # type: ignore[method-assign]
    parameters = tuple(p.detach().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(of, parameters)


def test_under_autocast_and_in_16_bits() -> None:
    x, y = data()
    x, y[0] = x.float(), -1
    model = made(torch.float32)
    expected = model.objective(x, y, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.objective(x, y, seed=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    small = copy.deepcopy(model).bfloat16()
    torch.testing.assert_close(
        small.objective(x.bfloat16(), y, seed=1).float(), expected, rtol=0.1, atol=0.1
    )


def test_compile() -> None:
    model = made(torch.float32)
    x, y = data()
    x, y[0] = x.float(), -1
    compiled = torch.compile(model, backend="eager")
    torch.manual_seed(3)
    expected = model(x, y)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(x, y), expected)


def test_every_parameter_has_a_gradient() -> None:
    """Data-parallel wrappers need it, in batches with and without labels."""
    x, y = data()
    for labels in (y, torch.full_like(y, -1)):
        for alpha in (0.0, 0.1):
            model = made(alpha=alpha)
            model(x, labels).mean().backward()
            assert all(p.grad is not None for p in model.parameters())


# --- training -------------------------------------------------------------------------------------


def blobs() -> tuple[Tensor, Tensor]:
    """Points of three well separated clusters."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % CLASSES
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 2.0]])
    return centres[y] + 0.3 * torch.randn(300, 4, generator=generator), y


def test_training_by_fit() -> None:
    x, truth = blobs()
    y = torch.where(torch.arange(300) < 2 * CLASSES, truth, -1)
    torch.manual_seed(0)
    vae = VAE(
        mlp_encoder((4,), 2, (16,), context=CLASSES),
        mlp_decoder(2, (4,), (16,), context=CLASSES),
        likelihood="normal", latent=2,
    )  # fmt: skip
    model = SemiSupervisedVAE(
        vae, mlp_encoder((4,), 2, (16,), outputs=CLASSES), classes=CLASSES, labelled=0.02
    )
    history = fit(
        model, (x, y), (x[:50], y[:50]), epochs=30, lr=1e-2, batch_size=50,
        objective=SemiSupervisedVAE.objective,
    )  # fmt: skip
    assert history.loss[-1] < history.loss[0] - 1
    assert len(history.validation_log_likelihood) == 30
    with torch.no_grad():
        found = model.classify(x).argmax(dim=1)
        assert (found != truth).double().mean() < 0.02
        assert model.log_marginal(x, 50).mean() > model.unlabelled_elbo(x).mean()


# --- errors ---------------------------------------------------------------------------------------


def test_errors_of_the_constructor() -> None:
    for options, error, match in (
        ({"classes": 1}, ValueError, "classes: expected an integer of at least 2"),
        ({"labelled": 0.0}, ValueError, "labelled: expected a finite number above 0"),
        ({"labelled": 1.5}, ValueError, "labelled: expected a number of at most 1, got 1.5"),
        ({"alpha": -1.0}, ValueError, "alpha: expected a finite number at least 0, got -1"),
        ({"class_prior": 0.3}, TypeError, "class_prior: expected None or 3 probabilities"),
        ({"class_prior": (0.5, 0.5)}, ValueError, "class_prior: expected 3 probabilities, got 2"),
        ({"class_prior": (0.5, 0.5, 0.0)}, ValueError, "class_prior: expected a finite number"),
        ({"class_prior": (0.5, 0.5, 0.5)}, ValueError, "class_prior: expected a sum of 1"),
    ):
        with pytest.raises(error, match=match):
            made(**options)
    model = made()
    with pytest.raises(TypeError, match=r"vae: expected a bslfast\.vae\.VAE, got"):
        SemiSupervisedVAE(nn.Linear(2, 2), model.classifier, classes=3, labelled=1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"classifier: expected a torch\.nn\.Module, got"):
        SemiSupervisedVAE(model.vae, torch.softmax, classes=3, labelled=1.0)  # type: ignore[arg-type]


def test_errors_of_calls() -> None:
    model = made()
    x, y = data()
    with pytest.raises(ValueError, match="y: expected class indices from 0 to 2, got -1 to"):
        model.elbo(x, torch.full((5,), -1))
    with pytest.raises(ValueError, match=r"y: expected class indices, or -1 .*, got -2"):
        model.objective(x, torch.full((5,), -2))
    with pytest.raises(ValueError, match="y: expected class indices from 0 to 2, got 0 to 3"):
        model.objective(x, torch.tensor([-1, 3, 0, 0, 0]))
    with pytest.raises(TypeError, match="y: expected an int64 tensor"):
        model.objective(x, y.double())
    with pytest.raises(TypeError, match="y: expected an int64 tensor"):
        model.objective(x, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"y: expected an int64 tensor of shape \[5\]"):
        model.objective(x, y[:4])
    with pytest.raises(ValueError, match=r"y: expected an int64 tensor of shape \[2\]"):
        model.sample(2, y)
    with pytest.raises(TypeError, match="x: expected a floating-point tensor"):
        model.unlabelled_elbo(y)
    with pytest.raises(ValueError, match=r"x: expected shape \[batch, \.\.\.\]"):
        model.classify(x[0])
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 1"):
        model.unlabelled_elbo(x, 0)
    model.classifier = nn.Linear(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"classifier: expected logits of shape \(5, 3\), got"):
        model.classify(x)
    plain = VAE(mlp_encoder((4,), 2, (6,)), mlp_decoder(2, (4,), (6,)))
    model = SemiSupervisedVAE(plain, nn.Linear(4, 3), classes=3, labelled=1.0)
    with pytest.raises(TypeError, match="context: expected None, as the encoder"):
        model.unlabelled_elbo(x.float())
    model = made()
    model.vae.prior = VampPrior(2, (4,)).double()
    with pytest.raises(ValueError, match="context: expected None with a VampPrior"):
        model.elbo(x, y)


def test_settings_are_shown() -> None:
    """A checkpoint is of a model with the same ones."""
    assert "classes=3, labelled=0.25, alpha=0.1, class_prior=(0.5, 0.2, 0.3)" in str(
        made(class_prior=PRIOR)
    )
