"""Workers do not outlive a study that was killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from gesm.training.workers import end_with_parent

def main():
    pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
    import os
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)

main() if __name__ == "__main__" else None
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # one that nobody waits for is dead too
        return stat.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_worker_ends_with_its_parent(tmp_path):
    file = tmp_path / "study.py"
    file.write_text(CODE)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}  # what was killed leaves semaphores behind
    study = subprocess.Popen([sys.executable, str(file)], **quiet)
    worker = int(study.stdout.readline())
    assert alive(worker)
    study.send_signal(signal.SIGKILL)
    study.wait()
    study.stdout.close()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)
