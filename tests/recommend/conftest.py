import pytest
import torch

from gesm.recommend import Interactions


@pytest.fixture(scope="session")
def communities():
    """Two communities, 40 users and 30 items: nine of ten interactions stay within; time is the row."""
    draw = torch.Generator().manual_seed(0)
    rows = 900
    user, item = torch.randint(40, (rows,), generator=draw), torch.randint(15, (rows,), generator=draw)
    crosses = torch.rand(rows, generator=draw) < 0.1
    item = item + 15 * ((user % 2 == 1) ^ crosses)
    return Interactions.from_arrays(user, item, time=torch.arange(rows), name="communities")
