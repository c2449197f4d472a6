"""vLLM itself, and the arguments of ``vllm.LLM``."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from spark_rl.config import Config
from spark_rl.engine.vllm.prompts import Facts
from spark_rl.errors import UserError

MOST_IMAGES = 16
"""Images in one prompt at most; vLLM reserves room for them."""
BACKEND = "spark_rl"
"""The name under which :mod:`.worker` registers our way of weights into vLLM."""
RUN = "SPARK_RL_VLLM_RUN"
"""The environment variable that tells vLLM's processes the number of the process they work for."""
CPU_BLOCK = 32
"""Tokens of a block of the key-value cache on a CPU, the least that its kernels like; vLLM's 128 wastes most of a block
on short sequences and shares prefixes of 128 tokens only."""
CPU_BATCH = 4096
"""Tokens prefilled together on a CPU, or more if a prompt may be longer."""
CPU_SHARE = 4
"""The key-value cache takes one part in this many of a CPU's free memory at most."""


def import_vllm() -> Any:
    """The module ``vllm``. Raises :class:`UserError` if it is not installed or does not load."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise UserError(f"vLLM does not load, {error.name} is missing; install it again") from None
        raise UserError("this engine needs vLLM: pip install 'spark-rl[vllm]'") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"vLLM does not load: {' '.join(str(error).split())[:300]}") from None


def engine_arguments(config: Config, source: str, facts: Facts) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` on every machine; those of ``engine.options`` are not among them yet.

    The longest sequence is the longest prompt with the longest response, or what the model can hold.
    """
    responses = max(config.rollout.max_new_tokens, config.inference.max_new_tokens)
    wanted = config.rollout.max_prompt_tokens + responses
    arguments: dict[str, Any] = {
        "model": source, "dtype": config.model.dtype, "trust_remote_code": config.model.trust_remote_code,
        "seed": config.seed % 2**31, "max_num_seqs": config.engine.max_rows,
        "max_model_len": min(wanted, facts.context or wanted),
        "logprobs_mode": "processed_logprobs", "enable_prefix_caching": True,
        "worker_extension_cls": "spark_rl.engine.vllm.worker.Worker",
        "weight_transfer_config": {"backend": BACKEND},
    }  # fmt: skip
    if facts.chat.processor is not None:
        arguments["limit_mm_per_prompt"] = {"image": MOST_IMAGES, "video": 0}
        if facts.chat.pixel_bounds:
            arguments["mm_processor_kwargs"] = facts.chat.pixel_bounds
    return arguments


def cpu_arguments(arguments: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """What vLLM needs besides on a CPU.

    - Prompts are prefilled whole: of one in two chunks vLLM takes back the random number drawn for the first, which a
      CPU's generator can't do, and the engine dies (``CPU Generator does not use offset``).
    - The key-value cache has a size: vLLM would take 92% of the machine's memory, which the learner is in.
    - No compilation: it takes 40 seconds at the start, and decoding is bound by memory.
    """
    longest, rows = arguments["max_model_len"], arguments["max_num_seqs"]
    wanted = facts.token_bytes * rows * (-(-longest // CPU_BLOCK) * CPU_BLOCK)
    return {
        "enforce_eager": True, "enable_chunked_prefill": False, "block_size": CPU_BLOCK,
        "max_num_batched_tokens": max(longest, rows, CPU_BATCH),
        "kv_cache_memory_bytes": max(min(wanted, free_memory() // CPU_SHARE), 2**26),
    }  # fmt: skip


def free_memory() -> int:
    """Bytes of memory that a process can take without another giving up its own."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
