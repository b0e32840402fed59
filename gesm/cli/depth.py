"""gesm depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gesm.cli._shared import Json, Name, Protocol, Root, app, show
from gesm.errors import GesmError


@app.command()
def depth(
    dataset: Name,
    models: Annotated[str, typer.Option(help="Comma-separated; also gat and mixhop.")] = "sgc,appnp,gsm,gesm,gcn,gcnii",
    depths: Annotated[str, typer.Option(help="Comma-separated numbers of steps or layers.")] = "2,4,8,16,32,64",
    arms: Annotated[str, typer.Option(help="Ways of training, comma-separated.")] = "fixed,hop,dropedge",
    protocol: Protocol = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each, with seeds SEED, SEED + 1, ...")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first run, and of the split where that is random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, help="Of every run.")] = 200,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs, the summary and the figure.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the runs that --out holds.")] = False,
    json_file: Json = None,
    root: Root = None,
) -> None:
    """Train models ever deeper, with fixed depth, hop sampling or DropEdge, and read them at every depth."""
    from gesm.datasets import load, locate
    from gesm.training.checkpoint import write_atomic
    from gesm.training.depth import depth_study, plan
    from gesm.training.depth_report import figure, summarize_depth, table

    names, ways, steps = _split(models), _split(arms), tuple(map(_whole, _split(depths)))
    total = len(plan(names, ways, steps, runs, seed))
    locate(dataset, root)
    data, done = load(dataset, root, protocol, seed), 0

    def on_run(record: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        figures = "  ".join(f"{name} {100 * record[name]['test']:.1f}" for name in ("full", "expected"))
        cell = f"{record['model']} {record['arm']} K={record['K']} seed {record['seed']}"
        typer.echo(f"run {done}/{total}  {cell}  {figures}  {record['seconds']:.1f} s", err=True)

    records = depth_study(
        data,
        names,
        ways,
        steps,
        runs=runs,
        seed=seed,
        epochs=epochs,
        workers=workers,
        out=out,
        resume=resume,
        on_run=on_run,
    )
    summary = summarize_depth(records, data, epochs)
    show(table(summary))
    content = json.dumps(summary, indent=1) + "\n"
    if out is not None:
        for name, what in (("depth.json", content), ("depth.png", figure(summary)), ("depth.pdf", figure(summary, "pdf"))):
            write_atomic(out / name, what)
    if json_file is not None:
        json_file.write_text(content, encoding="utf-8")
    typer.echo(f"Kept in {out}" if out else "Nothing was kept; --out DIR keeps the runs, the summary and a figure")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise GesmError(f"--depths takes whole numbers, as in 2,4,8; got {text!r}") from None
