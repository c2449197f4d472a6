"""The random stream of every row: SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195).

The number that draws token t of a row is the t-th of a stream whose seed is a hash of the sampling seed, the place of
the prompt in the whole batch and the place of the row among its prompt's. Nothing is carried from token to token, so
that rows may be decoded in any order, in any company and on any engine, and draw the same numbers on every device.

Shape suffixes: _R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from spark_rl.engine.base import Sampling
from spark_rl.seeds import stream_seed


def _signed(bits: int) -> int:
    """The int64 that has these 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits


STEP = _signed(0x9E3779B97F4A7C15)
MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def stream_keys(sampling: Sampling, places: Sequence[int], rows: Iterable[int]) -> list[int]:
    """The seeds of the streams of these rows of each prompt.

    Args:
        sampling: how to sample.
        places: which prompts of the call; ``sampling.first`` counts from the whole batch's first.
        rows: which of the ``sampling.n`` rows of a prompt.
    """
    prompts = [stream_seed(sampling.seed, sampling.first + place) for place in places]
    return [stream_seed(key, row) for key in prompts for row in rows]


def uniforms(key_R: Tensor, drawn_R: Tensor) -> Tensor:
    """(R,) float64 in [0, 1): of each row's stream the number behind the ``drawn_R`` that were drawn already.

    Args:
        key_R: int64, the seeds of the streams.
        drawn_R: int64.
    """
    bits_R = key_R + (drawn_R + 1) * STEP
    for shift, factor in MIX:
        bits_R = (bits_R ^ _shifted(bits_R, shift)) * factor
    bits_R = bits_R ^ _shifted(bits_R, 31)
    return _shifted(bits_R, 11).double() * 2.0**-53


def _shifted(bits_R: Tensor, places: int) -> Tensor:
    """The bits moved to the right, zeros behind them: a shift of int64 would repeat the sign."""
    return torch.bitwise_and(bits_R >> places, (1 << (64 - places)) - 1)
