"""The rollout cache against a naive one that keeps every row's keys and values in a list and concatenates."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

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
    length=st.integers(1, 5),
    room=st.integers(0, 3),
    share=st.booleans(),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_fork_retire_and_grow_equal_a_naive_recomputation(
    prompts: int, copies: int, length: int, room: int, share: bool, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cache = RolloutCache(LAYERS)
    naive = []
    for layer in range(LAYERS):
        keys, values = states(prompts, length, generator)
        found = cache.update(keys, values, layer)
        assert all(torch.equal(a, b) for a, b in zip(found, (keys, values), strict=True))
        naive.append((keys.repeat_interleave(copies, 0), values.repeat_interleave(copies, 0)))
    cache.fork(copies, room, share)
    rows = prompts * copies
    for _ in range(data.draw(st.integers(1, 7))):
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
            cache.relay(drop, room)
            naive = [(keys[:, :, drop:], values[:, :, drop:]) for keys, values in naive]
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            cache.unshare(cache.length)
        for layer in range(LAYERS):
            new_keys, new_values = states(rows, 1, generator)
            naive[layer] = (torch.cat([naive[layer][0], new_keys], 2), torch.cat([naive[layer][1], new_values], 2))
            keys, values = with_prompts(cache.update(new_keys, new_values, layer))
            assert torch.equal(keys, naive[layer][0])
            assert torch.equal(values, naive[layer][1])
        assert cache.get_seq_length() == naive[0][0].shape[2]
        assert cache.get_mask_sizes(1, 0) == (cache.get_seq_length() + 1, 0)


def test_prompts_are_held_once_and_leave_with_their_rows() -> None:
    cache = RolloutCache(1)
    generator = torch.Generator().manual_seed(0)
    cache.update(*states(4, 10, generator), 0)
    cache.fork(8, 3, share=True)
    assert cache.positions == 4 * 10 + 32 * 3
    cache.retire(torch.arange(32) % 16 < 8)  # of the first prompt and the third all live, of the others none
    assert cache.places is not None
    assert (cache.places.prompts, cache.places.copies, cache.places.whole) == (2, 8, True)
    cache.retire(torch.arange(16) % 8 < 3)
    assert (cache.places.prompts, cache.places.copies) == (2, 3)
    new = RolloutCache(1)
    new.update(*states(1, 12, generator), 0)
    cache.relay(0, 1, new)
    assert cache.places is None
    assert cache.positions == (6 + 1) * (12 + 1), "who joins shares no prompt, and nobody does from then on"


def test_live_rows_stay_where_they_are_and_the_last_fill_the_holes() -> None:
    cache = RolloutCache(1)
    cache.update(torch.arange(6.0).view(6, 1, 1, 1), torch.arange(6.0).view(6, 1, 1, 1), 0)
    cache.fork(1, 1)
    order = cache.retire(torch.tensor([True, False, True, False, True, True]))
    assert order.tolist() == [0, 4, 2, 5]


def test_growing_happens_only_when_the_room_is_used_up() -> None:
    cache = RolloutCache(1)
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
    cache = RolloutCache(2)
    generator = torch.Generator().manual_seed(0)
    cache.update(*states(3, 2, generator), 0)
    cache.fork(2, 1)
    assert cache.retire(torch.tensor([True, False, False, True, False, True])).tolist() == [0, 3, 5]
    assert cache.update(*states(3, 1, generator), 0)[0].shape == (3, HEADS, 3, WIDTH)
    assert not cache.layers[1].is_initialized
