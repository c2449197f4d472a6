"""What this machine can run, found by looking and by trying, not by guessing."""

from __future__ import annotations

import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from spark_rl.config import parse_config
from spark_rl.cores import usable_cores
from spark_rl.doctor.finding import Finding
from spark_rl.model.load import load_model, resolve_device
from spark_rl.model.places import EMBEDDED

BYTES_PER_WEIGHT = {"train": 20.0, "lora": 2.2, "infer": 2.0}
"""bfloat16 weights, their masters, two moments and gradients in float32, and the reference of the KL term
(2 + 4 + 8 + 4 + 2 bytes; as many in float32, 4 + 8 + 4 + 4); bfloat16 weights under adapters or alone."""
WORKING = 3e9
"""Bytes that come on top of the weights' in a run of half a billion of them with a vocabulary of 152k: activations,
logits, the cache, the program itself (docs/performance.md)."""

_BUILDERS = {"embedded": "spark_rl.embedded.build", "embedded-vl": "spark_rl.embedded.build_vision"}


def examine_machine() -> list[Finding]:
    """Software, hardware, a real matrix product, the embedded bases, and the model sizes that fit."""
    findings = [
        Finding("python", platform.python_version(), "3.11 or newer is needed"),
        *(Finding(name, _version(name), "required") for name in ("torch", "transformers", "math-verify")),
        _flash_attention(),
        _torchvision(),
        _cores(),
        _memory(),
        _device(),
        _speed(),
        *(_base(name, folder) for name, folder in EMBEDDED.items()),
    ]
    return [*findings, _disk(), _largest()]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _flash_attention() -> Finding:
    there = find_spec("flash_attn") is not None
    found = _version("flash_attn") if there else "not installed"
    return Finding("flash_attn", found, "optional, for model.attention=flash_attention_2", "ok" if there else "note")


def _torchvision() -> Finding:
    there = find_spec("torchvision") is not None
    found = _version("torchvision") if there else "not installed"
    return Finding("torchvision", found, "not needed: images are read and prepared with Pillow")


def _cores() -> Finding:
    return Finding("cores", str(usable_cores()), "model.threads=0 uses them all; leave some free if others work here")


def _memory() -> Finding:
    total = _total_memory()
    return Finding("memory", _gib(total), "see the largest model below", "ok" if total > 4 * 2**30 else "note")


def _total_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    meaning = "a checkpoint takes 12 bytes a trained weight, 14 in bfloat16; a run keeps several (spark-rl plan)"
    return Finding("free disk here", _gib(free), meaning)


def _device() -> Finding:
    device = resolve_device("auto")
    if device.type == "cuda":
        return Finding("device", torch.cuda.get_device_name(0), "model.dtype=bfloat16 is the usual choice")
    return Finding("device", device.type, "runs everything; sized for tiny and small models", "note")


def _speed() -> Finding:
    """Matrix products of 1024 x 1024, in both number formats that train."""
    device = resolve_device("auto")
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(1024, 1024, dtype=dtype, device=device)
        float((a @ a)[0, 0])
        started = time.perf_counter()
        for _ in range(5):
            b = a @ a
        float(b[0, 0])
        rates.append(5 * 2 * 1024**3 / (time.perf_counter() - started) / 1e12)
    faster = "bfloat16" if rates[1] > 1.2 * rates[0] else "float32"
    return Finding(
        "matrix speed", f"{rates[0]:.2f} TFLOP/s fp32, {rates[1]:.2f} bf16", f"model.dtype={faster} is faster"
    )


def _base(name: str, folder: Path) -> Finding:
    what = f"{name} base"
    if not (folder / "model.safetensors").exists():
        return Finding(what, "missing", f"python -m {_BUILDERS[name]} makes it", "missing")
    loaded = load_model(parse_config({"model": {"path": str(folder)}}))
    count = sum(p.numel() for p in loaded.model.parameters())
    runs = "spark-rl train" if name == "embedded" else f"spark-rl train --model {name}"
    return Finding(what, f"{count / 1e6:.2f} M weights", f"{runs} runs here")


def _largest() -> Finding:
    room = max(0.0, 0.8 * _total_memory() - WORKING)
    sizes = {name: room / cost / 1e9 for name, cost in BYTES_PER_WEIGHT.items()}
    text = (
        f"{sizes['train']:.1f} B full, {sizes['lora']:.1f} B with adapters, {sizes['infer']:.1f} B to solve and judge"
    )
    return Finding(
        "largest model", text, "by 80 % of the memory; spark-rl plan counts a model, its lengths and settings", "note"
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
