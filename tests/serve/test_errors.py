"""What a client is told of whatever goes wrong."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from spark_rl.engine.continuous import BusyError
from spark_rl.engine.endpoint import EndpointError
from spark_rl.errors import EngineError, UserError
from spark_rl.serve.errors import ApiError, told


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ApiError(413, "too long"), 413, "too long"),
        (BusyError("later"), 429, "later"),
        (EndpointError("http://a/v1: gone"), 502, "upstream: http://a/v1: gone"),
        (EngineError("out of memory"), 503, "out of memory"),
        (CancelledError(), 503, "the server is shutting down"),
        (UserError("no room"), 400, "no room"),
        (KeyError("secret"), 500, "something failed here (KeyError); see the log of the server"),
    ],
)
def test_every_error_has_a_status_and_a_line(error: Exception, status: int, said: str) -> None:
    found = told(error)
    assert (found.status, found.message) == (status, said)
    assert found.body()["error"]["type"] == {
        413: "invalid_request_error", 429: "rate_limit_error", 400: "invalid_request_error",
    }.get(status, "server_error")  # fmt: skip
