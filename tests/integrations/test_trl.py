"""What needs TRL is tested with it (make test-trl); this is what everybody else meets."""

from __future__ import annotations

import importlib.util

import pytest

from spark_rl.errors import UserError


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_without_trl_one_line_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"pip install 'spark-rl\[trl\]'"):
        import spark_rl.integrations.trl  # noqa: F401
