"""The rollout cache against a naive one that keeps every row's keys and values in a list and concatenates."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pad

from spark_rl.model.cache import RolloutCache
from spark_rl.model.shared import prompts_before

LAYERS, HEADS, WIDTH, VALUE_WIDTH = 2, 2, 3, 4


def states(rows: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.randn(rows, HEADS, length, WIDTH, generator=generator),
        torch.randn(rows, HEADS, length, VALUE_WIDTH, generator=generator),
    )


def with_prompts(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What rows attend to, whoever holds it."""
    shared = prompts_before(*found)
    if shared is None:
        return found
    keys, values = (torch.cat(both, 2) for both in zip(shared.expanded(), found, strict=True))
    return keys, values


@given(
    prompts=st.integers(1, 4),
    copies=st.integers(1, 4),
    length=st.integers(1, 7),
    room=st.integers(0, 3),
    share=st.booleans(),
    windows=st.tuples(*[st.none() | st.integers(1, 9)] * LAYERS),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_fork_retire_join_and_grow_equal_a_naive_recomputation(
    prompts: int, copies: int, length: int, room: int, share: bool, windows: tuple[int | None, ...], seed: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def prefilled(rows: int, length: int) -> tuple[RolloutCache, list[tuple[torch.Tensor, torch.Tensor]]]:
        cache = RolloutCache(windows)
        given = [states(rows, length, generator) for _ in windows]
        for layer, one in enumerate(given):
            assert cache.get_mask_sizes(length, layer) == (length, 0)
            assert all(torch.equal(a, b) for a, b in zip(cache.update(*one, layer), one, strict=True))
        return cache, given

    cache, given = prefilled(prompts, length)
    naive = [(keys.repeat_interleave(copies, 0), values.repeat_interleave(copies, 0)) for keys, values in given]
    cache.fork(copies, room, share)
    rows = prompts * copies
    for _ in range(data.draw(st.integers(1, 9))):
        if data.draw(st.booleans()):
            alive = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
            if alive.any():
                order = cache.retire(alive)
                assert sorted(order.tolist()) == alive.nonzero().squeeze(-1).tolist()
                naive = [(keys[order], values[order]) for keys, values in naive]
                rows = len(order)
        if data.draw(st.booleans()):
            drop, room = data.draw(st.integers(0, min(1, length - 1))), data.draw(st.integers(0, 2))
            length -= drop
            naive = [(keys[:, :, drop:], values[:, :, drop:]) for keys, values in naive]
            if data.draw(st.booleans()) and data.draw(st.booleans()):
                new, given = prefilled(data.draw(st.integers(1, 2)), data.draw(st.integers(1, 12)))
                cache.relay(drop, room, new, 2)
                naive = [joined(old, one, 2) for old, one in zip(naive, given, strict=True)]
                rows = len(naive[0][0])
            else:
                cache.relay(drop, room)
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            cache.unshare(cache.length)
        for layer, window in enumerate(windows):
            sizes = cache.get_mask_sizes(1, layer)
            new_keys, new_values = states(rows, 1, generator)
            naive[layer] = (torch.cat([naive[layer][0], new_keys], 2), torch.cat([naive[layer][1], new_values], 2))
            whole = naive[layer][0].shape[2]
            hidden = 0 if window is None else max(0, whole - window)
            assert sizes == (whole - hidden, hidden)
            keys, values = with_prompts(cache.update(new_keys, new_values, layer))
            assert torch.equal(keys, naive[layer][0][:, :, hidden:])
            assert torch.equal(values, naive[layer][1][:, :, hidden:])
            assert cache.get_seq_length(layer) == whole
            if window is not None and not share:
                assert cache.layers[layer].keys.shape[2] <= 1.5 * window


def joined(
    old: tuple[torch.Tensor, torch.Tensor], new: tuple[torch.Tensor, torch.Tensor], copies: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows below others, zeros before what is shorter."""
    both = [(one, other.repeat_interleave(copies, 0)) for one, other in zip(old, new, strict=True)]
    width = max(t.shape[2] for t in both[0])
    keys, values = (torch.cat([pad(t, (0, 0, width - t.shape[2], 0)) for t in pair]) for pair in both)
    return keys, values


def test_a_window_bounds_what_a_layer_holds() -> None:
    """However long its rows become; the columns before a window are forgotten, prompts that are shared too."""
    cache = RolloutCache([8, None])
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        cache.update(*states(2, 20, generator), layer)
    cache.fork(3, 4, share=True)
    assert cache.layers[0].shared.length == 7
    assert cache.layers[0].shared.keys_PKSD.untyped_storage().nbytes() == 2 * HEADS * 7 * WIDTH * 4
    for _ in range(100):
        if cache.full:
            cache.relay(0, 40)
        for layer in range(2):
            cache.update(*states(6, 1, generator), layer)
    windowed, full = cache.layers
    assert windowed.shared is None
    assert windowed.keys.shape[2] == 8 - 1 + 4
    assert full.shared.length == 20
    assert full.own == 100
    assert cache.get_mask_sizes(1, 0) == (8, 113)
    assert cache.get_mask_sizes(1, 1) == (121, 0)


def test_prompts_are_held_once_and_leave_with_their_rows() -> None:
    cache = RolloutCache([None])
    generator = torch.Generator().manual_seed(0)
    cache.update(*states(4, 10, generator), 0)
    cache.fork(8, 3, share=True)
    assert cache.positions == 4 * 10 + 32 * 3
    cache.retire(torch.arange(32) % 16 < 8)  # of the first prompt and the third all live, of the others none
    assert cache.places is not None
    assert (cache.places.prompts, cache.places.copies, cache.places.whole) == (2, 8, True)
    cache.retire(torch.arange(16) % 8 < 3)
    assert (cache.places.prompts, cache.places.copies) == (2, 3)
    new = RolloutCache([None])
    new.update(*states(1, 12, generator), 0)
    cache.relay(0, 1, new)
    assert cache.places is None
    assert cache.positions == (6 + 1) * (12 + 1), "who joins shares no prompt, and nobody does from then on"


def test_live_rows_stay_where_they_are_and_the_last_fill_the_holes() -> None:
    cache = RolloutCache([None])
    cache.update(torch.arange(6.0).view(6, 1, 1, 1), torch.arange(6.0).view(6, 1, 1, 1), 0)
    cache.fork(1, 1)
    order = cache.retire(torch.tensor([True, False, True, False, True, True]))
    assert order.tolist() == [0, 4, 2, 5]


def test_growing_happens_only_when_the_room_is_used_up() -> None:
    cache = RolloutCache([None])
    generator = torch.Generator().manual_seed(0)
    cache.update(*states(1, 3, generator), 0)
    cache.fork(2, 2)
    memory = cache.layers[0].keys.data_ptr()
    for _ in range(2):
        cache.update(*states(2, 1, generator), 0)
    assert cache.layers[0].keys.data_ptr() == memory
    cache.update(*states(2, 1, generator), 0)
    assert cache.layers[0].keys.data_ptr() != memory
    assert cache.layers[0].keys.shape[2] == 10  # twice the 5 that were full


def test_layers_that_keep_nothing_stay_empty() -> None:
    """A layer that borrows another's keys and values never writes its own."""
    cache = RolloutCache([None, None])
    generator = torch.Generator().manual_seed(0)
    cache.update(*states(3, 2, generator), 0)
    cache.fork(2, 1)
    assert cache.retire(torch.tensor([True, False, False, True, False, True])).tolist() == [0, 3, 5]
    assert cache.update(*states(3, 1, generator), 0)[0].shape == (3, HEADS, 3, WIDTH)
    assert not cache.layers[1].is_initialized
