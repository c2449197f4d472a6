"""lm-evaluation-harness' local-chat-completions against a server: the answers of the offline engine.

It has an environment of its own: ``make .venv-lmeval/.installed``, or another Python with ``lm_eval[api]`` that
``$SPARK_RL_LM_EVAL`` names.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from served import Served

from spark_rl.config import load_config
from spark_rl.data import load_problems
from spark_rl.engine.base import Sampling
from spark_rl.inference import Reasoner

LM_EVAL = Path(os.environ.get("SPARK_RL_LM_EVAL", Path(__file__).parents[2] / ".venv-lmeval" / "bin" / "python"))
LIMIT = 48


@pytest.mark.skipif(not LM_EVAL.exists(), reason=f"{LM_EVAL} is not there")
def test_lm_eval_finds_what_the_engine_gives(served: Served, offline: Reasoner, tmp_path: Path) -> None:
    config = load_config("tiny")
    problems = load_problems("procedural:missing", config.data, "heldout")[:40]
    expected = [
        completions[0].text
        for completions in offline.engine.generate(
            [offline.chat.encode(problem) for problem in problems], Sampling(1, 0.0, LIMIT)
        )
    ]
    assert len(set(expected)) > 5
    turns = [config.chat.policy.replace("{question}", problem.question) for problem in problems]
    rows = [{"prompt": turn, "answer": text} for turn, text in zip(turns, expected, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "served", "dataset_path": "json", "output_type": "generate_until", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "doc_to_text": "{{prompt}}", "doc_to_target": "{{answer}}", "target_delimiter": "",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": LIMIT},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (tmp_path / "served.yaml").write_text(yaml.safe_dump(task))
    url = f"base_url={served.url}/v1/chat/completions,model=embedded,num_concurrent=8,tokenized_requests=False"
    command = [
        str(LM_EVAL), "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", url,
        "--apply_chat_template", "--tasks", "served", "--include_path", str(tmp_path), "--output_path",
        str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    offline_only = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline_only
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (samples,) = (tmp_path / "out").rglob("samples_served_*.jsonl")
    found = {row["doc"]["prompt"]: row["resps"][0][0] for row in map(json.loads, samples.read_text().splitlines())}
    assert [found[turn] for turn in turns] == expected
