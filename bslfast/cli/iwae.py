"""``bslfast benchmark iwae``: log likelihoods of importance-weighted autoencoders on MNIST.

The protocol of the paper's models with one layer of codes: two hidden layers of tanh on either
side, 50 codes, pixels drawn anew from the grey values each time a training image is seen, and once
for the test images. The log likelihood of these is estimated by 5000 codes for each.

Source: Burda et al., "Importance weighted autoencoders" (2016, arXiv:1509.00519), table 1.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast._progress import bar
from bslfast.cli import runner
from bslfast.predict import evaluating, seeded
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

if TYPE_CHECKING:
    from bslfast.training import History

#: What the paper reports of MNIST for one importance sample and for 50, after 3280 epochs.
PUBLISHED = {1: -86.76, 50: -84.78}
# Images whose log likelihood is estimated at a time.
_EVALUATED = 100


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this benchmark to the command line."""
    parser = names.add_parser(
        "iwae", help="log likelihoods of importance-weighted autoencoders on MNIST or digits"
    )
    add = parser.add_argument
    add("--data", choices=("mnist", "digits"), default="mnist", help="(%(default)s)")
    add(
        "--importance-samples", type=runner.positive_int, nargs="+", default=[1, 50], metavar="K",
        help="a model is trained for each K; 1 is the VAE (%(default)s)",
    )  # fmt: skip
    add("--epochs", type=runner.positive_int, default=50, help="of each training (%(default)s)")
    add("--batch-size", type=runner.positive_int, default=100, help="images (%(default)s)")
    add(
        "--lr", type=runner.positive, default=0.002,
        help="Adam's rate, which falls to 0 (%(default)s)",
    )  # fmt: skip
    add(
        "--hidden", type=runner.positive_int, nargs="+", default=[200, 200], metavar="WIDTH",
        help="of the encoder, mirrored in the decoder (%(default)s)",
    )  # fmt: skip
    add("--latent", type=runner.positive_int, default=50, help="dimensions (%(default)s)")
    add("--estimator", choices=("iwae", "dreg"), default="iwae", help="for K > 1 (%(default)s)")
    add(
        "--samples", type=runner.positive_int, default=5000,
        help="codes for each test image (%(default)s)",
    )  # fmt: skip
    add("--limit", type=runner.positive_int, metavar="ROWS", help="images of each part (all)")
    add("--seed", type=runner.seed, default=0, help="of weights, pixels, noise (%(default)s)")
    add("--threads", type=runner.positive_int, default=torch.get_num_threads(), help="of torch")
    add("--out", type=Path, default=Path("runs"), help="folder for the results (%(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoints of the same settings")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmark."""
    from bslfast.metrics import mean_and_error
    from bslfast.plots import images

    torch.set_num_threads(options.threads)
    train, test, source = _images(options)
    shape = tuple(train.shape[1:])
    name = f"iwae-{options.data}"
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    if not options.resume:
        runner.clear(folder)
    widths = "-".join(map(str, (train[0].numel(), *options.hidden, options.latent)))
    runner.say("job", f"{name}, seed {options.seed}, threads {options.threads}")
    runner.say("data", f"{len(train)} training, {len(test)} test images; from {source}")
    runner.say("model", f"VAE {widths}, tanh, Bernoulli likelihood of pixels drawn from grey")
    with seeded(options.seed, torch.device("cpu")):
        pixels = torch.bernoulli(test)
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": source, "rows": {"train": len(train), "test": len(test)}},
        "models": {},
    }
    figures = {}
    for k in options.importance_samples:
        model, history = _trained(k, train, shape, options, folder)
        started = time.perf_counter()
        found = _log_likelihoods(model, pixels, k, options)
        seconds = time.perf_counter() - started
        mean, error = mean_and_error(found)
        result = {
            "log_likelihood": mean,
            "standard_error": error,
            "elbo": _elbo(model, pixels, options),
            "published": PUBLISHED.get(k) if options.data == "mnist" else None,
            "training": runner.training_report(history),
            "estimate_seconds": seconds,
        }
        report["models"][str(k)] = result
        published = result["published"]
        runner.say(
            f"K = {k}",
            f"log likelihood {result['log_likelihood']:.2f} ± {result['standard_error']:.2f}, "
            f"ELBO {result['elbo']:.2f} nats"
            + ("" if published is None else f" (paper {published:.2f} in 3280 epochs)")
            + f"; {len(history.loss)} epochs in {history.seconds / 60:.1f} min, estimate in "
            f"{seconds / 60:.1f} min",
        )
        figures[f"samples_{k}"] = images.grid(
            model.sample(60, seed=options.seed).detach(), f"{name}: samples, K = {k}", columns=12
        )
        figures[f"learning_curves_{k}"] = images.learning_curves(
            history, f"{name}: learning curves, K = {k}"
        )
    runner.write_results(folder, report, figures)
    return 0


def objective(model: VAE, grey: Tensor, *, k: int, estimator: str) -> Tensor:
    """Return the bound of each image, whose pixels are drawn from the grey values."""
    x = torch.bernoulli(grey)
    return model.elbo(x) if k == 1 else model.iwae(x, k, estimator=estimator)


def _images(options: argparse.Namespace) -> tuple[Tensor, Tensor, str]:
    """Grey values of the training and the test images, [rows, 1, height, width], their source."""
    from bslfast.data import load_digits, load_mnist, split

    if options.data == "mnist":
        data = load_mnist("train", threshold=None)
        train, test = data.x, load_mnist("test", threshold=None).x
    else:
        data = load_digits()
        parts = split(data.x, data.y, seed=options.seed)
        train, test = torch.cat([parts.train.x, parts.validation.x]), parts.test.x
    with seeded(options.seed, torch.device("cpu")):  # a copy of MNIST may be sorted by class
        train, test = (x[torch.randperm(len(x))[: options.limit]] for x in (train, test))
    if len(test) < 2:
        raise ValueError(f"--limit: expected at least 2 images, got {options.limit}")
    return train, test, data.source


def _trained(
    k: int, train: Tensor, shape: tuple[int, ...], options: argparse.Namespace, folder: Path
) -> tuple[VAE, History]:
    from bslfast.training import fit

    # A checkpoint does not know its objective.
    checkpoint = folder / f"checkpoint_{options.estimator}_{k}.safetensors"
    hidden = tuple(options.hidden)
    with seeded(options.seed, torch.device("cpu")):
        encoder = mlp_encoder(shape, options.latent, hidden, activation="tanh")
        decoder = mlp_decoder(options.latent, shape, hidden[::-1], activation="tanh")
        # The outputs start at the mean of each pixel, as in the paper's own code.
        decoder[-2].bias.data = torch.logit(train.mean(0).flatten(), eps=0.001)
        model = VAE(encoder, decoder, latent=options.latent)
    history = fit(
        model,
        (train,),
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        schedule="cosine",
        seed=options.seed,
        objective=functools.partial(objective, k=k, estimator=options.estimator),
        checkpoint=checkpoint,
        resume=options.resume and checkpoint.is_file(),
        progress=True,
    )
    return model, history


def _log_likelihoods(model: VAE, x: Tensor, k: int, options: argparse.Namespace) -> Tensor:
    """The estimated log likelihood of each image, [rows], float64."""
    found = []
    with (
        evaluating(model),
        torch.no_grad(),
        bar(len(x), True, desc=f"log likelihood, K = {k}", unit="image") as shown,
    ):
        for i, rows in enumerate(x.split(_EVALUATED)):
            found.append(model.log_marginal(rows, options.samples, seed=options.seed + i).double())
            if shown is not None:
                shown.update(len(rows))
    return torch.cat(found)


def _elbo(model: VAE, x: Tensor, options: argparse.Namespace) -> float:
    with evaluating(model), torch.no_grad():
        elbos = [
            model.elbo(rows, 16, seed=options.seed + i)
            for i, rows in enumerate(x.split(10 * _EVALUATED))
        ]
    return torch.cat(elbos).double().mean().item()
