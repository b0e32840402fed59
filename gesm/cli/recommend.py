"""gesm recommend train, evaluate and top."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gesm.cli._shared import Json, Root, app, parse_changes, show
from gesm.errors import GesmError

if TYPE_CHECKING:
    from gesm.recommend import Interactions, Settings, Targets, TrainedRecommender, Window

recommend = typer.Typer(help="Recommend items to users from a table of interactions.", no_args_is_help=True)
app.add_typer(recommend, name="recommend")

Table = Annotated[str, typer.Argument(metavar="TABLE", help="A csv, tsv, parquet or npz file, or the name of a data set.")]
Folder = Annotated[Path, typer.Argument(help="Folder that `gesm recommend train --out` has written.")]
User = Annotated[str, typer.Option(help="Column of the users, a name, or a number if the file has no header.")]
Item = Annotated[str, typer.Option(help="Column of the items.")]
Time = Annotated[str, typer.Option(help="Column of the times; 'none' if there are none.")]
Length = Annotated[int, typer.Option("-k", min=1, help="Length of the lists.")]


@recommend.command()
def train(
    table: Table,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the model in.")] = None,
    user: User = "user",
    item: Item = "item",
    time: Time = "time",
    model: Annotated[str | None, typer.Option(help="lightgcn, mixture, mf or popularity.", show_default="lightgcn")] = None,
    K: Annotated[int | None, typer.Option("--K", help="Steps of propagation.", show_default="3")] = None,
    hops: Annotated[str | None, typer.Option(help="Distribution of depths in training: uniform or geometric.")] = None,
    dim: Annotated[int | None, typer.Option(help="Width of the embeddings.", show_default="64")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs.", show_default="200")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.", show_default="0")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the settings; repeatable.")] = None,
    warm: Annotated[Path | None, typer.Option(help="Go on from this recommender; TABLE holds new rows.")] = None,
    test: Annotated[float, typer.Option(help="Share of time, at its end, that is held out for the test; 0 for none.")] = 0.1,
    k: Length = 10,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the recommender in --out.")] = False,
    json_file: Json = None,
    root: Root = None,
) -> None:
    """Train on the earlier rows of a table, test on the last ones, and keep the model."""
    from gesm.recommend import TrainedRecommender, Window, fit, refit, temporal_split
    from gesm.recommend.store import check_free
    from gesm.training.result import versions

    if out is not None:
        check_free(out, overwrite)
        _make(out)
    old = None if warm is None else TrainedRecommender.load(warm)
    given = {"model": model, "K": K, "hops": hops, "embedding_dim": dim, "epochs": epochs, "seed": seed}
    settings = _settings(old, {key: value for key, value in given.items() if value is not None}, changes or [])
    rows = _read(table, user, item, time, root, old)
    if old is not None:
        rows = _new(rows, old.train, table, warm)
    held_out = None
    if test and rows.time is None:
        raise GesmError(
            f"{table} is read without times, and so has no last rows to test on; name their column, or pass --test 0"
        )
    if test:
        rows, _, held_out = temporal_split(rows, 0.0, test)
        window = Window(rows, held_out) if old is None else _window(old.train.extended(rows), held_out)
        _goals(window, k)
    losses: list[float] = []
    with _bar(settings) as advance:
        if old is None:
            trained_on, network = rows, settings.build_model(rows.num_users, rows.num_items)
            losses = fit(network, rows, settings, advance)
        else:
            network = old.model
            if settings.inference != old.settings.inference:
                network.inference = settings.inference
            trained_on, losses = refit(network, old.train, rows, settings, advance)
    trained = TrainedRecommender(network, settings, trained_on)
    about = {"table": table, "test_share": test, "warm": warm and str(warm), "settings": settings.to_dict()}
    summary: dict[str, Any] = about | {"versions": versions(), "loss": losses[-1] if losses else None}
    typer.echo(f"trained on {len(trained_on):,} rows of {trained_on.num_users:,} users and {trained_on.num_items:,} items")
    if out is not None:
        trained.save(out, overwrite)
    if held_out is not None:
        summary |= _report(trained, window, k, f"{settings.model} on {table}")
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"Kept in {out}" if out else "Nothing was kept; --out DIR keeps the model")


@recommend.command()
def evaluate(
    folder: Folder,
    table: Table,
    user: User = "user",
    item: Item = "item",
    time: Time = "time",
    k: Length = 10,
    json_file: Json = None,
    root: Root = None,
) -> None:
    """Score a recommender on the rows of a table that are later than its training."""
    from gesm.recommend import TrainedRecommender
    from gesm.training.result import versions

    trained = TrainedRecommender.load(folder)
    rows = _read(table, user, item, time, root, trained)
    if rows.time is not None and trained.train.time is not None:
        last = trained.train.time.max()
        later = rows.select(rows.time > last)
        if not len(later):
            raise GesmError(f"no row of {table} is later than the training of {folder}; pass a table with newer rows")
        typer.echo(f"{len(later):,} of {len(rows):,} rows are later than the training")
        rows = later
    about = {"table": table, "folder": str(folder), "settings": trained.settings.to_dict(), "versions": versions()}
    summary = about | _report(trained, _window(trained.train, rows), k, f"{folder} on {table}")
    if json_file is not None:
        json_file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


@recommend.command()
def top(
    folder: Folder,
    user: Annotated[list[str], typer.Option("--user", help="Id of a user as in the table; repeatable.")],
    k: Length = 10,
    cold: Annotated[str, typer.Option(help="For users the model does not know: error or popularity.")] = "error",
    out: Annotated[Path | None, typer.Option(help="File for columns user, rank, item (.csv).")] = None,
) -> None:
    """Recommend the best items that a user does not have yet."""
    from rich.table import Table as Grid

    from gesm.recommend import TrainedRecommender

    if out is not None and out.suffix != ".csv":
        raise GesmError(f"recommendations go to .csv, got {out.name!r}")
    lists = TrainedRecommender.load(folder).recommend(user, k, cold)
    if out is None:
        grid = Grid("user", "items, best first")
        for name, items in zip(user, lists, strict=True):
            grid.add_row(name, ", ".join(str(i) for i in items if i is not None))
        show(grid)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["user", "rank", "item"])
            for name, items in zip(user, lists, strict=True):
                writer.writerows([name, rank, i] for rank, i in enumerate(items, 1) if i is not None)
    except OSError as error:
        raise GesmError(f"cannot write {out}: {error.strerror}") from None
    typer.echo(f"Recommendations for {len(lists)} users are in {out}")


def _settings(old: TrainedRecommender | None, given: dict[str, Any], changes: list[str]) -> Settings:
    from gesm.recommend import Settings

    given = given | parse_changes(changes)
    if old is None:
        return Settings.from_dict(given, "options")
    kept = old.settings.to_dict()
    fixed = [key for key in ("model", "K", "hops", "embedding_dim", "edge_dropout") if given.get(key, kept[key]) != kept[key]]
    if fixed:
        raise GesmError(f"a warm start keeps the model; leave out {', '.join(fixed)}, or train anew without --warm")
    return old.settings.replace(**given)


def _read(
    table: str, user: str, item: str, time: str, root: Path | None, old: TrainedRecommender | None = None
) -> Interactions:
    """The table; its whole numbers are text where those of the recommender that it belongs to are."""
    from gesm.recommend import load, read_interactions, registry

    if table.lower() in registry():
        return replace(load(table, root), weight=None)  # no model reads them, and files are read without
    if "." not in Path(table).name:
        raise GesmError(f"{table!r} is neither a file nor a data set; data sets: {', '.join(registry())}")
    columns = (user, item, None if time == "none" else time)
    numbered = all(c is None or c.isdecimal() for c in columns)
    rows = read_interactions(table, *(int(c) if numbered and c is not None else c for c in columns))
    for key in () if old is None else ("user_ids", "item_ids"):
        if getattr(old.train, key).dtype.kind == "U":
            rows = replace(rows, **{key: getattr(rows, key).astype(str)})
    return rows


def _new(rows: Interactions, known: Interactions, table: str, warm: Path) -> Interactions:
    """The rows that the training has not had: a log is often exported whole again."""
    new = rows.without(known)
    if not len(new):
        raise GesmError(f"{warm} was trained on all rows of {table}; pass a table with newer rows")
    if len(new) < len(rows):
        typer.echo(f"{len(new):,} of {len(rows):,} rows are new, {warm} was trained on the others")
    return new


def _check_later(train: Interactions, rows: Interactions) -> None:
    if train.time is not None and rows.time is not None and bool(rows.time.min() < train.time.max()):
        raise GesmError("the rows to predict must be later than those of the training; pass newer ones")


def _window(train: Interactions, rows: Interactions) -> Window:
    """The training and these rows with common numbers of users and items; the model grows to them."""
    import torch

    from gesm.recommend import Window

    _check_later(train, rows)
    both = train.extended(rows)
    index = torch.arange(len(both))
    return Window(both.select(index[: len(train)]), both.select(index[len(train) :]))


def _goals(window: Window, k: int) -> dict[str, Targets]:
    """What is to be found, by kind of pair; an error if there is nothing to measure."""
    from gesm.recommend import targets
    from gesm.recommend.ranking import check_length

    check_length(k, len(window.train.item.unique()))
    goals = {kind: goal for kind in ("new", "repeat") if len((goal := targets(window, kind)).users)}
    if not goals:
        raise GesmError(
            "no user of the test rows is known from training with an item that is; hold out another share, or --test 0"
        )
    return goals


def _make(folder: Path) -> None:
    """The folder, or an error before there is anything to lose."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise GesmError(f"--out {folder}: cannot be written ({error.strerror}); pass another folder") from None


def _report(trained: TrainedRecommender, window: Window, k: int, title: str) -> dict[str, Any]:
    """Prints and returns the measures of new and repeated pairs."""
    import copy

    from rich.table import Table as Grid

    from gesm.recommend import evaluate, scorer

    network = copy.deepcopy(trained.model)
    network.grow(window.train.num_users, window.train.num_items)  # cold rows: never ranked
    score = scorer(network, window.train.graph())
    columns = [f"{name}@{k}" for name in ("ndcg", "map", "recall", "coverage")]
    grid = Grid("pairs", "users", *columns, title=title)
    found = {}
    for kind, goal in _goals(window, k).items():
        mean = evaluate(score, goal, window.train, (k,)).mean
        found[kind] = {"users": len(goal.users), **mean}
        grid.add_row(kind, f"{len(goal.users):,}", *(f"{mean[c]:.4f}" if c in mean else "-" for c in columns))
    show(grid)
    typer.echo(
        f"users in the test rows {goal.window_users:,}, cold {goal.cold_users:,}; cold items {goal.cold_items:,}; "
        f"rows with user and item warm {100 * goal.warm_share:.1f} %"
    )
    cold = {"window_users": goal.window_users, "cold_users": goal.cold_users, "cold_items": goal.cold_items}
    return {"test": found, **cold, "warm_share": goal.warm_share}


def _bar(settings: Settings) -> Any:
    """A progress bar on a terminal, nothing elsewhere."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def bar():
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("training", total=settings.epochs)
            yield lambda epoch, loss: progress.update(task, completed=epoch, description=f"loss {loss:.4f}")

    return bar()
