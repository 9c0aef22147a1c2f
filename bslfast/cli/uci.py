"""``bslfast benchmark uci``: the UCI regression protocol, for any table with its own splits.

For each split networks with one hidden layer are trained on the training rows and scored on the
test rows. Their hyperparameters are chosen for each split anew, by cross-validation inside the
training rows: no test row is ever seen by what is chosen. The prediction is a mixture over a few
networks of the choices that together predict held-out rows best, each with a diagonal normal
posterior.

Source: Hernandez-Lobato and Adams, "Probabilistic backpropagation for scalable learning of Bayesian
neural networks" (2015, arXiv:1502.05336), for the protocol; Wenzel et al., "Hyperparameter
ensembles for robustness and uncertainty quantification" (2020, arXiv:2006.13570), for mixtures over
choices.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import likelihoods
from bslfast._files import write_json
from bslfast._progress import bar
from bslfast.cli import runner
from bslfast.predict import Prediction, predict, seeded

if TYPE_CHECKING:
    from bslfast.bnn import BayesianMLP
    from bslfast.data import Splits, Standardizer

#: The likelihoods to choose from.
LIKELIHOODS = ("normal", "heteroscedastic normal", "heteroscedastic t")
_LR = 0.01
_INIT_SCALE = 0.05
# Steps of one training of a small table, and the number of rows from which they grow with its root.
_STEPS = 5000
_LARGE = 5000
# About so many steps an epoch, as far as batches have a sensible size.
_BATCHES = 20
_BATCH_SIZES = (16, 256)
# Each validation part of a table's rows; scores of small tables vary most and have most of them.
_HELD_OUT = 0.2
_VALIDATION = 100  # samples of the weights
_FOLDS = ((1000, 3), (5000, 2))
_LEAST = 10  # training rows
_DF = 4.0  # of the t distribution: heavy tails with a variance
# For values inside the network when predicting.
_MAX_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Choice:
    """The hyperparameters that validation chooses.

    Attributes:
        likelihood: one of ``LIKELIHOODS``.
        beta: weight of the KL: below 1 a tempered posterior.
        prior_scale: of biases, and of weights times the root of the number of a layer's inputs.
        length: factor of the number of epochs.
    """

    likelihood: str = LIKELIHOODS[1]
    beta: float = 0.3
    prior_scale: float = 1.0
    length: float = 1.0


# The search tries all of these, and then changes of the best of them.
_GRID = tuple(Choice(name, beta) for name in LIKELIHOODS for beta in (0.1, 0.3, 1.0))
_CHANGES: tuple[dict[str, Any], ...] = ({"prior_scale": 0.5}, {"prior_scale": 2.0}, {"length": 3})


class Part(NamedTuple):
    """Standardised rows, float32."""

    x: Tensor
    y: Tensor


class HeldOut(NamedTuple):
    """What a network says about held-out rows, in the unit of the targets.

    Attributes:
        log_density: of each row, [rows].
        error: of the predictive mean, [rows, targets].
    """

    log_density: Tensor
    error: Tensor


class Result(NamedTuple):
    """What came out for one split, in the unit of the targets."""

    rmse: float
    log_likelihood: float
    coverage_95: float
    choices: tuple[Choice, ...]
    seconds: float


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this benchmark to the command line."""
    parser = names.add_parser(
        "uci", help="regression of a table with its own splits, as the UCI benchmark has it"
    )
    add = parser.add_argument
    add(
        "--data", type=Path, required=True, metavar="DIR",
        help="folder with data.txt, index_features.txt, index_target.txt, index_train_K.txt, ...",
    )  # fmt: skip
    add("--splits", type=runner.positive_int, metavar="N", help="only the first N (all)")
    add("--hidden", type=runner.positive_int, help="hidden units (those of n_hidden.txt, or 50)")
    add(
        "--members", type=runner.positive_int, default=6,
        help="networks that the prediction is a mixture of (%(default)s)",
    )  # fmt: skip
    add("--epochs", type=runner.positive_int, help="of one training (by the number of rows)")
    add("--samples", type=runner.positive_int, default=600, help="of the weights (%(default)s)")
    add("--seed", type=runner.seed, default=0, help="of weights, noise, folds (%(default)s)")
    add("--threads", type=runner.positive_int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, default=Path("runs"), help="folder for the results (%(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmark."""
    from bslfast import plots
    from bslfast.data import read_splits

    torch.set_num_threads(options.threads)
    splits = read_splits(options.data)
    data = splits.data
    if options.splits is not None and options.splits > len(splits.parts):
        raise ValueError(
            f"--splits: expected at most {len(splits.parts)}, as {data.source} has, got "
            f"{options.splits}"
        )
    parts = splits.parts[: options.splits]
    for k, (train, _) in enumerate(parts):
        if len(train) < _LEAST:
            raise ValueError(
                f"{data.source}: expected at least {_LEAST} training rows in each split, got "
                f"{len(train)} in split {k}"
            )
    hidden = options.hidden or splits.hidden or 50
    resolved = options.data.resolve()
    stem = resolved.parent.name if resolved.name == "data" else resolved.name
    name = f"uci-{stem.removeprefix('uci-')}"
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    runner.say("job", f"{name}, seed {options.seed}, threads {options.threads}")
    runner.say(
        "data",
        f"{len(data.x)} rows, {data.x.shape[1]} features, {data.y.shape[1]} targets, {len(parts)} "
        f"of {len(splits.parts)} splits; from {data.source}",
    )
    model = (
        f"Bayesian network {data.x.shape[1]}-{hidden}-{data.y.shape[1]}, relu, "
        f"mixture of {options.members}"
    )
    runner.say("model", model)
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": data.source, "rows": len(data.x), "features": data.x.shape[1]},
        "model": {"layers": model},
    }
    results: list[Result] = []
    trainings = sum(_trainings(len(train), options.members) for train, _ in parts)
    started = time.perf_counter()
    runner.clear(folder)
    with bar(trainings, True, desc=name, unit="training") as shown:
        for k, rows in enumerate(parts):
            result, prediction, truth = split_result(splits, rows, k, hidden, options, shown.update)
            results.append(result)
            report |= summary(results, time.perf_counter() - started)
            # After each split, so that a run that is cut short leaves what it has found.
            write_json(folder / "metrics.json", report)
            if k == 0:
                first = prediction, truth
            shown.set_postfix(rmse=f"{report['test']['rmse']:.4g}", refresh=False)
    print(table(results))
    test = report["test"]
    runner.say(
        "test",
        ", ".join(
            f"{key} {test[key]:.4g}" + ("" if error is None else f" ± {error:.2g}")
            for key, error in zip(
                ("rmse", "log_likelihood", "coverage_95"),
                (test["rmse_standard_error"], test["log_likelihood_standard_error"], None),
                strict=True,
            )
        ),
    )
    runner.say("time", f"{report['training']['seconds']:.1f} s for {trainings} trainings")
    figures = {
        "splits": plots.splits(
            {
                "test RMSE": [result.rmse for result in results],
                "test log likelihood, nats": [result.log_likelihood for result in results],
            },
            f"{name}: {len(results)} splits",
        ),
        "calibration": plots.calibration(*first, f"{name}: calibration on the first test part"),
    }
    if data.y.shape[1] == 1:
        figures["predictions"] = plots.predictions(
            *first, title=f"{name}: predictions of the first test part"
        )
    runner.write_results(folder, report, figures)
    return 0


def split_result(
    splits: Splits,
    rows: tuple[Tensor, Tensor],
    k: int,
    hidden: int,
    options: argparse.Namespace,
    done: Callable[[], object],
) -> tuple[Result, Prediction, Tensor]:
    """Choose hyperparameters, train with them on all training rows, score on the test rows.

    Args:
        splits: the data.
        rows: training and test rows.
        k: number of the split.
        hidden: number of hidden units.
        options: of the command line.
        done: called after each training.

    Returns:
        The result; the prediction of the test rows and their targets, in the unit of the targets.
    """
    from bslfast import metrics
    from bslfast.data import Standardizer

    started = time.perf_counter()
    (train_x, test_x), (train_y, test_y) = (
        [values[part] for part in rows] for values in (splits.data.x, splits.data.y)
    )
    seed = options.seed + k

    def trained(choice: Choice, train: Part, start: int) -> BayesianMLP | None:
        own = seed + start * len(splits.parts)
        try:
            return train_network(train, choice, hidden, own, options.epochs)
        except FloatingPointError:  # it diverges
            return None
        finally:
            done()

    def score(choice: Choice) -> HeldOut | None:
        """What a network of this choice says about the rows that were held out."""
        found = []
        for train, held_out in folds(len(train_x), seed):
            part, other, targets = _standardized(
                (train_x[train], train_y[train]), (train_x[held_out], train_y[held_out])
            )
            model = trained(choice, part, 0)
            if model is None:
                return None
            prediction = predict(model, other.x, _VALIDATION, seed=seed, max_bytes=_MAX_BYTES)
            density = prediction.log_prob(other.y).double() - _log(targets)
            found.append((density, (prediction.mean - other.y).double() * targets.scale))
        return HeldOut(*map(torch.cat, zip(*found, strict=True)))

    choices = search(score, options.members)
    part, test, targets = _standardized((train_x, train_y), (test_x, test_y))
    all_members = [trained(choice, part, start) for start, choice in enumerate(choices)]
    members = [member for member in all_members if member is not None]
    if not members:
        raise FloatingPointError(f"uci: no network trained on all training rows of split {k}")
    model = Mixture(members)
    prediction = predict(model, test.x, options.samples, seed=seed, max_bytes=_MAX_BYTES)
    # The prediction is of standardised targets: float32 may not hold the digits of others.
    result = Result(
        metrics.rmse(prediction.mean.double() * targets.scale, test.y.double() * targets.scale),
        metrics.mean_log_likelihood(prediction, test.y) - _log(targets),
        metrics.coverage(prediction, test.y),
        choices,
        time.perf_counter() - started,
    )
    scaler = Standardizer(targets.mean.float(), targets.scale.float())
    return result, in_unit(prediction, scaler), test_y.float()


def in_unit(prediction: Prediction, scaler: Standardizer) -> Prediction:
    """Return the prediction of standardised targets in the unit of the targets."""
    return dataclasses.replace(
        prediction,
        mean=scaler.inverse(prediction.mean),
        aleatoric=prediction.aleatoric * scaler.scale,
        epistemic=prediction.epistemic * scaler.scale,
        target_scaler=scaler,
    )


def search(score: Callable[[Choice], HeldOut | None], members: int) -> tuple[Choice, ...]:
    """Return the choices, some maybe more than once, whose mixture predicts held-out rows best.

    The mixture grows by the choice that adds most to :func:`merit`.

    Args:
        score: trains and predicts held-out rows; None for a choice that fails.
        members: how many choices to return.

    Raises:
        FloatingPointError: if no choice has finite scores.

    Source: Caruana et al., "Ensemble selection from libraries of models" (2004,
    doi:10.1145/1015330.1015432).
    """
    found: dict[Choice, HeldOut] = {}

    def ask(choice: Choice) -> None:
        held_out = score(choice)
        if held_out is not None and all(bool(part.isfinite().all()) for part in held_out):
            found[choice] = held_out

    for choice in _GRID:
        ask(choice)
    if not found:
        raise FloatingPointError("uci: every choice of hyperparameters led to NaN or infinity")
    best = max(found, key=lambda choice: merit([found[choice]]))
    for change in _CHANGES:
        ask(dataclasses.replace(best, **change))
    chosen: list[Choice] = []
    for _ in range(members):
        so_far = [found[choice] for choice in chosen]

        def mixed(choice: Choice, others: Sequence[HeldOut] = so_far) -> float:
            return merit([*others, found[choice]])

        chosen.append(max(found, key=mixed))
    return tuple(chosen)


def merit(members: Sequence[HeldOut]) -> float:
    r"""Return how well a mixture predicts held-out rows, as a distribution and by its mean.

    .. math:: \frac{1}{n} \sum_i \log p(y_i) - \frac12 \sum_t \log \frac{1}{n} \sum_i e_{it}^2

    The second part is the log density, but for a constant, of normal noise of the best constant
    width around the mean. The first alone would prefer distributions that are narrow around common
    values, as grades have, at the cost of the mean.
    """
    densities = torch.stack([member.log_density for member in members])
    error = torch.stack([member.error for member in members]).mean(0)
    squares = error.square().mean(0).clamp_min(torch.finfo(torch.float64).tiny)
    density = densities.logsumexp(0).mean().item() - math.log(len(members))
    return density - 0.5 * squares.log().sum().item()


def train_network(
    train: Part, choice: Choice, hidden: int, seed: int, epochs: int | None
) -> BayesianMLP:
    """Return a network that has been trained.

    Args:
        train: standardised rows.
        choice: the hyperparameters.
        hidden: number of hidden units.
        seed: of the weights, the order of rows and the noise.
        epochs: for ``length`` 1; by default by the number of rows.
    """
    from bslfast.bnn import BayesianMLP
    from bslfast.training import fit

    rows, targets = len(train.x), train.y.shape[1]
    batch_size = min(_BATCH_SIZES[1], max(_BATCH_SIZES[0], 2 ** round(math.log2(rows / _BATCHES))))
    if epochs is None:
        steps = _STEPS * max(1.0, rows / _LARGE) ** 0.5
        epochs = math.ceil(steps / math.ceil(rows / batch_size))
    epochs = max(1, round(epochs * choice.length))
    with seeded(seed, torch.device("cpu")):
        model = BayesianMLP(
            train.x.shape[1], (hidden,), targets, init_scale=_INIT_SCALE,
            likelihood=_likelihood(choice.likelihood, targets),
        )  # fmt: skip
    runner.scale_priors(model, choice.prior_scale)
    fit(
        model, train, epochs=epochs, batch_size=batch_size, lr=_LR, schedule="cosine",
        beta=choice.beta, seed=seed,
    )  # fmt: skip
    return model


def _likelihood(name: str, targets: int) -> likelihoods.Likelihood:
    if name == LIKELIHOODS[0]:
        return likelihoods.Normal(targets)
    if name == LIKELIHOODS[1]:
        return likelihoods.HeteroscedasticNormal(targets)
    return likelihoods.StudentT(targets, df=_DF, scale="outputs")


class Mixture(nn.Module):
    """Networks of which each draw of the weights takes one: they take turns.

    Their outputs are locs and log scales of normal distributions, whatever their likelihoods. A t
    distribution is the mixture over gamma numbers g, of shape and rate df / 2, of normals with its
    scale / sqrt(g). Each draw has one g for all targets; those of a member stand for equal chances.
    """

    def __init__(self, members: Sequence[BayesianMLP]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.likelihood = likelihoods.HeteroscedasticNormal(
            members[0].likelihood.targets, parametrization="log_scale"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for one draw of the first member's weights."""
        return self.sample_outputs(x, 1)[0]

    def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
        """Outputs [n_samples, batch, outputs], as many from each member as from any other."""
        drawn = []
        networks: Any = self.members
        for k, network in enumerate(networks):
            number = len(range(k, n_samples, len(networks)))
            if not number:
                break
            law = network.likelihood
            loc, scale = law.loc_scale(network.sample_outputs(x, number))
            if isinstance(law, likelihoods.StudentT):
                parts = _gamma_quantiles(law.init_df / 2, number).to(scale)
                scale = scale / parts.sqrt().view(-1, 1, 1)
            drawn.append(torch.cat([loc, scale.log().expand_as(loc)], dim=-1))
        return torch.cat(drawn)


def _gamma_quantiles(a: float, number: int) -> Tensor:
    """Quantiles of the gamma distribution with shape and rate ``a``: middles of equal parts."""
    chance = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    low, high = torch.zeros_like(chance), torch.full_like(chance, 1e3)
    shape = torch.full_like(chance, a)
    for _ in range(80):  # bisection
        middle = 0.5 * (low + high)
        below = torch.special.gammainc(shape, a * middle) < chance
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def _standardized(
    train: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]
) -> tuple[Part, Part, Standardizer]:
    """Both parts by the statistics of the first, float32, and those of its targets, float64."""
    from bslfast.data import Standardizer

    inputs, targets = (Standardizer.fit(values) for values in train)
    first, second = (
        Part(inputs.transform(x).float(), targets.transform(y).float()) for x, y in (train, other)
    )
    return first, second, targets


def _log(targets: Standardizer) -> float:
    """What a log density loses when standardised targets get their unit back."""
    return targets.scale.log().sum().item()


def folds(rows: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Return (training, validation) rows of each fold, from a permutation of them."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    size = max(1, round(_HELD_OUT * rows))
    for fold in range(_number_of_folds(rows)):
        start, end = fold * size, (fold + 1) * size
        yield torch.cat([order[:start], order[end:]]), order[start:end]


def _number_of_folds(rows: int) -> int:
    return next((number for below, number in _FOLDS if rows < below), 1)


def _trainings(rows: int, members: int) -> int:
    """How many networks are trained for a split."""
    return (len(_GRID) + len(_CHANGES)) * _number_of_folds(rows) + members


def summary(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Return the entries of the report that are about results."""
    test: dict[str, Any] = {}
    for name in ("rmse", "log_likelihood", "coverage_95"):
        values = torch.tensor([getattr(r, name) for r in results], dtype=torch.float64)
        test[name] = values.mean().item()
        if name != "coverage_95":
            error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
            test[f"{name}_standard_error"] = error
    each = [
        {**result._asdict(), "choices": [dataclasses.asdict(choice) for choice in result.choices]}
        for result in results
    ]
    return {"training": {"seconds": seconds}, "test": test, "splits": each}


def table(results: Sequence[Result]) -> str:
    """Return one line a split: its scores, and the likelihoods and betas that were chosen."""
    header = ("split", "RMSE", "log likelihood", "in 95%", "seconds", "members")
    lines = [
        (
            str(k), f"{r.rmse:.4g}", f"{r.log_likelihood:.4f}", f"{r.coverage_95:.3f}",
            f"{r.seconds:.1f}",
            ", ".join(
                f"{r.choices.count(choice)} {choice.likelihood} {choice.beta:g}"
                + (f" prior {choice.prior_scale:g}" if choice.prior_scale != 1 else "")
                + (f" length {choice.length:g}" if choice.length != 1 else "")
                for choice in dict.fromkeys(r.choices)
            ),
        )
        for k, r in enumerate(results)
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *lines)
    )
