"""Fixtures of the tests of vLLM: processes take long to start, so each kind is started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parity import Server, Servers, pair, sighted, tiny

from spark_rl.chat import Prompt
from spark_rl.engine.vllm import VllmEngine
from spark_rl.learner.local import LocalLearner


@pytest.fixture(scope="session")
def tied() -> Iterator[tuple[LocalLearner, VllmEngine, list[Prompt]]]:
    made = pair(tiny())
    yield made
    made[1].close()


@pytest.fixture(scope="session", autouse=True)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers | None]:
    """Servers that load while other tests run; none where no test asks for one."""
    if not any(item.path.stem == "test_servers" for item in request.session.items):
        yield None
        return
    folder: Path = tmp_path_factory.mktemp("sees")
    servers = Servers(Server(tiny(), tmp_path_factory.mktemp("text")), Server(sighted(folder), folder))
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def servers(started: Servers) -> Servers:
    for server in started:
        server.wait()
    return started
