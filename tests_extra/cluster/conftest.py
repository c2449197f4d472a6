"""One Ray for all tests, which takes long to start, and one run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from same import settings

from spark_rl.run import train


@pytest.fixture(scope="session", autouse=True)
def _ray() -> Iterator[None]:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray's name: its processes would give way to any other
    ray.init(address="local", num_cpus=16, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train(settings(run_dir))
    return run_dir
