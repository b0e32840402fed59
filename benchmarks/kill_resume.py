"""Kill a training run at random moments (kill -9), resume it, and compare with a run that nobody disturbed.

    python -m benchmarks.kill_resume --times 20

Each time one run is started with `gesm train`, killed in the midst of its training (during an epoch drawn at random between
the first line of metrics.jsonl and the last, at a random moment of it), resumed to its end, and its weights, metrics and
scores are compared byte by byte. Writes the count to benchmarks/results/kill_resume.json, with the epochs that metrics.jsonl
and the checkpoint held at each kill (0: no checkpoint yet), and exits with 1 unless all are equal.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import made
from gesm.training.checkpoint import load_tensors

TIMINGS = ("epoch_ms", "peak_memory_mb")
RESULTS = Path(__file__).parent / "results" / "kill_resume.json"


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen:
    command = ["train", options.dataset, "--model", options.model, "--epochs", str(options.epochs)]
    command += ["--device", options.device, "--out", str(folder), "--resume", "--checkpoint-every", "0"]
    code = "from gesm.cli import app; app()"
    return subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, error = process.communicate()
    if process.returncode:
        sys.exit(error.decode())


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def checkpointed(folder: Path) -> int:
    path = folder / "checkpoint.safetensors"
    return len(load_tensors(path)[0]["history"]) if path.exists() else 0


def outcome(folder: Path) -> tuple:
    result = json.loads((folder / "result.json").read_text())
    files = [(folder / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "recipe.yaml")]
    return {key: value for key, value in result.items() if key not in TIMINGS}, *files


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill and resume a training run; count the equal outcomes.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--dataset", default="citeseer")
    parser.add_argument("--model", default="gesm")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    if options.times < 1 or options.epochs < 2:
        parser.error(
            f"--times must be at least 1 and --epochs 2, to be killed between, got {options.times} and {options.epochs}"
        )
    head = made("benchmarks.kill_resume")
    draw, equal, moments = random.Random(options.seed), 0, []
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        finish(start(Path(folder) / "whole", options))
        wall = time.monotonic() - begin
        expected, epochs = outcome(Path(folder) / "whole"), lines(Path(folder) / "whole")
        pause = json.loads((Path(folder) / "whole" / "result.json").read_text())["epoch_ms"] / 1000
        while len(moments) < options.times:
            path = Path(folder) / f"killed-{draw.random()}"
            after, wait = draw.randrange(1, epochs), draw.uniform(0, pause)
            process, begin = start(path, options), time.monotonic()
            while process.poll() is None and lines(path) < after:
                time.sleep(0.002)
            time.sleep(wait)
            process.kill()
            moment = time.monotonic() - begin
            process.communicate()
            epoch, saved = lines(path), checkpointed(path)
            if process.returncode >= 0 or epoch >= epochs:
                continue  # it was quicker this time
            finish(start(path, options))
            same = outcome(path) == expected
            equal += same
            moments.append({"seconds": round(moment, 3), "epoch": epoch, "checkpoint": saved, "equal": same})
            verdict = "equal" if same else "DIFFERENT"
            print(f"{len(moments):3d}  killed after {moment:6.2f} s, epoch {epoch}, checkpoint of {saved}: {verdict}")
    print(f"{equal} of {options.times} equal to the uninterrupted run")
    record = {**head, "equal": equal, **vars(options), "uninterrupted_seconds": round(wall, 2), "moments": moments}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(equal != options.times)


if __name__ == "__main__":
    main()
