"""``bslfast train mnist --lecture``: the variational autoencoder of a lecture, with proper bounds.

Convolutions of 32-64-64-64 channels, two latent dimensions, pixels thresholded at one half; batches
and optimiser as there. The loss there is 1000 times the mean squared error of a pixel, plus the
divergence. Up to a constant that is the bound for a normal likelihood of variance 784 / 2000. But
pixels are 0 or 1, so the likelihood here is a Bernoulli distribution with the decoded means. Either
loss can be trained; the report has both.

Source: the notebook vae_mod of the course "Bayesian Statistical Learning" (2024,
https://github.com/jorobledo/blcourse_test), for settings, loss and time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast import functional as BF
from bslfast.cli import images, runner
from bslfast.predict import evaluating, seeded
from bslfast.vae import VAE, conv_decoder, conv_encoder

if TYPE_CHECKING:
    from bslfast.data import Examples
    from bslfast.training import History

EPOCHS = 30
LIKELIHOODS = ("bernoulli", "normal")
_BATCH_SIZE = 32
_LR = 5e-4
_LATENT = 2
_ERROR_WEIGHT = 1000.0
# The loss of the last batches there, and the time of an epoch on a V100.
_LOSSES = "49.6 to 66"
_SECONDS = 7.25
_PICTURED = 16
_MARGINAL_ROWS = 1000


def run(
    options: argparse.Namespace,
    load: Callable[[argparse.Namespace], tuple[Examples, Examples, str]],
) -> int:
    """Train the network, draw test images after each epoch, print a report, write the files."""
    from bslfast import plots

    torch.set_num_threads(options.threads)
    train, test, source = load(options)
    shape = tuple(train.x.shape[1:])
    # A folder for each loss, as a checkpoint does not know its loss.
    name = "mnist-lecture" + ("" if options.lecture == "bernoulli" else "-normal")
    with seeded(options.seed, torch.device("cpu")):
        model = VAE(conv_encoder(shape, _LATENT), conv_decoder(_LATENT, shape), latent=_LATENT)
    weights = sum(parameter.numel() for parameter in model.parameters())
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    if not options.resume:
        runner.clear(folder)
    runner.say("job", f"{name} on {options.device}, seed {options.seed}, threads {options.threads}")
    runner.say("data", f"{len(train.x)} training, {len(test.x)} test; from {source}")
    runner.say("model", f"{weights} parameters, {options.lecture} likelihood in training")

    history, strips = _train(model, train, test, options, folder)
    seconds = history.seconds / len(history.loss)
    results, codes = images.assess(model, test, options, _MARGINAL_ROWS)
    with evaluating(model), torch.no_grad(), seeded(options.seed, options.device):
        bounds = [squared_error_bound(model, x.to(options.device))[0] for x in test.x.split(256)]
    results["lecture_loss"] = -torch.cat(bounds).mean().item()
    runner.say(
        "lecture",
        f"1000 mse + KL: {results['lecture_loss']:.4g} of test images (there {_LOSSES} of the last "
        f"batches); {seconds:.3g} s an epoch (there {_SECONDS} s on a V100)",
    )
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": source, "rows": {"train": len(train.x), "test": len(test.x)}},
        "model": {"parameters": weights, "likelihood": options.lecture},
        "training": runner.training_report(history) | {"seconds_per_epoch": seconds},
        "test": results,
        "latent": codes.report(),
    }
    figures = images.pictures(model, test, codes, options, name)
    figures["epochs"] = plots.images.strips(strips, f"{name}: test images after each epoch")
    constant = "" if options.lecture == "bernoulli" else ", the bound up to a constant"
    figures["learning_curves"] = plots.images.learning_curves(
        history, f"{name}: learning curves{constant}"
    )
    runner.write_results(folder, report, figures)
    return 0


def squared_error_bound(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative of the lecture's loss, and the divergence in it, each [batch]."""
    mu, log_var = model.encode(x)
    z, kl = BF.normal_rsample_kl(mu, log_var, parametrization="log_var", reduction="row")
    error = (model.decode(z) - x).square().flatten(1).mean(dim=1)
    return -_ERROR_WEIGHT * error - kl, kl


def _train(
    model: VAE, train: Examples, test: Examples, options: argparse.Namespace, folder: Path
) -> tuple[History, dict[str, Tensor]]:
    """Train epoch by epoch; return what became of some test images, by the name of the epoch."""
    from bslfast import plots
    from bslfast.training import History, checkpoint, fit

    objective = VAE.elbo_and_kl if options.lecture == "bernoulli" else squared_error_bound
    kept = folder / "epochs.safetensors"
    shown = test.x[:_PICTURED].to(options.device)
    made: list[Tensor] = []
    history = History()
    while len(history.loss) < options.epochs:
        # Training that goes on from a checkpoint gives the same weights as one call for all epochs.
        before = history.seconds
        history = fit(
            model, (train.x,), epochs=len(history.loss) + 1, batch_size=_BATCH_SIZE, lr=_LR,
            seed=options.seed, device=options.device, objective=objective,
            checkpoint=folder / "checkpoint.safetensors",
            resume=options.resume or bool(history.loss),
        )  # fmt: skip
        epoch = len(history.loss)
        if options.resume and not made and kept.is_file():
            made = [*checkpoint.load(kept).tensors["reconstructions"]][: epoch - 1]
        with evaluating(model), torch.no_grad():
            made.append(model.reconstruct(shown).cpu())
        content = checkpoint.Checkpoint({"reconstructions": torch.stack(made)}, {}, {})
        checkpoint.save(kept, content)
        figure = plots.images.grid(made[-1], f"epoch {epoch}", columns=4)
        plots.save(figure, folder / "epochs" / f"{epoch:02d}.png")
        took = f"{history.seconds - before:.3g} s" if before or epoch == 1 else "of the checkpoint"
        runner.say(
            "epoch", f"{epoch}: loss {history.loss[-1]:.4g}, KL {history.kl[-1]:.3g}, {took}"
        )
    after = {f"epoch {i}": reconstructed for i, reconstructed in enumerate(made, 1)}
    return history, {"original": test.x[:_PICTURED], **after}
