"""`python -m gesm` is the command `gesm`."""

from gesm.cli import app

app()
