"""The accuracy table: searched recipes, cells of many runs, peers in the same loop. `python -m benchmarks.accuracy --help`."""
