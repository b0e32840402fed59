"""Hop sampling in several processes: one draw for all ranks."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

RANKS = 2
CODE = """
import sys, torch, torch.distributed as dist
from gesm.nn import HopSampling, StepMixture

folder, rank, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
torch.manual_seed(rank)  # as users do, so that dropout differs
hop = HopSampling(StepMixture(4, 2, K=6))
model = torch.nn.parallel.DistributedDataParallel(hop)
edges, depths = torch.randint(9, (2, 20)), []
for _ in range(8):
    model(torch.randn(9, 4), edges).square().sum().backward()
    depths.append(hop.last_depth)
torch.save({"depths": depths, "gradient": hop.module.lin.weight.grad}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs torch.distributed with gloo")
def test_all_ranks_draw_alike(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path), str(r), str(RANKS)]) for r in range(RANKS)]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0] * RANKS
    finally:
        for rank in ranks:
            rank.kill()
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS))
    assert one["depths"] == two["depths"]
    assert len(set(one["depths"])) > 1
    torch.testing.assert_close(one["gradient"], two["gradient"])
