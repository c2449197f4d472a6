"""Writing a model whose shards lie on several ranks as one Hugging Face folder, which never exists whole in memory.

The ranks gather one layer at a time and write the files in turn: a rank holds one file of the model beside its shards.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from spark_rl.files import write_json
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.weights import Weights, gathered

FILE_BYTES = 4 << 30
"""Of one file at most, unless a single tensor is larger."""
PART = "model-{:05d}-of-{:05d}.safetensors"


def write_model(loaded: LoadedModel, weights: Weights, folder: Path, file_bytes: int = FILE_BYTES) -> None:
    """Write weights, configuration and tokenizer or processor; all ranks call it, and all return when it is done.

    Args:
        loaded: the model.
        weights: the same, whole on each rank, layer by layer.
        folder: made if it is missing; a place that all ranks see.
        file_bytes: of one file at most.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, int] = {}
    held: dict[str, Tensor] = {}
    number = size = total = 0
    for name, tensor in weights.named():
        if size and size + tensor.nbytes > file_bytes:
            _write(held, folder, number)
            number, size = number + 1, 0
        if number % ranks == rank:
            held[name] = tensor.detach().to("cpu", copy=True).contiguous()
        places[name], size, total = number, size + tensor.nbytes, total + tensor.nbytes
    _write(held, folder, number)
    dist.barrier()
    if rank == 0:
        files = [PART.format(n + 1, number + 1) for n in range(number + 1)] if number else ["model.safetensors"]
        for n, file in enumerate(files):
            (folder / f".{n}.partial").replace(folder / file)
        if number:
            index = {"metadata": {"total_size": total}, "weight_map": {n: files[at] for n, at in places.items()}}
            write_json(folder / "model.safetensors.index.json", index)
        _write_settings(loaded, weights, folder)
    dist.barrier()


def write_adapters(loaded: LoadedModel, folder: Path) -> None:
    """Write adapters and tokenizer or processor; all ranks call it, and all return when it is done."""
    state = {
        name: gathered(tensor) if "lora_" in name or ".modules_to_save." in name else tensor
        for name, tensor in loaded.model.state_dict().items()
    }
    if dist.get_rank() == 0:
        loaded.save(folder, state)
    dist.barrier()


def _write(held: dict[str, Tensor], folder: Path, number: int) -> None:
    """Write what this rank holds of a file, if the file is its own, and let go of it."""
    if held:
        save_file(held, folder / f".{number}.partial", metadata={"format": "pt"})
        held.clear()


def _write_settings(loaded: LoadedModel, weights: Weights, folder: Path) -> None:
    causal_lm = loaded.causal_lm
    config = deepcopy(causal_lm.config)
    config.architectures = [type(causal_lm).__name__]
    dtype: torch.dtype | None = getattr(weights, "dtype", None)
    config.dtype = str(dtype or causal_lm.dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    if getattr(causal_lm, "generation_config", None) is not None:
        causal_lm.generation_config.save_pretrained(folder)
    (loaded.processor or loaded.tokenizer).save_pretrained(folder)
