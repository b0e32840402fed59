"""What gesm is measured against, and the suite that measures it: `python -m benchmarks` or `pytest benchmarks`."""

__all__: list[str] = []
