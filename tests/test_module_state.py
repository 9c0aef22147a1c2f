"""All state of every module is in its state_dict, and ``reset_parameters`` sets all of it."""

from __future__ import annotations

import importlib
import inspect
import io
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import bnn, flows, likelihoods, vae
from bslfast import nn as bnn_layers
from bslfast.nn import BayesianLayer, BayesLinear
from bslfast.nn.posteriors import FullCovariance, LowRank


def autoencoder(cls: Any, **options: Any) -> nn.Module:
    encoder, decoder = vae.mlp_encoder((4,), 2, hidden=(5,)), vae.mlp_decoder(2, (4,), hidden=(5,))
    if cls is vae.Autoencoder:
        encoder = vae.mlp_encoder((4,), 1, hidden=(5,))
    return cls(encoder, decoder, latent=2, likelihood="normal", **options)


def network(**options: Any) -> bnn.BayesianMLP:
    return bnn.BayesianMLP(3, (4,), 2, **options)


def coupling() -> flows.Coupling:
    """The features that it moves are apart. A permutation brings them together."""
    network = flows.Conditioner(1, 4, hidden=(4,))
    return flows.Coupling(flows.Affine(), [True, False, True], network)


def autoregressive() -> flows.Autoregressive:
    spline = flows.Spline(bins=4)
    return flows.Autoregressive(spline, flows.MADE(3, spline, hidden=(4,), order=[2, 0, 1]))


def semi_supervised() -> nn.Module:
    conditional = vae.VAE(
        vae.mlp_encoder((4,), 2, hidden=(5,), context=3),
        vae.mlp_decoder(2, (4,), hidden=(5,), context=3),
        latent=2,
    )
    classifier = nn.Linear(4, 3)
    prior = (0.5, 0.2, 0.3)
    return vae.SemiSupervisedVAE(
        conditional, classifier, classes=3, labelled=0.5, class_prior=prior
    )


# Name to how it is made, with device and dtype if it takes them.
MODULES: dict[str, Callable[..., nn.Module]] = {
    "ActNorm": lambda **o: flows.ActNorm(3, **o),
    "AdditiveCoupling": lambda **o: flows.AdditiveCoupling(3, hidden=(4,), **o),
    "AffineCoupling": lambda **o: flows.AffineCoupling(3, context=2, hidden=(4,), **o),
    "Atanh": lambda: flows.Atanh(3),
    "Autoencoder": lambda: autoencoder(vae.Autoencoder),
    "Autoregressive": lambda: autoregressive(),
    "BatchNorm": lambda **o: flows.BatchNorm(3, **o),
    "BayesConv1d": lambda **o: bnn_layers.BayesConv1d(2, 4, 3, groups=2, **o),
    "BayesConv2d": lambda **o: bnn_layers.BayesConv2d(2, 3, 2, **o),
    "BayesConv3d": lambda **o: bnn_layers.BayesConv3d(2, 3, 2, bias=False, **o),
    "BayesConvTranspose1d": lambda **o: bnn_layers.BayesConvTranspose1d(2, 3, 2, **o),
    "BayesConvTranspose2d": lambda **o: bnn_layers.BayesConvTranspose2d(2, 3, 2, **o),
    "BayesConvTranspose3d": lambda **o: bnn_layers.BayesConvTranspose3d(2, 3, 2, **o),
    "BayesEmbedding": lambda **o: bnn_layers.BayesEmbedding(5, 3, padding_idx=1, **o),
    "BayesGRU": lambda **o: bnn_layers.BayesGRU(
        3, 2, posterior=LowRank(2), prior=bnn_layers.priors.LearnedNormal(0.5), **o
    ),
    "BayesLSTM": lambda **o: bnn_layers.BayesLSTM(3, 2, bidirectional=True, proj_size=1, **o),
    "BayesLayerNorm": lambda **o: bnn_layers.BayesLayerNorm(3, **o),
    "BayesLinear": lambda **o: BayesLinear(3, 2, **o),
    "BayesMultiheadAttention": lambda **o: bnn_layers.BayesMultiheadAttention(
        4, 2, posterior=FullCovariance(), **o
    ),
    "BayesTransformerEncoderLayer": lambda **o: bnn_layers.BayesTransformerEncoderLayer(
        4, 2, 6, dropout=0.0, **o
    ),
    "BayesianMLP": lambda **o: network(**o),
    "Bernoulli": lambda: likelihoods.Bernoulli(2),
    "BernsteinCoupling": lambda **o: flows.BernsteinCoupling(3, context=2, hidden=(), **o),
    "Categorical": lambda: likelihoods.Categorical(3),
    "CentredNormal": lambda: bnn_layers.priors.CentredNormal(torch.arange(3.0)),
    "Composite": lambda: flows.Composite([flows.Permutation([2, 0, 1]), flows.ActNorm(3)]),
    "Conditioner": lambda **o: flows.Conditioner(3, 4, hidden=(5,), residual=1, **o),
    "ConvConditioner": lambda **o: flows.ConvConditioner(3, 4, context=2, hidden=(5, 5), **o),
    "ContinuousBernoulli": lambda: likelihoods.ContinuousBernoulli(2),
    "Coupling": lambda: coupling(),
    "DeepSigmoidalCoupling": lambda **o: flows.DeepSigmoidalCoupling(3, hidden=(4,), **o),
    "DeterministicMLP": lambda: network().deterministic_twin(),
    "DiscretizedLogisticMixture": lambda: likelihoods.DiscretizedLogisticMixture(2),
    "Exp": lambda: flows.Exp(3),
    "Flow": lambda: flows.Flow(flows.Composite([flows.Reverse(3), flows.Log(3)])),
    "Glow": lambda **o: flows.Glow((1, 4, 4), context=2, scales=2, steps=2, hidden=(4,), **o),
    "HeteroscedasticNormal": lambda: likelihoods.HeteroscedasticNormal(1),
    "Householder": lambda **o: flows.Householder(3, **o),
    "IAF": lambda **o: flows.IAF(3, transforms=2, hidden=(4,), **o),
    "Images": lambda: flows.Images(
        (1, 2, 2), [flows.Squeeze(1), flows.InvertibleConv1x1(4, seed=0)]
    ),
    "Inverse": lambda: flows.Inverse(flows.ActNorm(3)),
    "InvertibleConv1x1": lambda **o: flows.InvertibleConv1x1(3, seed=0, **o),
    "Laplace": lambda: likelihoods.Laplace(2, init_scale=0.3),
    "Leading": lambda: flows.Leading(flows.ActNorm(2), 3),
    "LearnedNormal": lambda: bnn_layers.priors.LearnedNormal(0.5),
    "LeakyReLU": lambda: flows.LeakyReLU(3),
    "Log": lambda: flows.Log(3),
    "Logit": lambda: flows.Logit(3),
    "MADE": lambda **o: flows.MADE(3, flows.Affine(), hidden=(5,), residual=1, **o),
    "MAF": lambda **o: flows.MAF(3, context=2, transforms=2, hidden=(4,), **o),
    "MixtureLogisticCoupling": lambda **o: flows.MixtureLogisticCoupling(3, hidden=(4,), **o),
    "NSF": lambda **o: flows.NSF(3, transforms=2, hidden=(4,), **o),
    "NegativeBinomial": lambda: likelihoods.NegativeBinomial(2, init_total_count=3.0),
    "NICE": lambda **o: flows.NICE(3, transforms=2, hidden=(4,), **o),
    "NormalBase": lambda **o: flows.NormalBase(3, context=2, **o),
    "NormalMixtureBase": lambda **o: flows.NormalMixtureBase(3, 2, context=2, **o),
    "Normal": lambda: likelihoods.Normal(2, init_scale=0.3),
    "PLU": lambda **o: flows.PLU(3, seed=0, **o),
    "PLULinear": lambda **o: flows.PLULinear(3, seed=0, **o),
    "PerPixel": lambda: flows.PerPixel(flows.ActNorm(3)),
    "Permutation": lambda **o: flows.Permutation([2, 0, 1], **o),
    "Planar": lambda **o: flows.Planar(3, context=2, **o),
    "Radial": lambda **o: flows.Radial(3, context=2, hidden=(4,), **o),
    "Poisson": lambda: likelihoods.Poisson(2),
    "RealNVP": lambda **o: flows.RealNVP(3, context=2, transforms=2, hidden=(4,), **o),
    "Rescale": lambda: flows.Rescale(3, -1.0, 4.0),
    "Reverse": lambda **o: flows.Reverse(3, **o),
    "Sequential": lambda **o: bnn_layers.Sequential(BayesLinear(3, 2, **o), BayesLinear(2, 2, **o)),
    "SemiSupervisedVAE": lambda: semi_supervised(),
    "Sigmoid": lambda: flows.Sigmoid(3),
    "Softplus": lambda: flows.Softplus(3),
    "SplineCoupling": lambda **o: flows.SplineCoupling(3, hidden=(4,), **o),
    "Squeeze": lambda: flows.Squeeze(3),
    "Standardize": lambda **o: flows.Standardize(3, **o),
    "StudentTBase": lambda **o: flows.StudentTBase(3, **o),
    "StudentT": lambda: likelihoods.StudentT(2, df=3.0, learn_df=True, init_scale=0.3),
    "Sylvester": lambda **o: flows.Sylvester(3, context=2, hidden=(4,), **o),
    "Tanh": lambda: flows.Tanh(3),
    "FlowPosterior": lambda: vae.FlowPosterior(flows.Planar(2)),
    "WithContext": lambda: vae.mlp_decoder(2, (4,), hidden=(5,), context=3),
    "UniformBase": lambda: flows.UniformBase(3),
    "VonMisesBase": lambda **o: flows.VonMisesBase(3, **o),
    "VAE": lambda: autoencoder(vae.VAE, prior=vae.VampPrior(2, (4,), bounded=False)),
    "VampPrior": lambda: vae.VampPrior(2, (4,)),
}
# Modules from which others are made.
BASES = {
    "Amortised",
    "Method",
    "Base",
    "BayesianLayer",
    "BayesianModule",
    "Continuous",
    "Decoding",
    "Elementwise",
    "ImageTransform",
    "Likelihood",
    "Mapped",
    "NormalModule",
    "Row",
    "Transform",
}
# Without parameters and buffers.
STATELESS = {"Categories", "DiagonalNormal", "FullCovarianceNormal", "GumbelSoftmax", "Posterior"}
# Their tensors were given by the caller. They come back from a state, not from a reset.
GIVEN = {"CentredNormal"}
every = pytest.mark.parametrize("name", MODULES)


def test_none_is_missing() -> None:
    """Those of patch are made by conversions alone, which tests/patch looks at."""
    found = set()
    for info in pkgutil.walk_packages(bslfast.__path__, "bslfast."):
        if info.name.startswith(
            ("bslfast.cli", "bslfast.plots", "bslfast.patch", "bslfast._native", "bslfast.__main")
        ):
            continue
        for key, value in vars(importlib.import_module(info.name)).items():
            ours = str(getattr(value, "__module__", "")).startswith("bslfast.") and key[0] != "_"
            if ours and inspect.isclass(value) and issubclass(value, nn.Module):
                found.add(value.__name__)
    assert found - BASES - STATELESS == set(MODULES)


def trained(name: str) -> nn.Module:
    """A module away from its start, in everything that it remembers."""
    module = MODULES[name]()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand_like(tensor)
    if isinstance(module, flows.Transform | flows.Flow | flows.ImageTransform):
        outputs(module, train=True)
    return module.eval()


def outputs(module: Any, *, train: bool = False) -> list[Tensor]:
    """Outputs of a module on some input, or on none; all its state has a part in them."""
    like = next(
        (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None
    )
    dtype = torch.float32 if like is None else like.dtype
    module.train(train)
    generator = torch.Generator().manual_seed(1)

    def inside(*shape: int) -> Tensor:
        return (0.1 + 0.8 * torch.rand(shape, generator=generator)).to(dtype)

    torch.manual_seed(0)
    with torch.no_grad():
        if isinstance(module, flows.Flow):
            context = inside(4, module.context) if module.context else None
            log_prob = module.log_prob(inside(4, module.features), context)
            return [log_prob] if train else [log_prob, module.sample(2, context, seed=1)]
        if isinstance(module, flows.Transform):
            context = inside(4, module.context) if module.context else None
            x = inside(4, module.features)
            return (
                [*module(x, context)]
                if train
                else [*module(x, context), *module.inverse(x, context)]
            )
        if isinstance(module, flows.Base):
            context = inside(4, module.context) if module.context else None
            z = inside(4, 3)
            return [module.log_prob(z, context), module.rsample(z, context, 1)]
        if isinstance(module, bnn_layers.Sequential):
            return [module(inside(4, 3))]
        if isinstance(module, flows.ConvConditioner):
            context = inside(2, 1, 1, module.context) if module.context else None
            return [module(inside(2, 4, 4, module.inputs), context)]
        if isinstance(module, flows.ImageTransform):
            return list(module(inside(2, 3, 4, 4)))
        if isinstance(module, flows.PLU):
            return [module.matrix(), module.solve(inside(3, 2))]
        if isinstance(module, vae.VAE):
            return [module(inside(2, 4)), module.sample(2, seed=1)]
        if isinstance(module, vae.SemiSupervisedVAE):
            return [module(inside(2, 4), torch.tensor([-1, 2])), module.sample(2, seed=1)]
        if isinstance(module, vae.Autoencoder):
            return [module.decode(inside(2, 2))]
        if isinstance(module, vae.Posterior):
            return [module.code(inside(4, 2), inside(4, 2))]
        if isinstance(module, vae.WithContext):
            return [module(inside(4, 2), inside(4, 3))]
        if isinstance(module, vae.VampPrior):
            return [module.pseudo_inputs]
        if isinstance(module, likelihoods.Categorical):
            return [module.log_prob(inside(2, 3), torch.tensor([0, 2]))]
        if isinstance(module, likelihoods.Likelihood):
            y = inside(2, module.targets)
            counts = isinstance(module, (likelihoods.Poisson, likelihoods.NegativeBinomial))
            output = inside(2, module.n_outputs(module.targets))
            return [module.log_prob(output, (9 * y).round() if counts else y)]
        if isinstance(module, bnn.DeterministicMLP):
            return [module(inside(2, 3)), module.likelihood.scale]
        if isinstance(module, bnn.BayesianMLP):
            return [module.sample_outputs(inside(2, 3), 2), bslfast.nn.kl(module)]
        if isinstance(module, nn.TransformerEncoderLayer):
            with bslfast.nn.one_draw(module, seed=1):
                return [module(inside(2, 3, 4)), bslfast.nn.kl(module)]
        if isinstance(module, bnn_layers.priors.NormalModule):
            return [module.log_prob(inside(3))]
        if isinstance(module, BayesianLayer):
            x = inside(2, 2, 4, 4, 4)
            if isinstance(module, nn.MultiheadAttention):
                x = inside(2, 4)
                return [module(x, x, x, seed=1)[0], module.kl()]
            if isinstance(module, nn.Linear | nn.RNNBase | nn.LayerNorm):
                x = inside(2, 3)
            elif isinstance(module, nn.Embedding):
                x = torch.tensor([0, 4, 1])
            else:
                x = x[(..., *[0] * (3 - len(module.kernel_size)))]
            return [module(x, seed=1), module.kl()]
        return [module(inside(4, module.inputs))]


def spoil(module: nn.Module) -> nn.Module:
    """Fill a module's parameters and buffers with garbage."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype == torch.bool or tensor.is_floating_point():
                tensor.fill_(math.nan if tensor.is_floating_point() else True)
            else:
                tensor.fill_(10**12)
    return module


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return MODULES[name]()


def saved(module: nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@every
def test_a_state_is_all_that_a_module_needs(name: str) -> None:
    module = trained(name)
    expected, state = outputs(module), saved(module)
    made = {
        "anew": MODULES[name](),
        "spoilt": spoil(MODULES[name]()),
        "to_empty": spoil(on_meta(name).to_empty(device="cpu")),
    }
    if "device" in inspect.signature(type(module)).parameters:
        made["skip_init"] = spoil(MODULES[name](device="meta").to_empty(device="cpu"))
    for way, other in made.items():
        other.load_state_dict(state)
        for a, e in zip(outputs(other), expected, strict=True):
            torch.testing.assert_close(a, e, rtol=0, atol=0, msg=way)
    other = on_meta(name)
    other.load_state_dict(state, assign=True)
    for buffer in other.buffers():
        assert not buffer.is_meta or buffer.numel() == 0
    for a, e in zip(outputs(other), expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0)


@every
def test_a_state_of_another_dtype(name: str) -> None:
    """The state is converted, or brings its dtype with it if it is assigned."""
    module = trained(name).double()
    double, state = outputs(module), saved(module)
    single, assigned = MODULES[name](), MODULES[name]()
    single.load_state_dict(state)
    assigned.load_state_dict(state, assign=True)
    if not any(t.is_floating_point() for t in state.values()):
        assigned.double()
    for other, expected in ((assigned, double), (single, outputs(module.float()))):
        for a, e in zip(outputs(other), expected, strict=True):
            assert a.dtype == e.dtype
            torch.testing.assert_close(a, e, rtol=0, atol=0)
    for key, value in MODULES[name]().state_dict().items():
        assert single.state_dict()[key].dtype == value.dtype


@pytest.mark.parametrize("name", [name for name in MODULES if name not in GIVEN])
@pytest.mark.parametrize("children_first", [False, True])
def test_reset_sets_everything(name: str, children_first: bool) -> None:
    torch.manual_seed(1)
    module, again = MODULES[name](), MODULES[name]()
    lost = spoil(on_meta(name).to_empty(device="cpu"))
    modules = list(lost.modules())
    for part in reversed(modules) if children_first else modules:
        reset = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
    first, second = dict(named(module)), dict(named(again))
    for key, value in named(lost):
        if torch.equal(first[key], second[key]):
            assert torch.equal(value, first[key]), key
        else:  # drawn at random, and of about that size
            assert 0.2 < value.std() / torch.cat([first[key], second[key]]).std() < 5 or (
                value.numel() < 10 and value.isfinite().all()
            ), key
    if name == "ActNorm":
        module.load_state_dict(trained(name).state_dict())
        for part in (module, lost):
            part.reset_parameters()
        for a, e in zip(outputs(lost, train=True), outputs(module, train=True), strict=True):
            assert torch.equal(a, e)


def named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def test_a_layer_split_by_the_context_starts_as_one_over_both() -> None:
    torch.manual_seed(0)
    coupling = flows.AffineCoupling(18, context=991, hidden=(400,))
    first, second = coupling.conditioner.layers[0], coupling.conditioner.context_layer
    assert second is not None
    for parameter in (first.weight, first.bias, second.weight):
        assert 0.95 / math.sqrt(1000) < parameter.abs().max() <= 1 / math.sqrt(1000)


def test_every_transform_on_a_default_device() -> None:
    """A transform is made without reading values on the default device."""
    for name in MODULES:
        assert all(p.is_meta for p in on_meta(name).parameters()), name
    with torch.device("meta"):
        z, log_det = flows.Composite([flows.Reverse(3), flows.ActNorm(3)])(torch.ones(5, 3))
        assert z.is_meta
        assert log_det.shape == (5,)
        assert flows.Permutation.random(5).order.is_meta
        with pytest.raises(ValueError, match="order: expected each of 0 to"):
            flows.Permutation(torch.arange(3))
    assert flows.Permutation.random(5, device="meta").order.is_meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_flow_without_parameters_has_the_dtype_it_is_given(dtype: torch.dtype) -> None:
    flow = flows.Flow(flows.Composite([flows.Logit(2), flows.Reverse(2)])).to(dtype)
    x, log_prob = flow.rsample_and_log_prob(5, seed=0)
    assert x.dtype == log_prob.dtype == dtype
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    assert set(flow.state_dict()) == {
        "transform.transforms.1.order",
        "transform.transforms.1.inverse_order",
    }
