"""What a batch on the host gives back is there for the next one, counted in page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Takes, touches and gives back sixty-four MiB, as a batch does, and tells the faults of a round.
ROUNDS = """
import resource, sys
from millstream_worker.inference.heap import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
def batch():
    held = [b"x" * (8 << 20) for _ in range(8)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batch(), batch()
before = faults()
for _ in range(10):
    batch()
print((faults() - before) // 10)
"""


def faults(how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", ROUNDS, how],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of GNU alone")
def test_a_batch_faults_no_page_in_that_the_one_before_had() -> None:
    usual = faults("usual")
    if usual < 1000:
        pytest.skip("this C library keeps memory by itself")
    assert faults("kept") < usual / 20
