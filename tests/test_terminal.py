"""What commands do while they load."""

from __future__ import annotations

import gc

import pytest

from spark_rl.commands.terminal import loading_torch


def loads_and_fails() -> None:
    with loading_torch():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_looked_for_while_torch_is_loaded(collects: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ImportError):
            loads_and_fails()
        assert gc.isenabled() is collects
        assert gc.get_freeze_count() > 0, "what was made is not looked through later"
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
