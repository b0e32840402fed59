"""What the commands share: the application, its errors, options that several take, and printing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gesm.errors import GesmError

if TYPE_CHECKING:  # each command imports what it needs: --help stays quick
    from rich.table import Table

__all__ = ["Device", "Json", "Name", "Protocol", "Root", "app", "parse_changes", "show"]


_RESUMED = ("train", "depth")


class _Group(TyperGroup):
    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GesmError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except BrokenPipeError:  # the reader has seen enough
            raise
        except OSError as error:  # a full disk, say
            place = f" ({error.filename})" if error.filename else ""
            hint = f"; gesm {ctx.invoked_subcommand} --out goes on with --resume" if ctx.invoked_subcommand in _RESUMED else ""
            typer.echo(f"error: {error.strerror or error}{place}{hint}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; gesm train and gesm depth with --out go on with --resume", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    help="Train, evaluate and use graph neural networks that mix random-walk steps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="DATASET", help="A name that `gesm datasets` lists.")]


def _check_root(root: Path | None) -> Path | None:
    if root is not None and not root.expanduser().is_dir():
        raise GesmError(f"--root {root}: there is no such folder; make it first, or leave the option out")
    return root


def _check_json(path: Path | None) -> Path | None:
    if path is not None:
        if not path.absolute().parent.is_dir():
            raise GesmError(f"--json {path}: the folder does not exist; make it first")
        if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise GesmError(f"--json {path}: {'is a folder' if path.is_dir() else 'cannot be written'}; pass another file")
    return path


Root = Annotated[Path | None, typer.Option(callback=_check_root, help="Folder to look for the data in before GESM_HOME.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Protocol = Annotated[str | None, typer.Option(help="Split; by default the data set's first.")]
Json = Annotated[Path | None, typer.Option("--json", callback=_check_json, help="File for the results.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from gesm import __version__

        typer.echo(f"gesm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """The KEY=VALUE of --set, values as YAML reads them."""
    import yaml

    pairs = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise GesmError(f"--set {change!r}: expected KEY=VALUE, as in --set lr=0.01")
        try:
            pairs[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise GesmError(f"--set {change!r}: {value!r} is not a number, a word, true or false") from None
    return pairs


def show(grid: Table) -> None:
    """Prints a table, 200 columns wide where nobody watches."""
    from rich.console import Console

    console = Console()
    console.print(grid) if console.is_terminal else Console(width=200).print(grid)
