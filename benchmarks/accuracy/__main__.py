"""Makes the accuracy table: `run` trains what is missing with the shipped recipes, `table` writes it, by default both.

The recipes come from `search` on validation and `recipes`, which also makes the recipe `best` of each column: of gesm's own
finished cells that with the highest mean on validation. `ablate` changes one part at a time; `costs` measures epoch time and
peak memory, alone on the machine. Each goes on where a killed one was.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.accuracy.ablation import ablate, variants
from benchmarks.accuracy.cells import chosen_on_validation, read_cell, run_cell
from benchmarks.accuracy.columns import LOW_LABELS, MODELS, OWN, PPI, Column, parse
from benchmarks.accuracy.costs import complete_cost
from benchmarks.accuracy.search import chosen, search
from benchmarks.accuracy.spaces import seeds, trials
from benchmarks.accuracy.table import write_table
from benchmarks.accuracy.workers import pool
from gesm.datasets import registry
from gesm.errors import GesmError
from gesm.training import Recipe
from gesm.training.recipe import RECIPES

RESULTS = Path(__file__).parents[1] / "results" / "accuracy"
README = Path(__file__).parents[2] / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    verbs = ["search", "recipes", "run", "ablate", "costs", "table"]
    parser.add_argument("what", nargs="?", choices=verbs, help="(run, then table)")
    parser.add_argument("--columns", default="all", help="all, low-labels, or names such as cora,photo:60/20/20 (all)")
    parser.add_argument("--models", help="comma-separated (all; to train, all that were searched)")
    parser.add_argument("--variants", nargs="+", default=[], help="of an ablation (all that change the recipe)")
    parser.add_argument("--runs", type=int, default=None, help="of each cell (20 on the citation graphs, 3 on PPI, else 10)")
    parser.add_argument("--trials", type=int, default=None, help="of each search (20 on Cora and CiteSeer, else 8)")
    parser.add_argument("--own", action="store_true", help="search Computers and Physics too, not Photo and CS for them")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (benchmarks/results/accuracy)")
    options = parser.parse_args()
    for name, low in (("runs", 2), ("trials", 2), ("workers", 1)):
        if (value := getattr(options, name)) is not None and value < low:
            parser.error(f"--{name} must be at least {low}, got {value}")
    if unknown := [model for model in _models(options) if model not in MODELS]:
        parser.error(f"there is no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
    (options.out / "search").mkdir(parents=True, exist_ok=True)
    try:
        _go(options)
    except GesmError as error:
        parser.error(str(error))


def _go(options: argparse.Namespace) -> None:
    cells = list(dict.fromkeys(_cells(options)))
    if options.what == "search":
        cells = [(column if options.own else column.searched, model) for column, model in cells if column != PPI]
        cells = list(dict.fromkeys(cells))
        if not cells:
            raise GesmError("ppi is not searched: its recipe was chosen by hand (benchmarks/NOTES.md); name another column")
    if options.what == "ablate":
        if peers := [model for model in _models(options) if model not in OWN]:
            raise GesmError(f"{peers[0]} is not ablated; choose from {', '.join(OWN)}")
        cells = [cell for cell in cells if cell[1] in OWN and (options.models or was_chosen(options.out, *cell))]
        known = dict.fromkeys(variant for cell in cells for variant in variants(shipped(*cell)))
        if unknown := [variant for variant in options.variants if variant not in known]:
            raise GesmError(f"these recipes have no variant {unknown[0]!r}; choose from {', '.join(known)}")
    if options.what == "recipes":
        for column, model in cells:
            if (file := search_file(options.out, column, model)).exists():
                try:
                    _ship(chosen(file), column, model)
                except GesmError as error:
                    print(error)
        for column in dict.fromkeys(column for column, _ in cells):
            if own := {model: cell for model in OWN if (cell := read_cell(options.out, column, model))}:
                _ship(Recipe.from_dict(own[chosen_on_validation(own)]["recipe"]), column, "best")
    elif options.what == "costs":
        with pool(1, tasks=1) as executor:
            for column, model in cells:
                complete_cost(column, model, options.out, executor)
    elif options.what != "table":
        # As many threads as workers: each follows one cell, and a cell's runs fill the gaps of the others.
        with pool(options.workers) as executor, ThreadPoolExecutor(options.workers) as threads:

            def complete(cell: tuple[Column, str]) -> None:
                column, model = cell
                if options.what == "search":
                    budget = options.trials or trials(column), seeds(column)
                    search(column, model, own_file(options.out, column, model), executor, *budget)
                    return
                if options.models is None and not was_chosen(options.out, column, model):
                    return
                work = column, model, shipped(column, model), options.out, executor, options.runs or column.runs
                if options.what == "ablate":
                    ablate(*work, only=options.variants)
                else:
                    run_cell(*work)

            list(threads.map(complete, cells))
    if options.what in (None, "table"):
        write_table(options.out, README if options.out.resolve() == RESULTS.resolve() else None)


def shipped(column: Column, name: str) -> Recipe:
    """The recipe of a model, or of another name."""
    return Recipe.for_dataset(column.dataset, name=name, protocol=column.protocol)


def was_chosen(folder: Path, column: Column, model: str) -> bool:
    """Whether a search, or on PPI a hand, chose the recipe: others are starting values and no part of the table."""
    if column == PPI:
        return (RECIPES / "ppi" / f"{model}.yaml").is_file()
    public = replace(column, protocol="public") if column in LOW_LABELS else column
    return any(search_file(place, one, model).exists() for place in (folder, RESULTS) for one in (column, public))


def _cells(options: argparse.Namespace) -> Iterator[tuple[Column, str]]:
    for column in parse(options.columns):
        for model in _models(options) or column.models:
            yield column, model


def _models(options: argparse.Namespace) -> list[str]:
    return [model.strip() for model in options.models.split(",")] if options.models else []


def search_file(folder: Path, column: Column, model: str) -> Path:
    """The search that chose a column's recipe: its own, or that of the smaller graph of its pair."""
    own = own_file(folder, column, model)
    return own if own.exists() else own_file(folder, column.searched, model)


def own_file(folder: Path, column: Column, model: str) -> Path:
    """Where the search of a column itself is kept."""
    return folder / "search" / f"{column.slug}-{model}.jsonl"


def _ship(recipe: Recipe, column: Column, name: str) -> None:
    """Puts a recipe where `gesm train` finds it."""
    folder = RECIPES / column.dataset
    if column.protocol != registry()[column.dataset].protocols[0]:
        folder = folder / column.protocol.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(recipe.to_yaml())


if __name__ == "__main__":
    main()
