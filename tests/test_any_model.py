"""Any causal LM, any data file: every family we claim walks the whole loop from a file, with the paper's prompts."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM

from spark_rl.config import load_config
from spark_rl.report.metrics import read_metrics
from spark_rl.run import train

ROWS = [{"question": f"What is {n} plus {n}?", "answer": f"It is {n}+{n}.\n#### {2 * n}"} for n in range(1, 9)]

SETTINGS = (
    "model.threads=1", "data.layout=gsm8k", "data.heldout=split:3", "rollout.problems=3", "rollout.samples=2",
    "rollout.max_new_tokens=12", "inference.max_new_tokens=12", "inference.rounds=1", "recycle.ready=1",
    "train.steps=2", "optimiser.lr=1e-3", "rollout.max_prompt_tokens=500",
)  # fmt: skip


def test_every_family_trains_from_a_gsm8k_file_with_natural_prompts(model_path: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    base_model = ["chat.few_shot=Q: 1+1?\nA: \\boxed{2}\n\n", 'chat.stop=["\\n\\n"]']
    config = load_config(
        None, [*SETTINGS, *base_model], model={"path": model_path}, data={"train": str(data)},
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    summary = train(config)
    assert summary["after"]["n"] == 3
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["tokens"] > 0 for step in steps)
    assert all(step["engine_gap"] < 1e-4 for step in steps), "engine and learner must agree in fp32"
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert prompts[0].startswith("Q: 1+1?")
    assert "Repeat the final answer using a '\\boxed{}'." in prompts[0]
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert type(trained) is type(AutoModelForCausalLM.from_pretrained(model_path))


def test_a_prompt_template_of_ones_own_replaces_the_tokenizers(model_path: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}[answer] ")
    config = load_config(
        None, [*SETTINGS, f"chat.template={template}", "data.heldout=null", "train.steps=1"],
        model={"path": model_path}, data={"train": str(data)}, run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(config)["before"] is None
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["tokens"] > 0
