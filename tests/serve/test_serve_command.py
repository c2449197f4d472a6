"""``spark-rl serve`` before anything is loaded: mistakes are one line."""

from __future__ import annotations

import sys

import pytest

from spark_rl.cli import main


def test_without_its_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "spark_rl.serve.app", raising=False)
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "spark-rl: serve needs FastAPI and uvicorn: pip install 'spark-rl[serve]'\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--upstream", "localhost:8000"], "--upstream localhost:8000 is no address"),
        (["--upstream", "http://a/v1", "--model", "embedded"], "give one of the two"),
        (["--upstream", "http://a/v1", "--max-tokens", "5"], "--max-tokens is for a model that is served here"),
        (["--upstream", "http://a/v1", "--served-model-name", "x"], "--served-model-name is for a model"),
    ],
)
def test_options_that_make_no_sense_are_named(
    capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["serve", *options]) == 2
    assert said in capsys.readouterr().err
