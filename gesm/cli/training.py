"""gesm train, evaluate, predict and datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gesm.cli._shared import Device, Json, Name, Protocol, Root, app, parse_changes, show
from gesm.errors import GesmError

if TYPE_CHECKING:
    from gesm.training import Recipe

RunDir = Annotated[Path, typer.Argument(help="Folder of a run that `gesm train --out` has written.")]
Other = Annotated[str | None, typer.Option("--dataset", help="By default the data set of the run.")]


@app.command()
def train(
    dataset: Name,
    model: Annotated[
        str | None, typer.Option(help="gesm, gsm, mixed_mlp, or a peer: gcn, gat, ...", show_default="gesm")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="YAML file, or name of a recipe shipped for DATASET.")] = None,
    protocol: Protocol = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs, with seeds SEED, SEED + 1, ...")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first run, and of its split where that is random.")] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder to keep models, curves and results in.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the runs in --out stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs in --out.")] = False,
    json_file: Json = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe; repeatable.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set epochs=N.")] = None,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Least seconds between checkpoints.")] = 2.0,
    root: Root = None,
) -> None:
    """Train on a data set and print the test table; validation alone selects the epoch."""
    from gesm.datasets import load, locate
    from gesm.training import fit_many, summarize
    from gesm.training.progress import Progress
    from gesm.training.report import table

    if overwrite and out is None:
        raise GesmError("--overwrite needs --out, the folder of the runs to replace")
    locate(dataset, root)  # an unknown name is the first thing to hear of
    settings = _recipe(dataset, protocol, model, recipe, [*(changes or []), *([] if epochs is None else [f"epochs={epochs}"])])
    with Progress(settings.epochs, runs) as progress:
        results = fit_many(
            settings,
            lambda seed: load(dataset, root, protocol, seed),
            runs,
            seed,
            out,
            resume=resume,
            overwrite=overwrite,
            device=device,
            checkpoint_every=checkpoint_every,
            on_epoch=progress.on_epoch,
            on_run=progress.on_run,
        )
    summary = summarize(results, settings)
    show(table(summary))
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"Kept in {out}" if out else "Nothing was kept; --out DIR keeps the model, its curves and results")


@app.command()
def evaluate(
    run_dir: RunDir,
    dataset: Other = None,
    protocol: Annotated[str | None, typer.Option(help="Split; by default that of the run.")] = None,
    device: Device = "auto",
    root: Root = None,
) -> None:
    """Score the model of a run on the splits of a data set."""
    from rich.table import Table

    from gesm.training import Trained

    trained = Trained.load(run_dir, device)
    data = _data(trained.info, dataset, protocol, root)
    scores = trained.evaluate(data)
    metric = next(iter(scores["test"]))
    grid = Table("split", "loss", f"{metric.replace('_', '-')} %", title=f"{run_dir} on {data.name}, {data.protocol}")
    for split, values in scores.items():
        grid.add_row(split, f"{values['loss']:.4f}", f"{100 * values[metric]:.2f}")
    show(grid)


@app.command()
def predict(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="File for labels and probabilities, .npz or .csv.")],
    dataset: Other = None,
    edges: Annotated[Path | None, typer.Option(help="Rows source, target[, weight]; csv, tsv, npy, npz.")] = None,
    features: Annotated[Path | None, typer.Option(help="One row of features a node; csv, tsv, npy, npz.")] = None,
    device: Device = "auto",
    root: Root = None,
) -> None:
    """Predict for each node of a data set, or of a graph of your own (--edges and --features)."""
    from gesm.training import Trained
    from gesm.training.predict import read_edges, read_features, write_predictions

    if (edges is None) != (features is None) or (edges and dataset):
        raise GesmError("pass --edges and --features together, or --dataset, or none of them for the run's own data")
    trained = Trained.load(run_dir, device)
    if edges:
        edge_index, weight = read_edges(edges)
        x = read_features(features)
    else:
        data = _data(trained.info, dataset, None, root)
        x, edge_index, weight = data.x, data.edge_index, getattr(data, "edge_weight", None)
    labels, probabilities = trained.predict(x, edge_index, weight)
    write_predictions(out, labels, probabilities)
    typer.echo(f"Predictions for {len(labels)} nodes are in {out}")


@app.command()
def datasets(root: Root = None) -> None:
    """List the data sets, their sizes and splits, and where they are found."""
    from rich.table import Table

    from gesm.datasets import locate, registry

    grid = Table(title="Data sets", caption="A set that is not found is downloaded when it is first used.")
    for name in ("name", "nodes", "edges", "features", "classes", "protocols", "found in"):
        number = name in ("nodes", "edges", "features", "classes")
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for name, spec in registry().items():
        counts = (spec.num_nodes, spec.num_edges, spec.num_features, spec.num_classes)
        found = locate(name, root)
        grid.add_row(name, *(f"{n:,}" for n in counts), ", ".join(spec.protocols), str(found or "-"))
    show(grid)


def _recipe(dataset: str, protocol: str | None, model: str | None, recipe: str | None, changes: list[str]) -> Recipe:
    from gesm.training import Recipe
    from gesm.training.recipe import MODELS

    if model and model not in MODELS:
        raise GesmError(
            f"--model must be one of {', '.join(MODELS)}, got {model!r}; for a recipe of that name pass --recipe {model}"
        )
    if recipe and (recipe.endswith((".yaml", ".yml")) or Path(recipe).is_file()):
        settings = Recipe.load(recipe)
    else:
        settings = Recipe.for_dataset(dataset, model or "gesm", recipe, protocol)
    if model and model != settings.model:
        raise GesmError(f"the recipe {recipe!r} is for {settings.model}, --model says {model}; pass one of them")
    return settings.replace(**parse_changes(changes))


def _data(info: dict[str, Any], dataset: str | None, protocol: str | None, root: Path | None) -> Any:
    from gesm.datasets import load, registry

    if dataset is None and info["dataset"] not in registry():
        raise GesmError(
            f"the run was trained on data of its own, {info['dataset']!r}; name a --dataset, predict with --edges and "
            "--features, or score it in Python: Trained.load(folder).evaluate(data)"
        )
    if dataset is None or dataset.lower() == info["dataset"]:
        return load(info["dataset"], root, protocol or info["protocol"], info["seed"])
    return load(dataset, root, protocol, info["seed"])
