"""Random distributions, flows and models.

Ordinary inputs must give finite numbers, and errors must name an argument.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import bslfast
from bslfast import bnn, distributions, flows, vae
from bslfast.flows.transform import first_number
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.nn import posteriors
from bslfast.nn.estimators import ESTIMATORS
from fuzz.arguments import WRONG

# Arguments that make torch itself fail: sizes that it cannot count, parameters that it cannot read.
_UNCHECKED = (str(2**63), str(2**70), "meta")
# Arguments that torch gets unchanged, and classes for which torch needs at least one vector.
_TAKEN_BY_TORCH = ("device", "dtype", "validate_args")
_AT_LEAST_ONE = (
    *("Categorical", "OneHotCategoricalStraightThrough", "RelaxedOneHotCategorical"),
    *("MultivariateNormal", "LowRankMultivariateNormal"),
)
_BATCHES = [(), (1,), (3,), (2, 1), (0,), (2, 3)]
_SAMPLES = [(), (1,), (2,), (1, 1), (0,), (2, 1)]


def _positive(shape: Any) -> Tensor:
    return torch.rand(shape) + 0.5


def _leaf(t: Tensor) -> Tensor:
    return t.requires_grad_()


def _distribution(name: str, rng: Random) -> dict[str, Any]:
    batch = rng.choice([b for b in _BATCHES if name not in _AT_LEAST_ONE or 0 not in b])
    loc, scale = _leaf(torch.randn(batch)), _leaf(_positive(batch))
    logits = _leaf(torch.randn(*batch, 4))
    by_scale = {"parametrization": rng.choice(PARAMETRIZATIONS), "scale": scale}
    table: dict[str, dict[str, Any]] = {
        "Bernoulli": {"logits": loc},
        "Categorical": {"logits": logits},
        "Poisson": {"log_rate": loc},
        "NegativeBinomial": {"log_rate": loc, "log_total_count": scale},
        "HalfCauchy": by_scale,
        "VonMises": {"loc": loc, "concentration": scale},
        "StudentT": {"df": _positive(batch) + 2, "loc": loc, **by_scale},
        "RelaxedBernoulli": {"temperature": 0.7, "logits": loc},
        "RelaxedOneHotCategorical": {"temperature": 0.7, "logits": logits},
        "OneHotCategoricalStraightThrough": {"temperature": 0.7, "logits": logits},
        "MultivariateNormal": {
            "loc": _leaf(torch.randn(*batch, 3)),
            "scale_tril": torch.eye(3) + torch.ones(3, 3).tril(-1),
        },
        "LowRankMultivariateNormal": {
            "loc": _leaf(torch.randn(*batch, 3)),
            "cov_factor": torch.ones(3, 1),
            "cov_diag": torch.ones(3),
        },
    }
    arguments = table.get(name, {"loc": loc, **by_scale})
    return {**arguments, "validate_args": rng.choice([None, True, False])}


def _use_distribution(made: Distribution, rng: Random) -> list[Tensor]:
    """Call the distribution's methods, and return their results."""
    whole = type(made).__name__ not in _AT_LEAST_ONE
    shape = torch.Size(rng.choice([s for s in _SAMPLES if whole or 0 not in s]))
    sample = (made.rsample if made.has_rsample else made.sample)(shape)
    assert sample.shape == shape + made.batch_shape + made.event_shape
    found = [sample, made.log_prob(sample.detach())]
    assert found[1].shape == shape + made.batch_shape
    wider = made.expand(torch.Size((2, *made.batch_shape)))
    assert wider.sample(shape).shape == shape + wider.batch_shape + wider.event_shape
    u = torch.rand(made.batch_shape)
    for method in (
        made.entropy,
        lambda: made.cdf(sample.detach()),
        lambda: made.icdf(u),
        lambda: distributions.kl_divergence(made, made),
    ):
        with contextlib.suppress(NotImplementedError):
            found.append(method())
    assert repr(made)
    return found


def _flow(name: str, rng: Random) -> dict[str, Any]:
    features = rng.choice([1, 2, 3, 5, 8])
    options: dict[str, Any] = {"features": features}
    accepted = inspect.signature(getattr(flows, name)).parameters
    more = {
        "context": rng.choice([0, 0, 1, 2]),
        "hidden": rng.choice([(), (4,), (4, 3)]),
        "flip": rng.random() < 0.5,
        "scale_fn": rng.choice(["tanh", "exp", "sigmoid"]),
        "tails": rng.choice(["linear", "affine"]),
        "bins": rng.choice([2, 3, 8]),
        "bound": rng.choice([0.5, 3.0]),
        "activation": rng.choice(["relu", "tanh", "silu"]),
        "autoregressive": rng.random() < 0.5,
        "components": rng.choice([1, 2, 8]),
        "degree": rng.choice([1, 2, 16]),
        "transforms": rng.choice([1, 2, 3]),
        "seed": rng.choice([None, 3]),
        "rank": rng.choice([None, 1, features]),
        "reflections": rng.choice([None, 1, 2]),
        "negative_slope": 0.25,
        "momentum": 0.5,
        "low": rng.choice([0.0, -3.5]),
        "high": rng.choice([1.0, 20.0]),
        "permutation": rng.choice(["reverse", "random", "plu", "none"]),
        "support": rng.choice([None, None, "positive", (0, 1), (-2.0, 3.0)]),
    }
    more |= _factory(rng)
    options |= {k: v for k, v in more.items() if k in accepted and rng.random() < 0.6}
    return options


def _factory(rng: Random) -> dict[str, Any]:
    """Where parameters are made and of what."""
    return {
        "device": rng.choice([None, "cpu", torch.device("cpu")]),
        "dtype": rng.choice([None, torch.float32, torch.float64]),
    }


def _map(rng: Random) -> flows.Map:
    return rng.choice(
        [
            flows.Additive(),
            flows.Affine(rng.choice(["tanh", "exp", "sigmoid"])),
            flows.Spline(rng.choice([2, 5]), tails=rng.choice(["linear", "affine", "circular"])),
            flows.MixtureLogistic(rng.choice([1, 3])),
            flows.DeepSigmoidal(rng.choice([1, 3])),
            flows.Bernstein(rng.choice([1, 4])),
        ]
    )


def _network(name: str, rng: Random) -> dict[str, Any]:
    """Of a conditioner."""
    hidden = rng.choice([(), (4,), (4, 3)])
    options: dict[str, Any] = {"context": rng.choice([0, 0, 2]), "hidden": hidden, **_factory(rng)}
    options["activation"] = rng.choice(["relu", "tanh", "silu"])
    options["residual"] = rng.choice([0, 1]) if hidden else 0
    if name == "MADE":
        features = rng.choice([1, 2, 3])
        order = rng.choice([None, rng.sample(range(features), features)])
        return {"features": features, "map": _map(rng), "order": order, **options}
    return {"inputs": rng.choice([0, 1, 3]), "outputs": rng.choice([1, 4]), **options}


def _use_network(made: flows.Conditioner, rng: Random) -> list[Tensor]:
    batch = rng.choice([(4,), (1,), (2, 3)])
    dtype = _dtype(made)
    x = torch.randn(*batch, made.inputs, dtype=dtype)
    context = torch.randn(*batch, made.context, dtype=dtype) if made.context else None
    found = made(x, context)
    assert found.shape == (*(batch if made.inputs or made.context else ()), made.outputs)
    return [found]


def _mapped(name: str, rng: Random) -> dict[str, Any]:
    """Of a transform by a map and a network."""
    map = _map(rng)
    if name == "Autoregressive":
        return {"map": map, "conditioner": flows.MADE(**{**_network("MADE", rng), "map": map})}
    mask = rng.choice([[True], [True, False], [True, False, True], [False, True, True]])
    network = _network("Conditioner", rng)
    network |= {"inputs": mask.count(False), "outputs": mask.count(True) * map.size}
    conditioner = flows.Conditioner(**network, start=map.start)
    return {"map": map, "mask": mask, "conditioner": conditioner, "context": network["context"]}


def _of_images(name: str, rng: Random) -> dict[str, Any]:
    channels, factory = rng.choice([1, 2]), _factory(rng)
    if name == "Glow":
        more = {"scales": rng.choice([1, 2]), "steps": rng.choice([1, 2]), "hidden": (3,)}
        return {"shape": (channels, 4, 4), "context": rng.choice([0, 2]), **more, **factory}
    transforms: list[flows.ImageTransform] = [
        flows.Squeeze(channels),
        flows.InvertibleConv1x1(4 * channels, seed=rng.choice([None, 3]), **factory),
        flows.PerPixel(flows.ActNorm(4 * channels, **factory)),
    ]
    return {"shape": (channels, 2, 4), "transforms": transforms[: rng.choice([1, 2, 3])]}


def _leading(name: str, rng: Random) -> dict[str, Any]:
    kind = rng.choice(["AffineCoupling", "NSF", "PLULinear", "Planar", "ActNorm"])
    options = {k: v for k, v in _flow(kind, rng).items() if k != "support"}  # of all numbers
    made = getattr(flows, kind)(**options)
    transform = made.transform if isinstance(made, flows.Flow) else made
    return {"transform": transform, "features": transform.features + rng.choice([0, 1, 3])}


def _base(name: str, rng: Random) -> dict[str, Any]:
    if name == "UniformBase":
        return {"features": rng.choice([1, 3]), "low": rng.choice([-1.0, -4.5]), "high": 1.5}
    options: dict[str, Any] = {"features": rng.choice([1, 3]), "context": rng.choice([0, 2])}
    if name == "NormalMixtureBase":
        options["components"] = rng.choice([1, 3])
    if name == "StudentTBase":
        options["df"] = rng.choice([2.5, 30.0])
    return {**options, "hidden": rng.choice([(), (4,)]), **_factory(rng)}


def _use_base(made: flows.Base, rng: Random) -> list[Tensor]:
    batch, dtype = rng.choice([(4,), (2, 3)]), _dtype(made)
    context = torch.randn(*batch, made.context, dtype=dtype) if made.context else None
    with torch.no_grad():
        z = made.rsample(torch.empty(*batch, made.features, dtype=dtype), context, None)
    assert z.shape == (*batch, made.features)
    log_prob = made.log_prob(z, context)
    assert log_prob.shape == batch
    return [z, log_prob]


def _dtype(made: nn.Module) -> torch.dtype:
    like = made._like() if isinstance(made, flows.Flow) else first_number(made)
    return torch.get_default_dtype() if like is None else like.dtype


def _use_flow(made: nn.Module, rng: Random) -> list[Tensor]:
    flow = made if isinstance(made, flows.Flow) else None
    transform = made.transform if flow is not None else made
    training = rng.random() < 0.5
    made.train(training)
    batch = rng.choice([(4,), (2, 3)] if training else [(4,), (1,), (2, 3)])
    name = type(made).__name__
    dtype = _dtype(made)
    x = torch.rand(*batch, transform.features, dtype=dtype) * 0.8 + 0.1
    context = torch.randn(*batch, transform.context, dtype=dtype) if transform.context else None
    found: list[Tensor] = []
    if flow is not None:
        n = rng.choice([0, 1, 3])
        found += [flow.log_prob(x, context), flow.sample(n, context)]
        found += flow.rsample_and_log_prob(n, context)
        return found
    z, log_det = transform(x, context)
    assert z.shape == x.shape
    assert log_det.shape == batch
    made.eval()
    z, _ = transform(x, context)
    back, back_log_det = transform.inverse(z, context)
    assert back.shape == x.shape
    found += [back, back_log_det]
    if name != "BatchNorm":
        torch.testing.assert_close(back, x, rtol=1e-2, atol=1e-2)
    return [z, log_det, *found]


def _linear(name: str, rng: Random) -> dict[str, Any]:
    return {
        "in_features": rng.choice([1, 3, 8]),
        "out_features": rng.choice([1, 2, 5]),
        "bias": rng.random() < 0.5,
        "prior_scale": rng.choice([0.1, 1.0]),
        "init_scale": rng.choice([0.02, 1.0]),
        "parametrization": rng.choice(PARAMETRIZATIONS),
        "estimator": rng.choice(list(ESTIMATORS)),
    }


def _recurrent(name: str, rng: Random) -> dict[str, Any]:
    layers, parametrization = rng.choice([1, 2]), rng.choice(PARAMETRIZATIONS)
    return {
        "input_size": rng.choice([1, 3]),
        "hidden_size": rng.choice([1, 2, 4]),
        "num_layers": layers,
        "bias": rng.random() < 0.5,
        "batch_first": rng.random() < 0.5,
        "dropout": rng.choice([0.0, 0.5]) if layers > 1 else 0.0,
        "bidirectional": rng.random() < 0.5,
        "return_state": rng.random() < 0.5,
        "posterior": rng.choice(
            [
                posteriors.Normal(parametrization),
                posteriors.FullCovariance(parametrization),
                posteriors.LowRank(2, parametrization=parametrization),
                posteriors.MCDropout(0.2),
            ]
        ),
    }


def _use_recurrent(made: Any, rng: Random) -> list[Tensor]:
    x = torch.randn(*rng.choice([(4,), (1, 1), (3, 2)]), made.input_size)
    y, n = made(x), rng.choice([1, 2])
    y = y[0] if made.return_state else y
    found = [y, bslfast.nn.kl(made), made.sample_outputs(x, n)]
    assert y.shape == (*x.shape[:-1], made.hidden_size * (2 if made.bidirectional else 1))
    assert found[2].shape == (n, *y.shape)
    return found


def _mlp(name: str, rng: Random) -> dict[str, Any]:
    return {
        "in_features": rng.choice([1, 3]),
        "hidden": rng.choice([(), (4,), (3, 2)]),
        "out_features": rng.choice([1, 2]) + 1,
        "activation": rng.choice(list(bnn.ACTIVATIONS)),
        "likelihood": rng.choice(["normal", "heteroscedastic_normal", "categorical"]),
        "parametrization": rng.choice(PARAMETRIZATIONS),
        "estimator": rng.choice(list(ESTIMATORS)),
    }


def _use_bayesian(made: Any, rng: Random) -> list[Tensor]:
    layers = getattr(made, "layers", [made])
    x = torch.randn(rng.choice([1, 4]), layers[0].in_features)
    y, n = made(x), rng.choice([1, 1, 2])
    found = [y, bslfast.nn.kl(made), made.sample_outputs(x, n)]
    assert found[2].shape == (n, *y.shape)
    likelihood = getattr(made, "likelihood", None)
    if likelihood is not None:
        targets = torch.randn_like(y) if type(likelihood).__name__ == "Normal" else None
        if type(likelihood).__name__ == "Categorical":
            targets = torch.zeros(len(x), dtype=torch.int64)
        if targets is not None:
            found.append(likelihood.log_prob(y, targets))
        found.append(bslfast.predict(made, x, n_samples=n).mean)
    return found


def _vae(name: str, rng: Random) -> dict[str, Any]:
    shape, latent = rng.choice([(5,), (1, 4, 4)]), rng.choice([1, 2, 3])
    likelihood = rng.choice(["bernoulli", "normal"])
    prior = vae.VampPrior(rng.choice([1, 3]), shape) if rng.random() < 0.3 else None
    return {
        "encoder": vae.mlp_encoder(shape, latent, (4,)),
        "decoder": vae.mlp_decoder(latent, shape, (4,)),
        "likelihood": likelihood,
        "beta": rng.choice([0.0, 1.0, 2.0]),
        "latent": latent,
        "free_bits": 0.0 if prior is not None else rng.choice([0.0, 0.5]),
        "prior": prior,
    }


def _use_vae(made: vae.VAE, rng: Random) -> list[Tensor]:
    shape = made.decode(torch.zeros(1, made.latent)).shape[1:]
    x = torch.rand(rng.choice([1, 3]), *shape)
    n = rng.choice([1, 1, 2])
    return [
        made.elbo(x, n),
        made.iwae(x, n, estimator=rng.choice(["iwae", "dreg"])),
        made.log_marginal(x, n),
        made.sample(n),
        made.reconstruct(x),
    ]


_FLOWS = [
    *("ActNorm", "AdditiveCoupling", "AffineCoupling", "Atanh", "BatchNorm", "BernsteinCoupling"),
    *("DeepSigmoidalCoupling", "Exp", "Householder", "LeakyReLU", "Log", "Logit"),
    *("MixtureLogisticCoupling", "IAF", "MAF", "NICE", "NSF", "PLULinear", "Planar", "Radial"),
    *(
        "RealNVP",
        "Rescale",
        "Reverse",
        "Sigmoid",
        "Softplus",
        "SplineCoupling",
        "Standardize",
        "Sylvester",
    ),
    "Tanh",
]
_BASES = ["NormalBase", "NormalMixtureBase", "StudentTBase", "UniformBase", "VonMisesBase"]
_DISTRIBUTIONS = [
    name
    for name in distributions.__all__
    if name not in ("LocationScale", "RawScale", "kl_divergence", "register_kl")
]
#: Classes, each with its module, the function that draws its arguments and the one that uses it.
KINDS: dict[str, tuple[Any, Callable[[str, Random], dict[str, Any]], Callable[..., list[Tensor]]]]
KINDS = {
    **{name: (distributions, _distribution, _use_distribution) for name in _DISTRIBUTIONS},
    **{name: (flows, _flow, _use_flow) for name in _FLOWS},
    **{name: (flows, _mapped, _use_flow) for name in ("Autoregressive", "Coupling")},
    **{name: (flows, _of_images, _use_flow) for name in ("Glow", "Images")},
    "Leading": (flows, _leading, _use_flow),
    **{name: (flows, _network, _use_network) for name in ("Conditioner", "MADE")},
    **{name: (flows, _base, _use_base) for name in _BASES},
    "BayesGRU": (bslfast.nn, _recurrent, _use_recurrent),
    "BayesLSTM": (bslfast.nn, _recurrent, _use_recurrent),
    "BayesLinear": (bslfast.nn, _linear, _use_bayesian),
    "BayesianMLP": (bnn, _mlp, _use_bayesian),
    "VAE": (vae, _vae, _use_vae),
}


@dataclass(frozen=True)
class Module:
    """A class of the library, made and used; with an argument that is wrong if ``wrong`` is one."""

    kind: str
    seed: int
    wrong: str = ""

    def __repr__(self) -> str:
        return f"modules.Module({self.kind!r}, {self.seed}, {self.wrong!r})"

    def check(self) -> bool:
        """Return False if an argument was refused."""
        where, arguments, use = KINDS[self.kind]
        family = getattr(where, self.kind)
        rng = Random(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            given = arguments(self.kind, rng)
            if self.wrong:
                known = inspect.signature(family).parameters
                taken = [k for k in _TAKEN_BY_TORCH if k != "dtype" or where is not flows]
                name = rng.choice([k for k in known if k not in taken])
                given[name] = WRONG[self.wrong](given.get(name))
                try:
                    family(**given)
                except (TypeError, ValueError) as error:
                    self._names(name, error, where)
                    return False
                return True
            made = family(**given)
            found = use(made, rng)
        for i, t in enumerate(found):
            assert bool(t.isfinite().all()), f"result {i} is not finite"
        differentiable = [t.sum() for t in found if t.requires_grad]
        if differentiable:
            leaves = [t for t in given.values() if isinstance(t, Tensor) and t.requires_grad]
            leaves += [p for p in made.parameters()] if isinstance(made, nn.Module) else []
            grads = torch.autograd.grad(sum(differentiable), leaves, allow_unused=True)
            for g in grads:
                assert g is None or bool(g.isfinite().all()), "a gradient is not finite"
        return True

    def _names(self, name: str, error: Exception, where: Any) -> None:
        """Torch's own checks of distributions name the argument, though not first."""
        text = str(error)
        if where is distributions:
            known = inspect.signature(getattr(where, self.kind)).parameters
            assert any(re.search(rf"\b{k}\b", text) for k in known), text
        else:
            assert re.match(r"\w+(\[\d+\])?: ", text), f"{name}: {type(error).__name__}: {text}"

    def simpler(self) -> Iterator[Module]:
        if self.seed:
            yield replace(self, seed=0)


def draw(kind: str, rng: Random) -> Module:
    """Draw a module; one in three has a wrong argument, if the constructor is ours."""
    wrong = ""
    if rng.random() < 0.33 and not kind.endswith("MultivariateNormal"):
        wrong = rng.choice([w for w in WRONG if w not in _UNCHECKED])
    return Module(kind, rng.randrange(10**6), wrong)
