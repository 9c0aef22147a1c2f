"""The common part of the jobs with images: a variational autoencoder, its report and pictures."""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import functional as BF
from bslfast.cli import runner
from bslfast.predict import evaluating, seeded
from bslfast.vae import VAE, Autoencoder, conv_decoder, conv_encoder, mlp_decoder, mlp_encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Examples, Split

# Codes drawn for each test image to estimate the reported ELBO.
_ELBO_SAMPLES = 16
#: Test images evaluated at a time.
EVALUATED = 256
DIGITS = tuple(str(k) for k in range(10))
# Latent dimensions whose divergence is printed.
_SHOWN = 8


class Job(NamedTuple):
    """The differences between the jobs."""

    name: str
    load: Callable[[argparse.Namespace], tuple[Split, str]]
    #: The largest number of test images whose likelihood is estimated by importance sampling.
    marginal_rows: int
    #: Whether the network is trained in plain torch as well; else only single steps are compared.
    train_reference: bool
    timed_runs: int
    timed_steps: int
    #: Names of the labels.
    labels: Sequence[str] = DIGITS


def add_options(
    parser: argparse.ArgumentParser,
    *,
    epochs: int | None,
    batch_size: int | None,
    lr: float,
    patience: int | None,
    samples: int,
    network: str,
    hidden: tuple[int, ...] | None,
    threads: int,
    by_rows: bool = False,
) -> None:
    """Add the options of a job with images, with the job's own defaults.

    ``by_rows`` is that of :func:`runner.add_training_options`; ``hidden`` may be None then.
    """
    runner.add_training_options(
        parser, epochs=epochs, batch_size=batch_size, lr=lr, patience=patience, threads=threads,
        by_rows=by_rows,
    )  # fmt: skip
    widths = "by the kind of data" if hidden is None else "%(default)s"
    add = parser.add_argument
    add(
        "--network", choices=("mlp", "conv"), default=network,
        help="dense layers, or 32-64-64-64 convolutions with BatchNorm (%(default)s)",
    )  # fmt: skip
    add(
        "--hidden", type=runner.positive_int, nargs="+", metavar="WIDTH",
        default=None if hidden is None else list(hidden),
        help=f"widths of the dense encoder's hidden layers, mirrored in the decoder ({widths})",
    )  # fmt: skip
    add("--latent", type=runner.positive_int, default=2, help="latent dimensions (%(default)s)")
    add("--beta", type=runner.not_negative, default=1.0, help="weight of the KL (%(default)s)")
    add(
        "--samples", type=runner.positive_int, default=samples,
        help="codes for each image behind the importance-sampled log likelihood (%(default)s)",
    )  # fmt: skip


def run(options: argparse.Namespace, job: Job) -> int:
    """Train a VAE on images, report on held-out ones, time it, write the files."""
    from bslfast.plots import images

    torch.set_num_threads(options.threads)
    parts, source = job.load(options)
    train, validation, test = parts
    shape = tuple(train.x.shape[1:])
    with seeded(options.seed, torch.device("cpu")):
        model = VAE(*_networks(options, shape), beta=options.beta, latent=options.latent)
    folder = options.out / job.name
    weights = sum(parameter.numel() for parameter in model.parameters())
    layers = _layers(options, shape)
    runner.say(
        "job", f"{job.name} on {options.device}, seed {options.seed}, threads {options.threads}"
    )
    runner.say(
        "data",
        f"{sum(map(len, (p.x for p in parts)))} images of {shape[-2]} x {shape[-1]} pixels: "
        f"{len(train.x)} training, {len(validation.x)} validation, {len(test.x)} test; "
        f"from {source}",
    )
    runner.say("model", f"{layers}, {weights} parameters, Bernoulli likelihood")

    checkpoint = folder / "checkpoint.safetensors"
    setting: dict[str, Any] = {
        "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed,
        "objective": VAE.elbo_and_kl,
    }  # fmt: skip
    initial = copy.deepcopy(model)
    # Only some of the examples, as a whole epoch of a large network takes a minute.
    some = (train.x[: options.batch_size * job.timed_steps],)
    runner.warm_up(initial, some, setting, options.device)
    history = runner.train_model(model, (train.x,), (validation.x,), options, checkpoint, setting)
    results, codes = assess(model, test, options, job.marginal_rows)
    report: dict[str, Any] = {
        "job": job.name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {
            "source": source, "shape": shape,
            "rows": {"train": len(train.x), "validation": len(validation.x), "test": len(test.x)},
        },
        "model": {"parameters": weights, "layers": layers, "likelihood": "bernoulli"},
        "training": runner.training_report(history),
        "test": results,
        "latent": codes.report(),
    }  # fmt: skip
    if not options.no_reference:
        report["reference"] = _reference(options, job, initial, history, parts, some, setting)

    figures = pictures(model, test, codes, options, job.name, job.labels)
    figures["learning_curves"] = images.learning_curves(history, f"{job.name}: learning curves")
    runner.write_results(folder, report, figures)
    return 0


class Codes(NamedTuple):
    """The posteriors of images, each [n, latent] on the CPU."""

    mu: Tensor
    log_var: Tensor

    def report(self) -> dict[str, Any]:
        """Return the report's entries about latent dimensions."""
        from bslfast import metrics

        kl = BF.normal_kl(*self, parametrization="log_var", reduction="none").double().mean(0)
        return {"kl_per_dimension": kl.tolist(), "active_units": metrics.active_units(self.mu)}


def assess(
    model: VAE, test: Examples, options: argparse.Namespace, rows: int
) -> tuple[dict[str, float], Codes]:
    """Return and print the metrics of held-out images, and return their posteriors.

    The log likelihood is an estimate by ``options.samples`` codes for each of the first ``rows``
    images, with its standard error. Grey values count as the probabilities of black and white
    pixels: bits are those of such a pixel, by the log likelihood.
    """
    from bslfast import metrics

    rows = min(rows, len(test.x))
    with evaluating(model), torch.no_grad():
        results = evaluate(model, test, options)
        each = torch.cat([
            model.log_marginal(x.to(options.device), options.samples, seed=options.seed + i).cpu()
            for i, x in enumerate(test.x[:rows].split(EVALUATED))
        ])  # fmt: skip
        parts = [model.encode(x.to(options.device)) for x in test.x.split(EVALUATED)]
    codes = Codes(*(torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)))
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    log_likelihood, error = metrics.mean_and_error(each)
    bits = metrics.bits_per_dim(each, test.x[0].numel())
    results |= {
        "log_likelihood": log_likelihood,
        "log_likelihood_standard_error": error,
        "log_likelihood_images": rows,
        "bits_per_dim": bits,
    }
    runner.say(
        "test",
        f"log_likelihood {log_likelihood:.4g} ± {error:.2g} ({rows} images, {options.samples} "
        f"samples), bits_per_dim {bits:.4g}",
    )
    latent = codes.report()
    kl = sorted(latent["kl_per_dimension"], reverse=True)
    runner.say(
        "codes",
        f"{latent['active_units']} of {len(kl)} dimensions active; KL "
        + ", ".join(f"{value:.2f}" for value in kl[:_SHOWN])
        + (", ..." if len(kl) > _SHOWN else ""),
    )
    return results, codes


def evaluate(model: VAE, test: Examples, options: argparse.Namespace) -> dict[str, float]:
    """Return the ELBO (with beta 1), its two parts and the reconstruction error, per image.

    ``reconstruction_mse`` is the mean squared error of a pixel, at the mean of each code.
    """
    totals = torch.zeros(3, dtype=torch.float64)
    with seeded(options.seed, options.device):
        for x in test.x.split(EVALUATED):
            x = x.to(options.device)
            terms = [model.terms(x) for _ in range(_ELBO_SAMPLES)]
            error = (model.reconstruct(x) - x).square().flatten(1).mean(1)
            sums = (
                torch.stack([log_likelihood for log_likelihood, _ in terms]).mean(0).sum(),
                terms[0][1].sum(),
                error.sum(),
            )
            totals += torch.stack(sums).double().cpu()
    log_likelihood, kl, mse = (totals / len(test.x)).tolist()
    return {
        "elbo": log_likelihood - kl,
        "expected_log_likelihood": log_likelihood,
        "kl": kl,
        "reconstruction_mse": mse,
    }


def pictures(
    model: VAE,
    test: Examples,
    codes: Codes,
    options: argparse.Namespace,
    name: str,
    labels: Sequence[str] = DIGITS,
) -> dict[str, Figure]:
    """Return the pictures of a trained model, by file name."""
    from bslfast.plots import images

    shown = test.x[:24].to(options.device)
    pairs = min(8, len(shown) // 2)
    with evaluating(model), torch.no_grad():
        reconstructed, samples = model.reconstruct(shown), model.sample(60, seed=options.seed)
    figures = {
        "reconstructions": images.reconstructions(
            shown, reconstructed, f"{name}: held-out images and their reconstructions"
        ),
        "samples": images.grid(
            samples, f"{name}: samples (pixel probabilities) from the prior", columns=12
        ),
        "interpolation": images.interpolation(
            model, shown[:pairs], shown[pairs : 2 * pairs],
            f"{name}: between the codes of two held-out images",
        ),
        "latent_space": images.latent_space(
            codes.mu, test.y, labels, f"{name}: means of the codes of held-out images",
        ),
        "kl_per_dimension": images.kl_per_dimension(
            *codes, f"{name}: KL divergence of each latent dimension"
        ),
    }  # fmt: skip
    if codes.mu.shape[1] >= 2:
        first, second = codes.mu.var(0).topk(2).indices.sort().values.tolist()
        figures["latent_grid"] = images.latent_grid(
            model, f"{name}: decoded latent grid", dims=(first, second)
        )
    return figures


def _reference(
    options: argparse.Namespace,
    job: Job,
    initial: VAE,
    history: Any,
    parts: Split,
    some: tuple[Tensor],
    setting: dict[str, Any],
) -> dict[str, Any]:
    """Train and time the same network in plain torch and return the results."""
    from bslfast.cli.plain import plain
    from bslfast.training import fit

    found: dict[str, Any] = {}
    if job.train_reference:
        twin = plain(initial)
        assert isinstance(twin, VAE)
        runner.warm_up(twin, some, setting, options.device)
        print("the same training in plain torch (torch.randn, exp, ...):", flush=True)
        other = fit(
            twin, (parts.train.x,), (parts.validation.x,), epochs=len(history.loss), **setting,
            device=options.device, progress=True,
        )  # fmt: skip
        with evaluating(twin), torch.no_grad():
            results = evaluate(twin, parts.test, options)
        found = runner.compare_times(history, other, results)
    with seeded(options.seed, torch.device("cpu")):
        shape = tuple(parts.train.x.shape[1:])
        autoencoder = Autoencoder(*_networks(options, shape, deterministic=True))
    networks = {
        "bslfast": initial,
        "plain torch": plain(initial),
        "no uncertainty (autoencoder)": autoencoder,
    }
    # All train by fit, as its users do: there is a program for the first, the others go op by op.
    return found | runner.compare_steps(
        networks, some, setting, options.device, runs=job.timed_runs, steps=job.timed_steps,
        own={"no uncertainty (autoencoder)": {"objective": Autoencoder.log_likelihood}},
    )  # fmt: skip


def _networks(
    options: argparse.Namespace, shape: tuple[int, ...], deterministic: bool = False
) -> tuple[nn.Module, nn.Module]:
    if options.network == "conv":
        return (
            conv_encoder(shape, options.latent, deterministic=deterministic),
            conv_decoder(options.latent, shape),
        )
    hidden = tuple(options.hidden)
    return (
        mlp_encoder(shape, options.latent, hidden, deterministic=deterministic),
        mlp_decoder(options.latent, shape, hidden[::-1]),
    )


def _layers(options: argparse.Namespace, shape: tuple[int, ...]) -> str:
    if options.network == "conv":
        return f"VAE with convolutions 32-64-64-64 and {options.latent} latent dimensions"
    widths = [math.prod(shape), *options.hidden, options.latent, *options.hidden[::-1]]
    return f"VAE {'-'.join(map(str, widths))}-{math.prod(shape)}"
