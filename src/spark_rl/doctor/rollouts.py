"""vLLM beside a learner on one device: generate, sleep, update, wake, take over the weights, and agree again."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from spark_rl.doctor.card import settle
from spark_rl.doctor.finding import Finding, judged, not_here
from spark_rl.doctor.update import KL, logprobs_of, sampled, settings
from spark_rl.engine.vllm import VllmEngine
from spark_rl.learner.local import LocalLearner
from spark_rl.model.load import load_model
from spark_rl.objective import kl_estimate
from spark_rl.problem import Group

SHARE = 0.2
"""Of a GPU's memory, for a model of a million weights."""


def vllm(device: torch.device) -> list[Finding]:
    """The embedded base in vLLM: parity before and after an update, and what sleep gives back."""
    if find_spec("vllm") is None:
        return [not_here("vLLM", "pip install 'spark-rl[vllm]'")]
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    share = (f"engine.options={{gpu_memory_utilization: {SHARE}}}",) if device.type == "cuda" else ()
    config = settings(device, dtype, "engine.name=vllm", "engine.max_rows=64", *share)
    engine = VllmEngine(config, colocated=True)
    try:
        learner = LocalLearner(load_model(config), config)
        groups = sampled(engine, engine.facts.chat, 8, 4, 32)
        before, awake = _apart(learner, groups), _free(device)
        engine.sleep()
        settle(device)
        asleep = _free(device)
        learner.update(groups)
        stale = _apart(learner, groups)
        engine.wake()
        engine.sync(learner.weights())
        after = _apart(learner, sampled(engine, engine.facts.chat, 8, 4, 32))
    finally:
        engine.close()
    kl = KL[dtype]
    found = [
        judged(
            "vLLM parity", f"{before:.1e} nats a token, {after:.1e} after an update and its transfer",
            f"{dtype}, mean KL; below {kl:g} is rounding; without the transfer {stale:.1e}",
            right=max(before, after) < kl and engine.version == learner.updates == 1,
        )
    ]  # fmt: skip
    if device.type != "cuda":
        return [*found, not_here("vLLM sleep", "a CPU's vLLM gives nothing back; needs an NVIDIA GPU")]
    freed = asleep - awake
    meaning = f"of {SHARE:.0%} of the card, given to the learner during its update and taken again"
    return [*found, judged("vLLM sleep", f"{freed / 2**30:.1f} GiB", meaning, right=freed > 0)]


def _apart(learner: LocalLearner, groups: Sequence[Group]) -> float:
    """The mean k3 KL between those who sampled and the learner, in nats a token."""
    engine = torch.tensor([x for g in groups for r in g.rollouts for x in r.completion.logprobs])
    return float(kl_estimate(engine.double(), logprobs_of(learner, groups).double(), "k3").mean())


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
