"""What libraries take in main memory, against a process that has imported them and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ltxtrain.plan.memory.phases import HOST_LIBRARIES, MIB

SOURCE = """
import ltxtrain.train
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5EncoderModel
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_with_libraries_alone_takes_about_what_the_estimate_says() -> None:
    done = subprocess.run([sys.executable, "-c", SOURCE], capture_output=True, text=True, check=True)
    taken = int(done.stdout.split()[-1]) * 1024
    assert taken == pytest.approx(HOST_LIBRARIES, abs=150 * MIB)
