"""Tests that need vLLM or Ray, in an environment of their own (``make test-vllm``, ``make test-cluster``)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # tiny models and small runs are made there
