"""A rehearsal of one rank: the update of :class:`spark_rl.learner.sharded.ShardedLearner`, with stand-ins for what
torch's FSDP2 allocates.

The process group, and with it FSDP2, is left out. Its hooks are written again here, in its order
(``torch/distributed/fsdp/_fully_shard``: ``_fsdp_state.py``, ``_fsdp_param_group.py``, ``_fsdp_collectives.py``), with
tensors without data of the sizes that it allocates. What lies in shards between updates is arithmetic
(:mod:`spark_rl.plan.memory`); the rest is counted at the moment at which it is there:

- *gathering* a unit takes a flat buffer of its size, then its weights are copied out of it, another time its size. In
  a forward pass the buffer stays until the next unit is gathered; in a backward pass it is freed, and the one of the
  unit that comes next is filled already. The calls are the same on a CPU, so its ranks hold it too.
- *gradients* of a unit are whole until its backward pass ends. They are copied into a float32 buffer, which stays until
  the next unit's gradients are ready, and their sum into shards. Those of the root wait for the end of the micro-batch.
- *gloo* copies what it gathers and what it adds up, whole, while it does; NCCL does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spark_rl.config import Config
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.plan import Batch, plan_ranks
from spark_rl.learner.samples import Sample, to_samples
from spark_rl.learner.sharded import divided_layers
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.score import Rows, Scorer, seen_share
from spark_rl.plan.rehearse import Rehearsal, Rehearsed
from spark_rl.plan.shape import has_reference, without_data
from spark_rl.problem import Group

MICRO_BATCHES = 2
"""The largest ones of a rank are rehearsed: from the second on there are gradients beside the activations."""


@dataclass(slots=True)
class Traffic:
    """What the units of one root share."""

    rehearsal: Rehearsal
    ranks: int
    gloo: bool
    """Whether gloo sends, which copies."""
    offload: bool
    """Whether shards lie elsewhere."""
    dtype: torch.dtype
    """What units are gathered in."""
    behind: Tensor | None = None
    """The buffer of the unit that a forward pass gathered last."""
    sent: Tensor | None = None
    """The gradients that were added up last."""
    order: list[Unit] = field(default_factory=list)
    """Units in the order of their forward passes since the last backward pass."""

    def hold(self, numbers: int, dtype: torch.dtype, part: str = "gathered") -> Tensor:
        """A stand-in."""
        with self.rehearsal.making(part):
            return torch.empty(numbers, dtype=dtype, device="meta")

    def pass_through(self, numbers: int, dtype: torch.dtype) -> None:
        """What the backend holds while it sends so many numbers."""
        if self.gloo:
            self.hold(numbers, dtype)


class Unit:
    """What is gathered and let go of together."""

    def __init__(self, module: nn.Module, parameters: Sequence[nn.Parameter], traffic: Traffic, *, stays: bool) -> None:
        """Hook into the passes of a module.

        Args:
            module: of which the parameters are, or some of them.
            parameters: of this unit alone.
            traffic: of its root.
            stays: whether it stays gathered until the backward pass is over.
        """
        self.traffic, self.stays, self.parameters = traffic, stays, list(parameters)
        self.trained = [p for p in parameters if p.requires_grad]
        self.numbers = sum(p.numel() for p in parameters)
        self.buffer: Tensor | None = None
        """Gathered, and not copied out yet."""
        self.whole: Tensor | None = None
        self.shards: Tensor | None = None
        """The gradients of this rank's part."""
        self.backward = self.reduced = False
        """Where it is: within its backward pass, and behind it."""
        self.places: list[int] = []
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._whole_gradient)  # type: ignore[no-untyped-call]
        module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
        module.register_forward_hook(self._after)

    def _whole_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None, "torch calls this when there is one"
        self.traffic.rehearsal.assign(parameter.grad, "gathered")

    def gather(self) -> None:
        """Fill the buffer."""
        if self.buffer is None and self.whole is None and self.numbers:
            traffic, part = self.traffic, -(-self.numbers // self.traffic.ranks)
            moved = traffic.offload or traffic.dtype != torch.float32
            own = traffic.hold(part * moved, traffic.dtype)  # cast, or brought here
            self.buffer = traffic.hold(self.numbers, traffic.dtype)
            traffic.pass_through(self.numbers, traffic.dtype)
            del own

    def copy_out(self, *, forward: bool) -> None:
        """Weights, from the buffer."""
        if self.buffer is None:
            return
        if forward:
            self.traffic.behind = None
        self.whole = self.traffic.hold(self.numbers, self.traffic.dtype)
        if forward:
            self.traffic.behind = self.buffer
        self.buffer = None

    def let_go(self) -> None:
        """Of the weights."""
        self.whole = None

    def _before(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.backward = self.reduced = False
        self.gather()
        self.copy_out(forward=True)
        if torch.is_grad_enabled():
            args = tuple(self._marked(value) for value in args)
            kwargs = {name: self._marked(value) for name, value in kwargs.items()}
        return args, kwargs

    def _marked(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.requires_grad:
            return _Behind.apply(self, value)  # type: ignore[no-untyped-call]
        return value

    def _after(self, _module: nn.Module, _args: tuple[Any, ...], out: Any) -> None:
        if not self.stays:
            self.let_go()
        self.places.append(len(self.traffic.order))
        self.traffic.order.append(self)
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
                value.register_hook(self._begin_backward)  # type: ignore[no-untyped-call]

    def _begin_backward(self, _gradient: Tensor) -> None:
        if self.backward:
            return
        self.backward, self.reduced = True, False
        self.gather()
        self.copy_out(forward=False)
        if self.places and (place := self.places.pop()):
            self.traffic.order[place - 1].gather()

    def reduce(self) -> None:
        """The backward pass is over."""
        self.backward, self.reduced, traffic = False, True, self.traffic
        self.let_go()
        traffic.sent = None
        used = [p for p in self.trained if p.grad is not None]
        numbers = sum(p.numel() for p in used)
        if not numbers:
            return
        traffic.sent = traffic.hold(numbers, torch.float32)
        for parameter in used:
            parameter.grad = None
        shards = traffic.hold(-(-numbers // traffic.ranks), torch.float32, "gradients")
        traffic.pass_through(numbers, torch.float32)
        if self.shards is None and not traffic.offload:
            self.shards = shards


class _Behind(torch.autograd.Function):
    """Says when the gradient of a unit's input is known, which is the last of its backward pass."""

    @staticmethod
    def forward(ctx: Any, unit: Unit, value: Tensor) -> Tensor:
        ctx.unit = unit
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        ctx.unit.reduce()
        return None, gradient


class Units:
    """All units of a scorer, the root last."""

    def __init__(self, scorer: Scorer, traffic: Traffic) -> None:
        """As :func:`spark_rl.learner.sharded.shard` divides it."""
        self.traffic = traffic
        for parameter in scorer.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(traffic.dtype)
        taken: set[int] = set()
        self.all: list[Unit] = []
        trained = any(p.requires_grad for p in scorer.parameters())
        for module in (*divided_layers(scorer.loaded), scorer):
            own = [p for p in module.parameters() if id(p) not in taken]
            taken |= {id(p) for p in own}
            self.all.append(Unit(module, own, traffic, stays=module is scorer and trained))
        scorer.register_forward_hook(self._end_forward)

    def _end_forward(self, *_: object) -> None:
        self.traffic.behind = None

    @property
    def root(self) -> Unit:
        """Everything outside the layers."""
        return self.all[-1]

    def end_backward(self) -> None:
        """What FSDP2 does when all gradients of a micro-batch are there."""
        for unit in (self.root, *self.all[:-1]):
            if not unit.reduced:
                unit.reduce()
            unit.buffer, unit.backward = None, False
            unit.places.clear()
        self.traffic.sent = None
        self.traffic.order.clear()


class Rank(LocalLearner):
    """The learner of one rank on tensors without data. Weights in shards and AdamW's moments are not among them."""

    def __init__(
        self, loaded: LoadedModel, config: Config, reference: LoadedModel | None, rehearsal: Rehearsal, ranks: int,
        *, gloo: bool,
    ) -> None:  # fmt: skip
        """Prepare a model as one of ``ranks``; ``gloo`` sends, or NCCL."""
        super().__init__(loaded, config, reference)
        self.masters, self.ranks = [], ranks
        self.optimiser = self._adamw([nn.Parameter(torch.zeros(1))])  # which is asked for nothing
        self.rows = 0
        """Responses of the micro-batches that were computed last."""

        def divide(scorer: Scorer) -> Units:
            traffic = Traffic(rehearsal, ranks, gloo, config.learner.offload, loaded.causal_lm.dtype)
            return Units(scorer, traffic)

        self.units = divide(self.scorer)
        if self.reference is not None:
            self.reference.requires_grad_(False)
            divide(self.reference)

    def look(self, groups: Sequence[Group]) -> None:
        """Log-probabilities without gradients."""
        self._logprobs(to_samples(groups, self.config)[0])

    def _batches(self, samples: Sequence[Sample]) -> Sequence[Batch]:
        planned = plan_ranks(
            [s.group for s in samples], [len(s.prompt_ids) for s in samples], [len(s.token_ids) for s in samples],
            self.config.learner.micro_tokens, self.ranks, seen_share(self.loaded),
        )[0][:MICRO_BATCHES]  # fmt: skip
        self.rows = sum(len(batch.rows) for batch in planned)
        return planned

    def _shared(self, found: list[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        self.units.root.let_go()
        self.units.traffic.order.clear()
        return found

    def _reference_logprobs(self, rows: Rows) -> Tensor:
        found = super()._reference_logprobs(rows)
        self.units.root.let_go()
        return found

    def _backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.units.end_backward()

    def _advance(self) -> float:
        largest = max((p.numel() for p in self.parameters), default=0) * (not self.config.learner.offload)
        with self.units.traffic.rehearsal.making("activations"):
            step = torch.empty(2, -(-largest // self.ranks), device="meta")  # AdamW's: a root, and that divided
        del step
        for unit in self.units.all:
            unit.shards = None
        return 0.0


def rehearse_rank(found: Any, config: Config, groups: Sequence[Group], ranks: int, *, gloo: bool) -> Rehearsed:
    """The largest micro-batches of one rank, beside what it holds in shards.

    Args:
        found: the model's configuration.
        config: of the run.
        groups: what all ranks train on in one optimiser step.
        ranks: how many.
        gloo: whether gloo sends, or NCCL.
    """
    learner_config = config.learner.model_copy(update={"minibatches": 1, "epochs": 1})
    config = config.model_copy(update={"learner": learner_config})
    loaded = without_data(found, config)
    reference = without_data(found, config, trained=False) if has_reference(config) else None
    rehearsal = Rehearsal(loaded.causal_lm.config.get_text_config().vocab_size)
    with rehearsal:
        learner = Rank(loaded, config, reference, rehearsal, ranks, gloo=gloo)
        held = rehearsal.live
        rehearsal.restart()
        learner.look(groups)
        per_row = rehearsal.flops / learner.rows
        passing, forward = rehearsal.parts.get("gathered", 0), rehearsal.peak - held
        rehearsal.restart()
        learner.update(groups)
    flops = rehearsal.flops / learner.rows - per_row * (config.objective.kl > 0)
    gathered, gradients, logits = (rehearsal.parts.get(part, 0) for part in ("gathered", "gradients", "logits"))
    return Rehearsed(
        model=0, moments=0, reference=0, gradients=gradients, logits=logits, gathered=gathered, passing=passing,
        activations=rehearsal.peak - held - gathered - gradients - logits, forward=forward - passing,
        flops=flops * len(groups[0].rollouts),
    )  # fmt: skip
