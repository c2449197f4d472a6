"""What the card is, how fast it multiplies and copies, and whether its products are right."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from spark_rl.doctor.finding import Finding, judged, not_here

SIDE = {"cuda": 8192}
"""Rows of the square matrices that are multiplied; 512 on a CPU."""
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative error of a right product. TF32, which keeps 10 bits of a float32, is off by 3e-4."""
NEEDS_CUDA = "needs an NVIDIA GPU, its driver, and a CUDA build of torch: pip install torch"


def cards(device: torch.device) -> list[Finding]:
    """Every card with its memory, and the versions of what drives it."""
    if device.type != "cuda":
        return [not_here("cards", NEEDS_CUDA)]
    kinds = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    each = [f"{kind.name}, {kind.total_memory / 2**30:.0f} GiB, {kind.major}.{kind.minor}" for kind in kinds]
    found = "; ".join(f"{each.count(card)} x {card}" for card in dict.fromkeys(each))
    nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    drivers = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}, NCCL {nccl}"
    return [Finding("cards", found, drivers)]


def matrices(device: torch.device) -> list[Finding]:
    """Products in the two number formats that train, timed, and compared with float64."""
    side, found = SIDE.get(device.type, 512), []
    for dtype, rounding in ROUNDING.items():
        generator = torch.Generator(device=device).manual_seed(0)
        a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
        seconds = timed(device, lambda a=a, b=b: a @ b)  # type: ignore[misc]
        right = a[:16].double() @ b.double()
        error = float(((a[:16] @ b).double() - right).norm() / right.norm())
        name = str(dtype).removeprefix("torch.")
        found.append(
            judged(
                f"{name} matrices", f"{2 * side**3 / seconds / 1e12:.3g} TFLOP/s",
                f"{side} x {side}, relative error {error:.1e}, below {rounding:g} is right", right=error < rounding,
            )
        )  # fmt: skip
    return found


def memory_speed(device: torch.device) -> list[Finding]:
    """Bytes read and written a second, which bounds decoding."""
    if device.type != "cuda":
        return [not_here("memory speed", NEEDS_CUDA)]
    source = torch.ones(2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = timed(device, lambda: target.copy_(source))
    rate = 2 * source.numel() * source.element_size() / seconds / 1e12
    return [judged("memory speed", f"{rate:.2f} TB/s", "a copy of 1 GiB, read and written",
                   right=bool(target[-1] == 1))]  # fmt: skip


def timed(device: torch.device, work: Callable[[], object], times: int = 10) -> float:
    """Seconds of one piece of work: the mean of ``times`` after three that are not counted."""
    for _ in range(3):
        work()
    settle(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    settle(device)
    return (time.perf_counter() - started) / times


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
