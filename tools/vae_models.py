"""Write docs/vae_models.md: autoencoders, their likelihoods, posteriors and priors.

python tools/vae_models.py

Each model is made, trained on scikit-learn's digits and evaluated. Each pair of a posterior and
what may stand beside it is made and run; those that are refused have the reason from the error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast.data import load_digits
from bslfast.training import fit
from bslfast.vae import VAE, Autoencoder, SemiSupervisedVAE

PAGE = Path(__file__).parents[1] / "docs" / "vae_models.md"
EPOCHS, TEST, SAMPLES = 30, 200, 200

HEADER = """# Autoencoders and what they are made of

Made by `tools/vae_models.py`, not to be edited. The script trains all models of this page for
{epochs} epochs on scikit-learn's digits and checks that the loss falls, that the bound lies below
the log likelihood, and that samples, reconstructions and lines between codes are finite and have
the shape of x. `tests/test_vae_models.py` does so again with fewer epochs and compares the page,
but for the numbers.

The models below are made with these functions:

```python
{definitions}```

One is trained, and used, like this (`pip install scikit-learn`, which has the digits):

```python
from bslfast.data import load_digits, split
from bslfast.training import fit

digits = load_digits()
parts = split((digits.x > 0.5).float(), digits.y, seed=0)
vae = VAE(encoder(), decoder())
fit(vae, (parts.train.x,), objective=VAE.elbo_and_kl, epochs=2, lr=3e-3)

x = parts.test.x
log_likelihood, kl = vae.terms(x)  # the parts of the bound, each [batch]
log_p = vae.log_marginal(x, n_samples=100)  # of log p(x), by importance sampling
images = vae.sample(10)
```
"""
DEFINITIONS = """import torch

from bslfast.flows import IAF, NSF, Composite, NormalMixtureBase, Planar
from bslfast.vae import (
    VAE,
    Autoencoder,
    DiagonalNormal,
    FlowPosterior,
    FullCovarianceNormal,
    GumbelSoftmax,
    SemiSupervisedVAE,
    VampPrior,
    conv_decoder,
    conv_encoder,
    mlp_decoder,
    mlp_encoder,
)

SHAPE, LATENT = (1, 8, 8), 4


def encoder(outputs=None, channels=1, **options):
    return mlp_encoder((channels, 8, 8), LATENT, (64,), outputs=outputs, **options)


def decoder(code=LATENT, channels=1, **options):
    return mlp_decoder(code, (channels, 8, 8), (64,), **options)


def with_posterior(posterior, outputs):
    return VAE(encoder(outputs), decoder(posterior.code_size(LATENT)), posterior=posterior)
"""
MODELS = """
## Models

The bound is E log p(x | z) - KL, without `beta`, `free_bits` and `capacity`; log p(x) is
`log_marginal` with {samples} samples. Both are means over {test} test images, in nats: what is left
between them is what the posterior misses. x are the digits' {test} and {train} images with pixels
above 0.5 as 1 and others as 0. `training.fit` has `objective=VAE.elbo_and_kl` unless the table
says otherwise. These numbers show that the models work, not which is best: all are small and
trained briefly, with the same settings.

"""
LIKELIHOODS = """
## Likelihoods

`VAE(encoder(), decoder(), likelihood=...)` on what each is for. Numbers of different laws are
comparable only where x is the same. A density may exceed 1, so its logarithm may be positive. For
another law give an instance of a class of `bslfast.likelihoods`, with its number of targets `None`.

"""
PAIRS = """
## What goes with what

*exact*: the divergence has a closed form. *estimate*: it is estimated from the codes that are drawn
for the likelihood. Each pair has been run, forward and backward; those that are refused are so when
the model is made or the method called, with the error under the table.

"""


class Model(NamedTuple):
    """How a model is made and trained, as code that the page shows."""

    code: str
    objective: str = ""
    data: str = "binary"
    conditional: bool = False


ROWS: dict[str, Model] = {
    "autoencoder": Model(
        "Autoencoder(encoder(deterministic=True), decoder())", "Autoencoder.forward"
    ),
    "VAE": Model("VAE(encoder(), decoder())"),
    "convolutional VAE": Model(
        "VAE(conv_encoder(SHAPE, LATENT, (8, 16), (2, 2)), "
        "conv_decoder(LATENT, SHAPE, (16, 8), (2, 2)))"
    ),
    "beta-VAE": Model("VAE(encoder(), decoder(), beta=4.0)"),
    "free bits": Model("VAE(encoder(), decoder(), free_bits=0.5)"),
    "capacity": Model("VAE(encoder(), decoder(), beta=10.0, capacity=8.0)"),
    "conditional VAE": Model(
        "VAE(encoder(context=10), decoder(context=10))", conditional=True
    ),
    "semi-supervised, labels for a tenth": Model(
        "SemiSupervisedVAE(VAE(encoder(context=10), decoder(context=10)), encoder(10), "
        "classes=10, labelled=0.1)",
        "SemiSupervisedVAE.objective",
    ),
    "IWAE": Model("VAE(encoder(), decoder())", "lambda vae, x: vae.iwae(x, 5)"),
    "IWAE, doubly reparametrised": Model(
        "VAE(encoder(), decoder())", 'lambda vae, x: vae.iwae(x, 5, estimator="dreg")'
    ),
    "VampPrior": Model("VAE(encoder(), decoder(), prior=VampPrior(20, SHAPE), latent=LATENT)"),
    "mixture as prior": Model("VAE(encoder(), decoder(), prior=NormalMixtureBase(LATENT, 10))"),
    "flow as prior": Model(
        "VAE(encoder(), decoder(), prior=NSF(LATENT, transforms=2, hidden=(32,)))"
    ),
    "full covariance": Model("with_posterior(FullCovarianceNormal(), 14)"),
    "planar flow as posterior": Model(
        "with_posterior(FlowPosterior(Composite([Planar(LATENT) for _ in range(4)])), 8)"
    ),
    "IAF as posterior": Model(
        "with_posterior(FlowPosterior(IAF(LATENT, context=8, transforms=2, hidden=(32,))), 16)"
    ),
    "NSF as posterior": Model(
        "with_posterior(FlowPosterior(NSF(LATENT, context=8, transforms=1, hidden=(32,))), 16)"
    ),
    "categories (Gumbel-softmax)": Model("with_posterior(GumbelSoftmax(8), 32)"),
}  # fmt: skip
LAWS: dict[str, Model] = {
    "Bernoulli": Model('likelihood="bernoulli"'),
    "continuous Bernoulli": Model('likelihood="continuous_bernoulli"', data="grey"),
    "normal, learned scale": Model('likelihood="normal"', data="grey"),
    "normal, fixed scale": Model('likelihood="normal", scale=0.2', data="grey"),
    "normal, a scale for each pixel": Model('likelihood="normal", scale="decoder"', data="noisy"),
    "Laplace": Model('likelihood="laplace"', data="noisy"),
    "Student's t": Model('likelihood="student_t"', data="noisy"),
    "Poisson": Model('likelihood="poisson"', data="counts"),
    "negative binomial": Model('likelihood="negative_binomial"', data="counts"),
    "mixture of discretized logistics": Model(
        'likelihood="discretized_logistic_mixture"', data="levels"
    ),
    "categorical": Model('likelihood="categorical", classes=4', data="one-hot"),
}
#: Outputs of the decoder for each pixel, where they are not one.
CHANNELS = {'scale="decoder"': 2, "discretized_logistic_mixture": 15, "categorical": 4}
DATA = {
    "binary": "pixels above 0.5 are 1, others 0",
    "grey": "in [0, 1], sixteenths",
    "noisy": "sixteenths with noise from U(0, 1/16), which makes them continuous",
    "counts": "0 to 16",
    "levels": "256 values from -1 to 1",
    "one-hot": "four levels of grey as classes, one-hot",
}
POSTERIORS = {
    "DiagonalNormal": "with_posterior(DiagonalNormal(), 8{})",
    "FullCovarianceNormal": "with_posterior(FullCovarianceNormal(), 14{})",
    "FlowPosterior": "with_posterior(FlowPosterior(Planar(LATENT)), 8{})",
    "GumbelSoftmax": "with_posterior(GumbelSoftmax(8), 32{})",
}
PRIORS = {
    "standard": "",
    "`VampPrior`": "prior=VampPrior(5, SHAPE)",
    "`NormalMixtureBase`": "prior=NormalMixtureBase(LATENT, 3)",
    "`NSF`": "prior=NSF(LATENT, transforms=1, hidden=(8,))",
}


def main() -> None:
    PAGE.write_text(page())


def page(epochs: int = EPOCHS) -> str:
    """The whole text, of models trained for so many epochs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second one only disturbs networks as small as these
    try:
        return _page(epochs)
    finally:
        torch.set_num_threads(threads)


def _page(epochs: int) -> str:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(DEFINITIONS, names)
    data = Data()
    models = [
        _line([name, _code(m.code) + (f", objective {_code(m.objective)}" if m.objective else ""),
               *_numbers(_made(m, names), m, data, names, epochs)])
        for name, m in ROWS.items()
    ]  # fmt: skip
    laws = []
    for name, law in LAWS.items():
        channels = next((n for key, n in CHANNELS.items() if key in law.code), 1)
        given = f"channels={channels}" if channels > 1 else ""
        # One-hot rows have as many channels as what the decoder gives for them.
        seen = f"encoder({given})" if law.data == "one-hot" else "encoder()"
        code = f"VAE({seen}, decoder({given}), {law.code})"
        model = _made(law._replace(code=code), names)
        numbers = _numbers(model, law, data, names, epochs)
        networks = [f"decoder({given})"] if seen == "encoder()" else [seen, f"decoder({given})"]
        of = f", and {', '.join(map(_code, networks))}" if given else ""
        laws.append(_line([name, _code(law.code) + of, DATA[law.data], *numbers]))
    return "".join(
        [
            HEADER.format(epochs=EPOCHS, definitions=DEFINITIONS),
            MODELS.format(samples=SAMPLES, test=TEST, train=len(data.labels[0])),
            _table(["model", "made by", "bound", "log p(x)"], models),
            LIKELIHOODS,
            _table(["law", "given", "x", "bound", "log p(x)"], laws),
            PAIRS,
            _pairs(names, data),
        ]
    )


class Data:
    """Training and test images in all forms, and their labels one-hot."""

    def __init__(self) -> None:
        digits = load_digits()
        x = digits.x
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) / 16
        forms = {
            "binary": (x > 0.5).float(),
            "grey": x,
            "noisy": x + noise,
            "counts": (16 * x).round(),
            "levels": (255 * x).round() / 127.5 - 1,
            "one-hot": torch.cat(
                [((4 * x).floor().clamp(max=3) == k).float() for k in range(4)], 1
            ),
        }
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        train, held = order[TEST:], order[:TEST]
        self.x = {name: (form[train], form[held]) for name, form in forms.items()}
        hot = nn.functional.one_hot(digits.y, 10).float()
        self.labels = hot[train], hot[held]


def _made(model: Model, names: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return eval(model.code, dict(names))


def _numbers(
    model: Any, how: Model, data: Data, names: dict[str, Any], epochs: int
) -> tuple[str, str]:
    """Train a model, check what it does, and return its bound and its log p(x)."""
    (x, held), context = data.x[how.data], data.labels if how.conditional else None
    objective = eval(how.objective or "VAE.elbo_and_kl", dict(names))
    batch = (x,) if context is None else (x, context[0])
    if isinstance(model, SemiSupervisedVAE):
        labels = data.labels[0].argmax(1)
        batch = (x, torch.where(torch.arange(len(x)) % 10 == 0, labels, -1))
    history = fit(model, batch, objective=objective, epochs=epochs, batch_size=128, lr=3e-3)
    _check(how, history.loss[-1] < history.loss[0], "the loss falls")
    model.eval()
    if isinstance(model, SemiSupervisedVAE):
        return _labelled_numbers(model, how, held)
    of_held = {} if context is None else {"context": context[1]}
    with torch.no_grad():
        whole = model.reconstruct(held, **of_held)
        line = model.interpolate(
            held[:5], held[5:10], 3, **({k: c[:5] for k, c in of_held.items()})
        )
        _check(how, whole.shape == held.shape and bool(whole.isfinite().all()), "reconstructions")
        _check(how, line.shape == (3, *held[:5].shape) and bool(line.isfinite().all()), "lines")
        if isinstance(model, Autoencoder):
            _check(how, bool(model(held).isfinite().all()), "finite")
            return "", ""
        drawn = model.sample(len(held), **of_held)
        _check(how, drawn.shape == held.shape and bool(drawn.isfinite().all()), "samples")
        log_likelihood, kl = model.terms(held, 50, seed=1, **of_held)
        bound = (log_likelihood - kl).mean().item()
        log_p = model.log_marginal(held, SAMPLES, seed=2, **of_held).mean().item()
    _check(how, bound < log_p, f"the bound {bound} below log p(x) {log_p}")
    return f"{bound:.1f}", f"{log_p:.1f}"


def _labelled_numbers(model: SemiSupervisedVAE, how: Model, held: Tensor) -> tuple[str, str]:
    """Check a trained model of x and its class, and return its bound and its log p(x)."""
    with torch.no_grad():
        drawn = model.sample(len(held))
        _check(how, drawn.shape == held.shape and bool(drawn.isfinite().all()), "samples")
        sums = model.classify(held).sum(1)
        _check(how, torch.allclose(sums, torch.ones_like(sums)), "probabilities of classes")
        bound = model.unlabelled_elbo(held, 50, seed=1).mean().item()
        log_p = model.log_marginal(held, SAMPLES, seed=2).mean().item()
    _check(how, bound < log_p, f"the bound {bound} below log p(x) {log_p}")
    return f"{bound:.1f}", f"{log_p:.1f}"


def _check(how: Model, right: bool, what: str) -> None:
    if not right:
        raise AssertionError(f"{how.code}: expected {what}")


# --- pairs ----------------------------------------------------------------------------------------


def _pairs(names: dict[str, Any], data: Data) -> str:
    """The table of posteriors and what may stand beside them."""
    x = data.x["binary"][0][:16]
    columns: dict[str, tuple[str, Callable[[VAE], Any]]] = {
        **{name: (given, lambda vae: vae(x)) for name, given in PRIORS.items()},
        "`free_bits`": ("free_bits=0.5", lambda vae: vae(x)),
        '`reduction="none"`': ("", lambda vae: vae.terms(x, reduction="none")[1].sum(1)),
        "`iwae`": ("", lambda vae: vae.iwae(x, 3)),
        '`estimator="dreg"`': ("", lambda vae: vae.iwae(x, 3, estimator="dreg")),
    }
    lines, reasons = [], {}
    for posterior, code in POSTERIORS.items():
        cells = []
        for column, (given, call) in columns.items():
            made = code.format(f", {given}" if given else "")
            reason = _refusal(made, call, names)
            if reason is not None:
                said = re.sub(rf"\ban? {posterior}\b", "a ...", reason)
                reasons.setdefault(said, {})[f"`{posterior}`"] = None
                cells.append("no")
            elif column in PRIORS:
                cells.append(_how(eval_with(made, names), x))
            else:
                cells.append("yes")
        lines.append(_line([f"`{posterior}`", *cells]))
    errors = [f"- {', '.join(of)}: `{said}`" for said, of in reasons.items()]
    return _table(["posterior", *columns], lines) + "\n".join(["", "Errors:", "", *errors]) + "\n"


def eval_with(code: str, names: dict[str, Any]) -> Any:
    """A model by its code, where ``with_posterior`` passes further options on."""

    def with_posterior(posterior: Any, outputs: int, **options: Any) -> VAE:
        networks = names["encoder"](outputs), names["decoder"](posterior.code_size(names["LATENT"]))
        return VAE(*networks, posterior=posterior, **options)

    return eval(code, {**names, "with_posterior": with_posterior})


def _refusal(code: str, call: Callable[[VAE], Any], names: dict[str, Any]) -> str | None:
    """Make a model and run it; the reason if it is refused."""
    try:
        vae = eval_with(code, names)
        bound: Tensor = call(vae)
    except ValueError as error:
        return str(error).split(", got")[0]
    bound.mean().backward()
    for key, parameter in vae.named_parameters():
        if parameter.grad is None or not parameter.grad.isfinite().all():
            # What is not in a bound's part, such as the decoder in the divergence, has none.
            if parameter.grad is None and key.startswith(("decoder", "prior")):
                continue
            raise AssertionError(f"{code}: gradient of {key}")
    return None


def _how(vae: VAE, x: Tensor) -> str:
    """Whether the divergence has the same value for other codes."""
    with torch.no_grad():
        same = torch.equal(vae.terms(x, seed=1)[1], vae.terms(x, seed=2)[1])
    return "exact" if same else "estimate"


def _table(head: Sequence[str], lines: Iterable[str]) -> str:
    return "\n".join([_line(head), "|---" * len(head) + "|", *lines]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(code: str) -> str:
    return f"`{code}`"


if __name__ == "__main__":
    main()
