"""Ten rows, a reward function of your own, and the embedded base: a whole training run in fifteen lines.

python examples/trainer_ten_rows.py
"""

from __future__ import annotations

from spark_rl import SparkTrainer

ROWS = [{"question": f"{a}?{b}?{c}={a + b - c}", "answer": "+-"} for a in (5, 7) for b in (1, 3, 4, 6, 8) for c in (2,)]


def brevity(completions: list[str], **_columns: object) -> list[float]:
    """More for shorter responses: of 120 characters none, of no character one."""
    return [max(0.0, 1.0 - len(text) / 120) for text in completions]


def main() -> None:
    settings = {"rollout": {"problems": 5, "samples": 4}, "train": {"steps": 3}}
    trainer = SparkTrainer("embedded", brevity, settings, train_dataset=ROWS)
    trainer.train()
    print(trainer.solve(ROWS[0]["question"]).response)
    print(trainer.judge(ROWS[0]["question"], r"5+1-2=4 \boxed{+-}").verdict)


if __name__ == "__main__":
    main()
