"""What a client is told of an error, in OpenAI's format: as a reply of its own, or as an event of a stream."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

from spark_rl.engine.continuous import BusyError
from spark_rl.engine.endpoint import EndpointError
from spark_rl.errors import EngineError, UserError, plain

CLOSING = "the server is shutting down"


class ApiError(Exception):
    """What a client is told, in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, plain(message), code, param

    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        kinds = {401: "authentication_error", 404: "not_found_error", 408: "timeout_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


EXPECTED = (ApiError, UserError, CancelledError)
"""Errors that are no fault of this program."""


def told(error: Exception) -> ApiError:
    """What a client is told of an error."""
    match error:
        case ApiError():
            return error
        case BusyError():
            return ApiError(429, str(error), "busy")
        case EndpointError():
            return ApiError(502, f"upstream: {error}")
        case EngineError():
            return ApiError(503, str(error))
        case UserError():
            return ApiError(400, str(error))
        case CancelledError():  # of an engine's, which is being closed
            return ApiError(503, CLOSING)
        case _:  # ours; the server's log has the traceback
            return ApiError(500, f"something failed here ({type(error).__name__}); see the log of the server")
