"""What libraries take in main memory, against a process that has imported them and nothing else."""

from __future__ import annotations

import sys

import pytest

from ltxtrain.plan.memory.phases import HOST_LIBRARIES, MIB
from tests import warm

# The warm process itself, not its fork, in which only what is looked at counts.
SOURCE = """
import os
print(next(line for line in open(f"/proc/{os.getppid()}/status") if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_with_libraries_alone_takes_about_what_the_estimate_says() -> None:
    done = warm.run(SOURCE)
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout) * 1024
    assert taken < HOST_LIBRARIES < taken + 200 * MIB, "computing with them takes more, as the GPU check's test tells"
