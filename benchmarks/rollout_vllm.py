"""vLLM, for ``benchmarks/rollout_speed.py``: a process in vLLM's own environment, told what to do by its argument.

It generates each time that a line comes in, and prints the tokens per second. Nothing of this project is imported.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Load, and generate when asked."""
    from vllm import LLM, SamplingParams  # noqa: PLC0415  # after the process that vLLM forks has its guard

    job = json.loads(sys.argv[1])
    longest = max(map(len, job["prompts"])) + job["limit"]
    model = LLM(
        job["model"], dtype=job["dtype"], max_model_len=longest + 1, max_num_seqs=len(job["prompts"]) * job["n"],
        enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
    sampling = SamplingParams(
        n=job["n"], temperature=1.0, max_tokens=job["limit"], ignore_eos=job["fixed"], detokenize=False, logprobs=0
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    for _ in sys.stdin:
        began = time.perf_counter()
        made = model.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - began
        print(f"rate {sum(len(one.token_ids) for each in made for one in each.outputs) / seconds}", flush=True)


if __name__ == "__main__":
    main()
