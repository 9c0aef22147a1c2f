"""Write docs/bayesian_layers.md: which layers, posteriors, priors and estimators go together.

python tools/bayesian_layers.py

All combinations are made and run: a forward pass, the divergence, a backward pass. Those that are
refused have the reason from the error.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import bslfast
from bslfast import likelihoods, programs
from bslfast.bnn import ACTIVATIONS, BayesianMLP
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.nn import convert, posteriors, priors
from bslfast.nn.estimators import ESTIMATORS
from bslfast.nn.weight import DIVERGENCES

PAGE = Path(__file__).parents[1] / "docs" / "bayesian_layers.md"

HEADER = """# Layers, posteriors, priors and estimators

Made by `tools/bayesian_layers.py`, not to be edited. The script makes and runs all combinations of
{sizes}, {count} of them: a forward pass, `kl`, and a
backward pass that must give each parameter a finite gradient. `tests/test_bayesian_layers.py` does
so again and compares the page.

A combination works if and only if its pairs do, in all four tables of pairs, which is checked, too.
{works} of them work. A pair that does not is refused when the layer is made, with the error under
its table. `BayesTransformerEncoderLayer` consists of layers of this page.

Posteriors and priors are arguments of each layer, of `BayesianMLP` and of `to_bayesian`, one for
all weights or some by name; an estimator is an argument, too, or is set later:

```python
import bslfast
from bslfast.nn import posteriors, priors

layer = bslfast.nn.BayesConv2d(
    3, 8, 3, posterior={{"bias": posteriors.Deterministic()}}, prior=priors.Laplace(0.5)
)
bslfast.nn.set_estimator(layer, "flipout")
```
"""
PAIRS = """
## Posterior and prior

How `kl` gets the divergence: in closed form, or as an estimate from a sample of the weights, which
is that of the forward pass if the estimator has drawn one. For points (`Deterministic`,
`MCDropout`) the divergence is not finite. What of it depends on the parameters, -E log p(w), takes
its place; it needs a prior that is finite at 0.
"""
POSTERIORS = """
## Layer and posterior

*drawn*: each pass draws other weights. *mean*: each pass has the same weights. A joint posterior
(`FullCovariance`, `LowRank`) is of all weights and biases of a layer together. `MCDropout` leaves
weights of one dimension as they are, here those of a `BayesLayerNorm` of vectors; one of images,
whose weights have no inputs to drop, it refuses.
"""
LAYERS = """
## Layer and estimator
"""
OF_POSTERIORS = """
## Posterior and estimator
"""
PROGRAMS = """
## What becomes one call

On the CPU a small `BayesianMLP` is one call of a kernel for many steps of `training.fit`, for
`negative_elbo` with its gradients, and for the draws of `predict` (docs/architecture.md, "A
program"), if all its choices are in the middle. So are, in `training.fit`, the steps of an
`nn.Sequential` of the layers there, `nn.Linear` and activations. The others run op by op, with the
same results up to rounding. `model.explain()` says which it is now, and why.

A `bslfast.nn.Sequential`, as `to_bayesian` makes of torch's, draws the weights of all its layers by
one call. One more works out `kl(model)`, and one the gradients of both. That is so if posteriors
and priors are `Normal` and the estimator is `weight_sample`, up to 262,144 weights on the CPU.

| | one call | op by op |
|---|---|---|
"""


class Made(NamedTuple):
    """How a layer is made and called: arguments, and the input."""

    arguments: Mapping[str, int]
    x: Callable[[], Tensor]


def _convolutions(name: str) -> dict[str, Made]:
    arguments = {"in_channels": 2, "out_channels": 3, "kernel_size": 2}
    return {
        f"Bayes{name}{n}d": Made(arguments, functools.partial(torch.randn, 2, 2, *[3] * n))
        for n in (1, 2, 3)
    }


RECURRENT = Made({"input_size": 3, "hidden_size": 2}, lambda: torch.randn(4, 2, 3))
MADE: dict[str, Made] = {
    "BayesLinear": Made({"in_features": 3, "out_features": 2}, lambda: torch.randn(4, 3)),
    **_convolutions("Conv"),
    **_convolutions("ConvTranspose"),
    "BayesEmbedding": Made(
        {"num_embeddings": 5, "embedding_dim": 3}, lambda: torch.tensor([[0, 1, 4]])
    ),
    "BayesLayerNorm": Made({"normalized_shape": 4}, lambda: torch.randn(2, 4)),
    "BayesLSTM": RECURRENT,
    "BayesGRU": RECURRENT,
    "BayesMultiheadAttention": Made({"embed_dim": 4, "num_heads": 2}, lambda: torch.randn(3, 2, 4)),
}
EVERY_LAYER: dict[str, Any] = {
    kind.__name__: kind
    for plain, kind in convert.LAYERS.items()
    if plain.__module__.startswith("torch.")
}
EVERY_POSTERIOR = tuple(dict.fromkeys(kind.__name__ for kind, _ in DIVERGENCES))
EVERY_PRIOR = tuple(dict.fromkeys(kind.__name__ for _, kind in DIVERGENCES))


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole text."""
    torch.manual_seed(0)
    names = (EVERY_LAYER, EVERY_POSTERIOR, EVERY_PRIOR, ESTIMATORS)
    refused = {combination: refusal(*combination) for combination in itertools.product(*names)}

    def pair(
        layer: str = "BayesLinear",
        posterior: str = "Normal",
        prior: str = "Normal",
        estimator: str = "weight_sample",
    ) -> str | None:
        return refused[layer, posterior, prior, estimator]

    for combination, reason in refused.items():
        layer, posterior, prior, estimator = combination
        of_pairs = (
            pair(posterior=posterior, prior=prior),
            pair(layer, posterior),
            pair(layer, estimator=estimator),
            pair(posterior=posterior, estimator=estimator),
        )
        if (reason is None) != (of_pairs == (None,) * 4):
            raise AssertionError(f"{combination}: {reason}, but its pairs: {of_pairs}")
    kinds = ("layers", "posteriors", "priors", "estimators")
    sizes = [f"{len(of)} {kind}" for of, kind in zip(names, kinds, strict=True)]
    header = HEADER.format(
        count=f"{len(refused):,}",
        works=f"{sum(reason is None for reason in refused.values()):,}",
        sizes=", ".join(sizes[:-1]) + " and " + sizes[-1],
    )
    return "".join(
        [
            header,
            PAIRS,
            _table("posterior", EVERY_POSTERIOR, EVERY_PRIOR,
                   lambda q, p: pair(posterior=q, prior=p), _how),
            POSTERIORS,
            _table("layer", EVERY_LAYER, EVERY_POSTERIOR, pair, _drawn),
            LAYERS,
            _table("layer", EVERY_LAYER, ESTIMATORS, lambda n, e: pair(n, estimator=e)),
            OF_POSTERIORS,
            _table("posterior", EVERY_POSTERIOR, ESTIMATORS,
                   lambda q, e: pair(posterior=q, estimator=e)),
            PROGRAMS,
            "\n".join(_programs()) + "\n",
        ]
    )  # fmt: skip


def layer_of(name: str, posterior: str, prior: str, estimator: str) -> Any:
    """A layer by the names of what it is made of."""
    kind, made = EVERY_LAYER[name], MADE[name]
    q = getattr(posteriors, posterior)()
    given: Any
    if prior == "CentredNormal":
        plain = kind(**made.arguments).deterministic_twin().named_parameters()
        means = {n.replace("out_proj.", "out_proj_"): torch.zeros_like(p) for n, p in plain}
        given = {n: priors.CentredNormal(mean) for n, mean in means.items()}
        if q.joint:
            given = priors.CentredNormal(torch.cat([mean.flatten() for mean in means.values()]))
    else:
        given = getattr(priors, prior)()
    return kind(**made.arguments, posterior=q, prior=given, estimator=estimator)


def called(layer: Any, name: str, x: Tensor, seed: int | None = None) -> Tensor:
    """The outputs of a layer for an input."""
    inputs = (x, x, x) if name == "BayesMultiheadAttention" else (x,)
    outputs = layer(*inputs, seed=seed)
    found: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return found


def refusal(name: str, posterior: str, prior: str, estimator: str) -> str | None:
    """Run a combination; the reason if it is refused."""
    try:
        layer = layer_of(name, posterior, prior, estimator)
    except (TypeError, ValueError) as error:
        return str(error).split(", got")[0]
    loss = called(layer, name, MADE[name].x()).square().sum() + bslfast.nn.kl(layer)
    loss.backward()
    for key, parameter in layer.named_parameters():
        if parameter.grad is None or not parameter.grad.isfinite().all():
            raise AssertionError(f"{name}, {posterior}, {prior}, {estimator}: gradient of {key}")
    return None


def _how(posterior: str, prior: str) -> str:
    """Whether the divergence has the same value when it is computed again."""
    layer = layer_of("BayesLinear", posterior, prior, "weight_sample")
    same = torch.equal(layer.compute_kl(), layer.compute_kl())
    return "closed form" if same else "estimate"


def _drawn(name: str, posterior: str) -> str:
    """Whether passes with the same input differ."""
    layer = layer_of(name, posterior, "Normal", "weight_sample")
    x = MADE[name].x()
    outputs = [called(layer, name, x, seed) for seed in range(16)]
    return "mean" if all(torch.equal(outputs[0], y) for y in outputs) else "drawn"


def _yes(row: str, column: str) -> str:
    return "yes"


def _table(
    corner: str,
    rows: Sequence[str] | Mapping[str, Any],
    columns: Sequence[str] | Mapping[str, Any],
    refused: Callable[[str, str], str | None],
    cell: Callable[[str, str], str] = _yes,
) -> str:
    """A table of pairs, and under it why some are refused, each reason once."""
    lines = [_line([corner, *map(_code, columns)]), "|---" * (len(columns) + 1) + "|"]
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        cells = []
        for column in columns:
            reason = refused(row, column)
            if reason is not None:
                said = re.sub(rf"\b(an?|posterior) {row}\b", r"\1 ...", reason)
                reasons.setdefault(said, {})[_code(row)] = None
            cells.append(cell(row, column) if reason is None else "no")
        lines.append(_line([_code(row), *cells]))
    errors = [f"- {', '.join(of)}: `{said}`" for said, of in reasons.items()]
    return "\n".join(["", *lines, *(["", "Errors:", "", *errors] if errors else [])]) + "\n"


def _programs() -> list[str]:
    """Lines of the table of what becomes one call, with one choice varied in each."""
    varied: dict[str, dict[str, str | None]] = {
        "posterior": {q: _obstacle(posterior=getattr(posteriors, q)()) for q in EVERY_POSTERIOR},
        "prior": {
            p: _obstacle(prior=getattr(priors, p)())
            for p in EVERY_PRIOR
            if p != "CentredNormal"  # which has the shape of one layer's weights
        },
        "estimator": {e: _obstacle(estimator=e) for e in ESTIMATORS},
    }
    one_call = {
        key: {n for n, why in found.items() if why is None} for key, found in varied.items()
    }
    for q, p, e in itertools.product(*varied.values()):
        try:
            reason = _obstacle(
                posterior=getattr(posteriors, q)(), prior=getattr(priors, p)(), estimator=e
            )
        except ValueError:  # no layer can be made of these
            continue
        alone = q in one_call["posterior"], p in one_call["prior"], e in one_call["estimator"]
        if (reason is None) != all(alone):
            raise AssertionError(f"{q}, {p}, {e}: {reason}, but each alone: {alone}")
    varied["parametrization"] = {p: _obstacle(parametrization=p) for p in PARAMETRIZATIONS}
    varied["activation"] = {a: _obstacle(activation=a) for a in ACTIVATIONS}
    varied["likelihood"] = {
        name: _obstacle(likelihood=name, out_features=3 if name == "categorical" else 1)
        for name in likelihoods.NAMES
    }
    varied["layer"] = {name: _of_layer(name) for name in EVERY_LAYER}
    lines = []
    for key, found in varied.items():
        whole = [_code(name) for name, why in found.items() if why is None]
        others = [_code(name) for name, why in found.items() if why is not None]
        lines.append(_line([key, ", ".join(whole), ", ".join(others)]))
    return lines


def _obstacle(*, out_features: int = 1, **options: Any) -> str | None:
    """Why the loss of a network is computed op by op; None if it is one call."""
    said = BayesianMLP(11, (8,), out_features, **options).explain().split("training.fit: ")[1]
    return None if said.startswith("one call") else said.removeprefix("op by op: ")


def _of_layer(name: str) -> str | None:
    """Why a layer is no step of a program."""
    layer = layer_of(name, "Normal", "Normal", "weight_sample")

    def steps(builder: programs.Builder, module: nn.Module) -> programs.Lanes:
        lanes: programs.Lanes = programs.lower(builder, module, builder.x)
        return lanes

    return programs.Lowered(layer, steps, 3).reason


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(name: str) -> str:
    return f"`{name}`"


if __name__ == "__main__":
    main()
