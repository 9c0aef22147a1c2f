"""``bslfast train mnist-labels``: classes of MNIST's digits from few labels, by autoencoders.

M2 is a conditional VAE of the images with a classifier. M1+M2 is the same on the codes of a VAE of
all training images (M1), whose posterior gives a new sample each time an image is seen. A few
training images have labels. Labels of validation images show the errors by epoch. The epoch that is
kept is the one with the best bound of log p(x), which needs none. The default settings have been
chosen by errors of validation images, never by those of test images.

Source: Kingma et al., "Semi-supervised learning with deep generative models" (2014,
arXiv:1406.5298), table 1 for the published errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bslfast import functional as BF
from bslfast.cli import runner
from bslfast.cli.jobs import digits, mnist
from bslfast.predict import evaluating, seeded
from bslfast.vae import VAE, SemiSupervisedVAE, mlp_decoder, mlp_encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Examples, Split
    from bslfast.training import History

#: What the paper reports of 100 labels.
PUBLISHED = {"m2": 0.1197, "m1+m2": 0.0333}
_OF_PAPER = ("mnist", 100)
# Model and epochs of M2, by the error of validation images: on digits M1+M2 has 27 %, M2 10 %.
_DEFAULTS = {"mnist": ("m1+m2", 25), "digits": ("m2", 40)}
_CLASSES = 10
_M1_LATENT = 50
_M1_HIDDEN = (600, 600)
# The least and the most: a hundredth of the images between them.
_M1_BATCH = (20, 200)
_M1_LR = 0.001
_BASELINE_EPOCHS = 200
_BASELINE_BATCH = 20
_PARTS = ("train", "validation", "test")
# Images evaluated at a time.
_EVALUATED = 1000
_STYLES = 10


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser(
        "mnist-labels", help="classes of digits from few labels, by semi-supervised autoencoders"
    )
    add = parser.add_argument
    add("--data", choices=("mnist", "digits"), default="mnist", help="(%(default)s)")
    add("--model", choices=tuple(PUBLISHED), help="(m1+m2 for mnist, m2 for digits)")
    add(
        "--labels", type=runner.positive_int, default=100,
        help="known, as many of each class (%(default)s)",
    )  # fmt: skip
    add("--epochs", type=runner.positive_int, help="of M2 (25 for mnist, 40 for digits)")
    add("--m1-epochs", type=runner.positive_int, default=30, help="of M1 (%(default)s)")
    add("--batch-size", type=runner.positive_int, default=100, help="examples (%(default)s)")
    add(
        "--lr", type=runner.positive, default=0.003,
        help="Adam's rate, which falls to 0 (%(default)s)",
    )  # fmt: skip
    add(
        "--alpha", type=runner.not_negative, default=0.3,
        help="weight of the classifier's own log likelihood (%(default)s)",
    )  # fmt: skip
    add(
        "--share", type=_share, default=0.2,
        help="part of the batches that labelled images, repeated, have on average (%(default)s)",
    )  # fmt: skip
    add(
        "--hidden", type=runner.positive_int, nargs="+", default=[400], metavar="WIDTH",
        help="of each of M2's networks (%(default)s)",
    )  # fmt: skip
    add("--latent", type=runner.positive_int, default=5, help="dimensions of M2 (%(default)s)")
    mnist.add_limit(parser)
    add("--seed", type=runner.seed, default=0, help="of labels, weights, noise (%(default)s)")
    add("--threads", type=runner.positive_int, default=torch.get_num_threads(), help="of torch")
    add("--out", type=Path, default=Path("runs"), help="folder for the results (%(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    torch.set_num_threads(options.threads)
    model_name, epochs = _DEFAULTS[options.data]
    options.model = options.model or model_name
    options.epochs = options.epochs or epochs
    parts, source = (mnist if options.data == "mnist" else digits).load(options)
    name = f"{options.data}-labels-{options.model}"
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    chosen = _balanced(parts.train.y, options)
    labelled = parts.train.x[chosen], parts.train.y[chosen]
    rows = {"train": len(parts.train.x), "labelled": len(chosen),
            "validation": len(parts.validation.x), "test": len(parts.test.x)}  # fmt: skip
    runner.say("job", f"{name}, seed {options.seed}, threads {options.threads}")
    runner.say("data", ", ".join(f"{n} {part}" for part, n in rows.items()) + f"; from {source}")

    m1, m1_history = None, None
    if options.model == "m1+m2":
        m1, m1_history = _trained_m1(parts.train.x, options)
        runner.say(
            "M1",
            f"{len(m1_history.loss)} epochs in {m1_history.seconds / 60:.1f} min, -ELBO of "
            f"training {m1_history.loss[-1]:.2f} nats",
        )
    features = {key: _features(m1, part.x) for key, part in zip(_PARTS, parts, strict=True)}
    model, history, errors = _trained(features, parts, chosen, options)
    runner.say("M2", f"{len(history.loss)} epochs in {history.seconds / 60:.1f} min")
    results = _assess(model, m1, parts.test, options)
    results |= _baselines(model, m1, labelled, parts.test, options)
    published = PUBLISHED[options.model] if (options.data, options.labels) == _OF_PAPER else None
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    if published is not None:
        runner.say("paper", f"error {published:.4g}")
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": source, "rows": rows},
        "model": {"layers": str(model)},
        "training": runner.training_report(history),
        "test": results,
        "published_error": published,
        "validation_error": errors,
    }
    if m1_history is not None:
        report["training_m1"] = runner.training_report(m1_history)
    runner.write_results(folder, report, _pictures(model, m1, parts.test, history, report))
    return 0


class Objective:
    """What ``fit`` maximises for a batch of features and labels, and the errors that it sees.

    Features are images, or mu and log_var of codes, of which samples are drawn. Validation is
    scored by the bound without labels; ``wrong`` has the number of wrong classes in each call.
    """

    def __init__(self) -> None:
        self.wrong: list[int] = []

    def __call__(self, model: SemiSupervisedVAE, *batch: Tensor) -> Tensor:
        """Return the objective of each example, [batch]."""
        *features, y = batch
        x = _sampled(features)
        if model.training:
            return model.objective(x, y)
        self.wrong.append(int((model.classify(features[0]).argmax(dim=1) != y).sum()))
        return model.unlabelled_elbo(x)


def _sampled(features: list[Tensor]) -> Tensor:
    if len(features) == 1:
        return features[0]
    mu, log_var = features
    return BF.normal_rsample(mu, log_var, parametrization="log_var")


def _share(text: str) -> float:
    return runner.number(text, float, "a number above 0 and below 1", lambda value: 0 < value < 1)


def _balanced(y: Tensor, options: argparse.Namespace) -> Tensor:
    """Indices of the images whose labels are known: as many of each class."""
    each, rest = divmod(options.labels, _CLASSES)
    if rest:
        raise ValueError(f"--labels: expected a multiple of {_CLASSES}, got {options.labels}")
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(y), generator=generator)
    found = [order[y[order] == label][:each] for label in range(_CLASSES)]
    for label, some in enumerate(found):
        if len(some) < each:
            raise ValueError(
                f"--labels: expected at most {len(some)} of each class, as there are no more "
                f"training images of a {label}, got {each}"
            )
    return torch.cat(found)


def _trained_m1(x: Tensor, options: argparse.Namespace) -> tuple[VAE, History]:
    from bslfast.training import fit

    shape = tuple(x.shape[1:])
    batch_size = min(max(_M1_BATCH[0], len(x) // 100), _M1_BATCH[1])
    with seeded(options.seed, torch.device("cpu")):
        model = VAE(
            mlp_encoder(shape, _M1_LATENT, _M1_HIDDEN),
            mlp_decoder(_M1_LATENT, shape, _M1_HIDDEN[::-1]),
            latent=_M1_LATENT,
        )
    history = fit(
        model, (x,), epochs=options.m1_epochs, batch_size=batch_size, lr=_M1_LR,
        schedule="cosine", seed=options.seed, objective=VAE.elbo_and_kl, progress=True,
    )  # fmt: skip
    return model, history


def _features(m1: VAE | None, x: Tensor) -> list[Tensor]:
    """The images, or the parameters of M1's posterior of their codes."""
    if m1 is None:
        return [x]
    with evaluating(m1), torch.no_grad():
        parts = [m1.encode(some) for some in x.split(_EVALUATED)]
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]


def _trained(
    features: dict[str, list[Tensor]], parts: Split, chosen: Tensor, options: argparse.Namespace
) -> tuple[SemiSupervisedVAE, History, list[float]]:
    """M2, and its errors of the validation images in each epoch."""
    from bslfast.training import fit

    train = features["train"]
    y = torch.full((len(train[0]),), -1)
    y[chosen] = parts.train.y[chosen]
    # Labelled images again and again: else most batches would have none.
    others = len(y) - len(chosen)
    again = max(0, round(options.share / (1 - options.share) * others / len(chosen)) - 1)
    rows = torch.cat([torch.arange(len(y)), chosen.repeat(again)])
    shape = tuple(train[0].shape[1:])
    with seeded(options.seed, torch.device("cpu")):
        model = SemiSupervisedVAE(
            _conditional(shape, options),
            _classifier(shape, options),
            classes=_CLASSES,
            labelled=(1 + again) * len(chosen) / len(rows),
            alpha=options.alpha,
        )
    objective = Objective()
    history = fit(
        model, [value[rows] for value in (*train, y)],
        [*features["validation"], parts.validation.y],
        epochs=options.epochs, batch_size=options.batch_size, lr=options.lr, schedule="cosine",
        seed=options.seed, objective=objective, progress=True,
    )  # fmt: skip
    wrong = torch.tensor(objective.wrong).unflatten(0, (options.epochs, -1)).sum(dim=1)
    return model, history, (wrong / len(parts.validation.y)).tolist()


def _conditional(shape: tuple[int, ...], options: argparse.Namespace) -> VAE:
    """M2's VAE: of images by a Bernoulli law, or of codes by a normal one with decoded scales."""
    hidden, latent = tuple(options.hidden), options.latent
    encoder = mlp_encoder(shape, latent, hidden, context=_CLASSES)
    if len(shape) > 1:
        decoder = mlp_decoder(latent, shape, hidden[::-1], context=_CLASSES)
        return VAE(encoder, decoder, latent=latent)
    decoder = mlp_decoder(latent, (2 * shape[0],), hidden[::-1], context=_CLASSES)
    return VAE(encoder, decoder, latent=latent, likelihood="normal", scale="decoder")


def _classifier(shape: tuple[int, ...], options: argparse.Namespace) -> nn.Sequential:
    return mlp_encoder(shape, options.latent, tuple(options.hidden), outputs=_CLASSES)


def _assess(
    model: SemiSupervisedVAE, m1: VAE | None, test: Examples, options: argparse.Namespace
) -> dict[str, float]:
    """The error of the test images, and the bound of their log likelihood, nats."""
    wrong, bounds = 0, []
    with evaluating(model), torch.no_grad(), seeded(options.seed, torch.device("cpu")):
        for x, y in zip(test.x.split(_EVALUATED), test.y.split(_EVALUATED), strict=True):
            features = _features(m1, x)
            wrong += int((model.classify(features[0]).argmax(dim=1) != y).sum())
            if m1 is None:
                bounds.append(model.unlabelled_elbo(x))
                continue
            # E log p(x | z) - log q(z | x), and the bound of log p(z) by M2.
            z, log_q = m1.posterior.rsample_and_log_prob((features[0], features[1]), (), None)
            log_p = m1._log_likelihood(x, z, None)
            bounds.append(log_p - log_q + model.unlabelled_elbo(z))
    return {"error": wrong / len(test.y), "elbo": torch.cat(bounds).double().mean().item()}


def _baselines(
    model: SemiSupervisedVAE,
    m1: VAE | None,
    labelled: tuple[Tensor, Tensor],
    test: Examples,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Test errors of M2's classifier after training on labelled images, or M1's codes of them."""
    from bslfast.likelihoods import Categorical
    from bslfast.training import fit

    found = {}
    x, y = labelled
    for key, encoder in {"images": None, **({} if m1 is None else {"codes": m1})}.items():
        inputs, held_out = (_features(encoder, some)[0] for some in (x, test.x))
        with seeded(options.seed, torch.device("cpu")):
            network = _classifier(tuple(inputs.shape[1:]), options)
        fit(
            network, (inputs, y), epochs=_BASELINE_EPOCHS, batch_size=_BASELINE_BATCH,
            lr=options.lr, seed=options.seed, likelihood=Categorical(_CLASSES),
        )  # fmt: skip
        with torch.no_grad():
            wrong = network(held_out).argmax(dim=1) != test.y
        found[f"error, labelled {key} alone"] = wrong.double().mean().item()
    return found


def _pictures(
    model: SemiSupervisedVAE,
    m1: VAE | None,
    test: Examples,
    history: History,
    report: dict[str, Any],
) -> dict[str, Figure]:
    from bslfast.plots import images

    name = report["job"]
    generator = torch.Generator().manual_seed(report["options"]["seed"])
    z = torch.randn(_STYLES, report["options"]["latent"], generator=generator)
    shown = test.x[:_STYLES]
    with evaluating(model), torch.no_grad():
        features = _features(m1, shown)[0]
        guessed = nn.functional.one_hot(model.classify(features).argmax(dim=1), _CLASSES)
        own = model.vae.encode(features, guessed.to(features.dtype))[0]
        analogies = torch.cat([shown.unsqueeze(1), _every_class(model, m1, own)], dim=1)
        styles = _every_class(model, m1, z)
    return {
        "styles": images.grid(
            styles.flatten(0, 1), f"{name}: a style in each row, with every class", _CLASSES
        ),
        "analogies": images.grid(
            analogies.flatten(0, 1),
            f"{name}: test images, and every class in their style",
            1 + _CLASSES,
        ),
        "learning_curves": images.label_curves(
            history, report["validation_error"], f"{name}: learning curves"
        ),
    }


def _every_class(model: SemiSupervisedVAE, m1: VAE | None, z: Tensor) -> Tensor:
    """Images of each of M2's codes [n, latent] with each class, [n, classes, ...]."""
    classes = torch.eye(_CLASSES, dtype=z.dtype).repeat(len(z), 1)
    decoded = model.vae.decode(z.repeat_interleave(_CLASSES, dim=0), classes)
    images = decoded if m1 is None else m1.decode(decoded)
    return images.reshape(len(z), _CLASSES, *images.shape[1:])
