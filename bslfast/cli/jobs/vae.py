"""``bslfast train vae``: a variational autoencoder of a table, or of images, of one's own."""

from __future__ import annotations

import argparse
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast.cli import images, runner, tables
from bslfast.predict import evaluating, seeded
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Examples, Split, Standardizer
    from bslfast.training import History

_SCALES = ("learned", "decoder")
# Hidden layers of dense networks for rows of a table, and for images.
_TABLE, _IMAGES = (64, 64), (256, 128)
_SAMPLES = 3000  # drawn for the picture
# Rows whose likelihood is estimated by importance sampling.
_MARGINAL_ROWS = 1000


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("vae", help="an autoencoder of a table, or of images, of your own")
    tables.add_options(parser)
    add = parser.add_argument
    add("--labels", metavar="COL", help="labels, for the colours of a picture (none)")
    add(
        "--scale", choices=_SCALES, default=_SCALES[0],
        help="standard deviations of a table's noise: one that is learned, or one for each column "
        "from the decoder (%(default)s)",
    )  # fmt: skip
    images.add_options(
        parser, epochs=None, batch_size=None, lr=0.001, patience=None, samples=100, network="mlp",
        hidden=None, threads=1, by_rows=True,
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    name = tables.name(options, "vae")
    found = load_images(options)
    if found is not None:
        x, y, labels = found
        options.hidden = options.hidden or list(_IMAGES)
        tables.fill(options, len(x))
        job = images.Job(
            name,
            lambda options: (_split(options, x, y), str(options.data)),
            marginal_rows=_MARGINAL_ROWS, train_reference=False, timed_runs=3, timed_steps=10,
            labels=labels,
        )  # fmt: skip
        return images.run(options, job)
    if options.network != "mlp":
        raise ValueError(
            f"--network: expected mlp for a table, which {options.data} is, got {options.network}"
        )
    x, y, features, labels = load_table(options)
    options.hidden = options.hidden or list(_TABLE)
    tables.fill(options, len(x))
    return _run_table(options, name, _split(options, x, y), features, labels)


def load_images(options: argparse.Namespace) -> tuple[Tensor, Tensor, tuple[str, ...]] | None:
    """Return images [n, 1, height, width], labels [n] and their names; None if it is a table.

    Raises:
        ValueError: naming the file and its fault.
    """
    from bslfast.data.columns import of_arrays, read_arrays

    path = options.data
    if path.suffix.lower() not in (".npy", ".npz") or not path.is_file():
        return None
    arrays = read_arrays(path)
    deep = [name for name, array in arrays.items() if array.ndim > 2]
    if not deep:
        return None
    values = arrays.pop(deep[0])
    shape = values.shape
    wanted = f"{path}, array {deep[0]!r}: expected grey images [rows, height, width] or [rows, 1, "
    wanted += "height, width], or colours [rows, 3, height, width], bytes or numbers from 0 to 1"
    channels = shape[1] if len(shape) == 4 else 1
    if len(deep) > 1 or len(shape) > 4 or channels not in (1, 3) or not values.size:
        arrays_of = f" and others of more than two dimensions: {deep[1:]}" if deep[1:] else ""
        raise ValueError(f"{wanted}, got shape {list(shape)}{arrays_of}")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{wanted}, got dtype {values.dtype}")
    x = torch.from_numpy(values.astype("float32")).view(len(values), channels, *shape[-2:])
    if values.dtype == "uint8":
        x /= 255
    outside = ~((x >= 0) & (x <= 1)).flatten(1).all(dim=1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        low, high = x[row].min().item(), x[row].max().item()
        raise ValueError(f"{wanted}, got {low:g} to {high:g} in row {row}")
    if len(x) < tables.LEAST:
        raise ValueError(f"{path}: expected at least {tables.LEAST} images, got {len(x)}")
    if options.labels is None:
        return x, torch.zeros(len(x), dtype=torch.int64), ("held-out images",)
    columns = of_arrays(path, arrays, rows=len(x))
    column = tables.labels(options, columns)
    y, labels = columns.labels(column)
    if bool((y < 0).any()):
        place = columns.place(int((y < 0).nonzero()[0]), column)
        raise ValueError(f"{place}: expected a label, got none")
    return x, y, labels


def load_table(
    options: argparse.Namespace,
) -> tuple[Tensor, Tensor, tuple[str, ...], tuple[str, ...]]:
    """Return the numbers [rows, columns], labels [rows], the columns' names and the labels'.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: naming the file or the
            option, and the fault.
    """
    table = tables.read(options)
    y, labels = torch.zeros(len(table), dtype=torch.int64), tuple[str, ...]()
    features, unlabelled = table, dict[str, Tensor]()
    if options.labels is not None:
        column = tables.labels(options, table)
        y, labels = table.labels(column)
        unlabelled = {column: y < 0}
        features = table.without([column])
        if not features.values:
            raise ValueError(f"--labels: expected other columns in {table.path} as well, got none")
    x = features.numbers(features.names)
    missing = dict(zip(features.names, x.isnan().T, strict=True)) | unlabelled
    rows = tables.complete(options, table, missing)
    x, y = x[rows], y[rows]
    train = _split(options, x, y).train.x
    tables.differ(table.path, features.names, train, "as others have no density")
    tables.moderate(table.path, features.names, train, x)
    return x, y, features.names, labels


def _split(options: argparse.Namespace, x: Tensor, y: Tensor) -> Split:
    from bslfast.data import split

    return split(x, y, seed=options.seed)


def _run_table(
    options: argparse.Namespace,
    name: str,
    parts: Split,
    features: tuple[str, ...],
    labels: tuple[str, ...],
) -> int:
    """Train on the rows of a table, report on held-out ones, time it, write the files."""
    from bslfast import metrics
    from bslfast.data import Standardizer

    torch.set_num_threads(options.threads)
    # Fitted on the training part alone: held-out rows must not influence the model's inputs.
    scaler = Standardizer.fit(parts.train.x)
    train, validation, test = (p._replace(x=scaler.transform(p.x).float()) for p in parts)
    columns = len(features)
    outputs = columns * (1 if options.scale == "learned" else 2)
    with seeded(options.seed, torch.device("cpu")):
        model = VAE(
            mlp_encoder((columns,), options.latent, tuple(options.hidden)),
            mlp_decoder(options.latent, (outputs,), tuple(options.hidden[::-1])),
            likelihood="normal", scale=options.scale, beta=options.beta, latent=options.latent,
        )  # fmt: skip
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    weights = sum(parameter.numel() for parameter in model.parameters())
    widths = [columns, *options.hidden, options.latent, *options.hidden[::-1], outputs]
    layers = f"VAE {'-'.join(map(str, widths))}"
    rows = {"train": len(train.x), "validation": len(validation.x), "test": len(test.x)}
    runner.say("job", f"{name} on {options.device}, seed {options.seed}, threads {options.threads}")
    runner.say(
        "data",
        f"{sum(rows.values())} rows of {columns} columns: {rows['train']} training, "
        f"{rows['validation']} validation, {rows['test']} test; from {options.data}",
    )
    runner.say("model", f"{layers}, {weights} parameters, normal likelihood")

    setting: dict[str, Any] = {
        "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed,
        "objective": VAE.elbo_and_kl,
    }  # fmt: skip
    initial = copy.deepcopy(model)
    runner.warm_up(initial, (train.x,), setting, options.device)
    history = runner.train_model(
        model, (train.x,), (validation.x,), options, folder / "checkpoint.safetensors", setting
    )
    results = evaluate(model, test, scaler, options)
    with evaluating(model), torch.no_grad(), seeded(options.seed, options.device):
        each = torch.cat([
            model.log_marginal(x.to(options.device), options.samples, seed=options.seed + i).cpu()
            for i, x in enumerate(test.x[:_MARGINAL_ROWS].split(images.EVALUATED))
        ])  # fmt: skip
        codes = images.Codes(*(v.cpu() for v in model.encode(test.x.to(options.device))))
        z = torch.randn(_SAMPLES, options.latent, device=options.device)
        drawn = model.likelihood.sample(model.decoder(z), dim=1).cpu()
    log_likelihood, error = metrics.mean_and_error(each)
    results |= {
        "log_likelihood": log_likelihood - scaler.log_scale,
        "log_likelihood_standard_error": error,
        "log_likelihood_rows": len(each),
    }
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {
            "source": str(options.data), "features": features, "rows": rows,
            "input_mean": scaler.mean.tolist(), "input_scale": scaler.scale.tolist(),
        },
        "model": {"parameters": weights, "layers": layers, "likelihood": "normal"},
        "training": runner.training_report(history),
        "test": results,
        "latent": codes.report(),
    }  # fmt: skip
    if not options.no_reference:
        report["reference"] = _reference(
            options, initial, history, train.x, validation.x, test, scaler, setting
        )
    samples = scaler.inverse(drawn.to(scaler.mean.dtype))
    figures = _pictures(name, parts.test, samples, features, labels, codes, history)
    runner.write_results(folder, report, figures)
    return 0


def evaluate(
    model: VAE, test: Examples, scaler: Standardizer, options: argparse.Namespace
) -> dict[str, float]:
    """Return the bound and its parts for a row in the units of the data, in nats.

    ``reconstruction_mse`` is in units of the columns' variances: 1 if nothing is reconstructed.
    """
    with evaluating(model), torch.no_grad():
        results = images.evaluate(model, test, options)
    moved = {key: results[key] - scaler.log_scale for key in ("elbo", "expected_log_likelihood")}
    return results | moved


def _reference(
    options: argparse.Namespace,
    initial: VAE,
    history: History,
    train: Tensor,
    validation: Tensor,
    test: Examples,
    scaler: Standardizer,
    setting: dict[str, Any],
) -> dict[str, Any]:
    """Train the same network in plain torch, time both and return the results."""
    from bslfast.cli.plain import plain
    from bslfast.training import fit

    twin = plain(initial)
    assert isinstance(twin, VAE)
    runner.warm_up(twin, (train,), setting, options.device)
    print("the same training in plain torch (torch.randn, exp, ...):", flush=True)
    other = fit(
        twin, (train,), (validation,), epochs=len(history.loss), **setting, device=options.device,
        progress=True,
    )  # fmt: skip
    results = evaluate(twin, test, scaler, options)
    networks = {"bslfast": initial, "plain torch": plain(initial)}
    return runner.compare_times(history, other, results) | runner.compare_steps(
        networks, (train,), setting, options.device
    )


def _pictures(
    name: str,
    test: Examples,
    samples: Tensor,
    features: tuple[str, ...],
    labels: tuple[str, ...],
    codes: images.Codes,
    history: History,
) -> dict[str, Figure]:
    from bslfast import plots
    from bslfast.plots import densities

    figures = {
        "marginals": densities.marginals(test.x, samples, features, f"{name}: data and samples"),
        "kl_per_dimension": plots.images.kl_per_dimension(
            *codes, f"{name}: KL divergence of each latent dimension"
        ),
    }
    if labels:
        figures["latent_space"] = plots.images.latent_space(
            codes.mu, test.y, labels, f"{name}: means of the codes of held-out rows"
        )
    figures["learning_curves"] = plots.images.learning_curves(
        history, f"{name}: learning curves (standardised columns)"
    )
    return figures
