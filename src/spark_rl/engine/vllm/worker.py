"""What runs inside vLLM's worker processes: weights come in through vLLM's own weight-transfer interface.

vLLM imports this module in each worker before it builds the model (``worker_extension_cls``). Only there is vLLM
imported; nothing of the learner's process is.

Departures from vLLM on a CPU, each because of what was measured with 0.32 (docs/vllm.md):

- Linear weights stay as they are in place of being packed for oneDNN or for the small-batch kernels: a packed weight
  can't be replaced (``load_weights`` raises, or reports success while a tied embedding stays as it was).

And one on every machine: vLLM's processes beside a learner end with it. They would wait for ever for the next request
of a run that was killed, with the memory of a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vllm._custom_ops as ops
from safetensors.torch import load_file
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers import utils
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from spark_rl.engine.vllm.arguments import BACKEND, RUN

LOOK = 1.0
"""Seconds between two looks at whether the run is there."""


def _parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return None


def _end_with(run: int) -> None:
    """End this process, and the one of vLLM between it and the run, when the run has ended, however it did."""
    own, above, parent = os.getpid(), os.getppid(), multiprocessing.parent_process()
    between = parent is not None and parent.pid == above != run
    ours = [above, own] if between else [own]
    while _parent_of(ours[0]) == run:
        time.sleep(LOOK)
    for pid in ours:
        if pid == own or os.getppid() == pid:
            os.kill(pid, signal.SIGKILL)


if (_run := int(os.environ.get(RUN, "0"))) and (
    _run in {os.getppid(), _parent_of(os.getppid())} or not Path(f"/proc/{_run}").exists()
):
    threading.Thread(target=_end_with, args=(_run,), name="end-with-run", daemon=True).start()

if current_platform.is_cpu():
    ops._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *_, **__: False


@dataclass
class Init(WeightTransferInitInfo):
    """Nothing has to be agreed on."""


@dataclass
class Update(WeightTransferUpdateInfo):
    """One bucket of weights."""

    path: str
    """A safetensors file, in shared memory; Hugging Face names."""


class FileWeights(WeightTransferEngine[Init, Update]):
    """Weights in the layout of a checkpoint, from files that the trainer writes to shared memory."""

    init_info_cls = Init
    update_info_cls = Update

    def init_transfer_engine(self, init_info: Init) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        """Give the layers of a GPU back the form that a checkpoint loads into; on a CPU they never left it."""
        if not current_platform.is_cpu():
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Update) -> None:
        """Load one bucket."""
        self.model.load_weights(load_file(update_info.path).items())

    def finish_weight_update(self) -> None:
        """What vLLM does after loading (quantising, packing), again."""
        if not current_platform.is_cpu():
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held."""

    @staticmethod
    def trainer_send_weights(iterator: Iterator[Any], trainer_args: Any) -> None:
        """Of the sender's side, which vLLM before 0.30 asks an engine for and never calls: :func:`.transfer.send`."""
        raise NotImplementedError


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FileWeights)


class Worker:
    """The extension of vLLM's worker class. It adds no method: importing this module is what it is for."""
