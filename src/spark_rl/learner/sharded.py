"""The learner on several devices: torch's FSDP2 around the scorer.

Every rank is a process that makes the same calls with the same arguments, whole batches, and computes its part of a
plan (:mod:`.plan`). What is returned is the same on all ranks.

Weights lie in float32 shards, one unit a decoder layer and one for the rest: the embeddings, tied or not, the final
norm, and what sees, which not every rank needs at a time. Where the model is in bfloat16, a unit is gathered in
bfloat16 for its computation, and gradients are added up in float32. A trained weight costs 16 bytes, divided by the
ranks (itself 4, its gradient 4, AdamW's moments 8); a frozen one costs what it did.

Departures from :class:`.local.LocalLearner`: the gradient is the sum of the ranks' and rounds otherwise; weights that a
model in bfloat16 keeps in float32 (adapters, some norms) compute in bfloat16 too; each rank drops inputs of adapters by
a random stream of its own, so another number of ranks trains with other drops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from spark_rl.config import Config
from spark_rl.errors import ConfigError
from spark_rl.learner.clipping import clip, squared_norm
from spark_rl.learner.handout import hand_out
from spark_rl.learner.mismatch import Mismatch
from spark_rl.learner.plan import Batch, plan_ranks
from spark_rl.learner.policy import PolicyLearner, first_not_finite
from spark_rl.learner.samples import Sample
from spark_rl.learner.shards import begin_save, restore
from spark_rl.model.loaded import LoadedModel
from spark_rl.model.prefill import Vision
from spark_rl.model.score import Rows, Scorer, seen_share
from spark_rl.model.stream import write_adapters, write_model
from spark_rl.model.weights import ModelWeights
from spark_rl.problem import Group


class ShardedLearner(PolicyLearner):
    """Trains one model together with the other ranks of ``torch.distributed``, which is initialised."""

    divisible = False

    def __init__(
        self,
        loaded: LoadedModel,
        config: Config,
        reference: LoadedModel | None = None,
        vision_of: Callable[[Group], Vision] | None = None,
    ) -> None:
        """Divide a model among the ranks: each has loaded the same, or the first has loaded it for all
        (:func:`.handout.load_on_first_rank`).

        Args:
            loaded: the model to train; its weights become shards.
            config: the run's configuration.
            reference: pi_ref of Eq. 4, which is divided too.
            vision_of: what the processor made of a group's images, asked only for groups that this rank computes; by
                default ``Group.vision``.

        Raises:
            ValueError: a KL term without anything to compare with.
            ConfigError: this torch can't train a part that only some ranks use.
        """
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        super().__init__(loaded, config, reference)
        self.vision_of = vision_of
        self.dtype: torch.dtype = loaded.causal_lm.dtype
        self.images = frozenset() if loaded.banned is None else frozenset(loaded.banned.tolist())
        """Tokens that stand for images."""
        self.group = dist.new_group(backend="gloo")
        """For checkpoints, which are agreed on beside the training."""
        mesh = init_device_mesh(loaded.device.type, (self.ranks,))
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        offload = config.learner.offload
        shard(self.scorer, mesh, self.dtype, offload=offload)
        if self.reference is not None:
            self.reference.requires_grad_(False)  # so its root lies gathered only while it is asked
            shard(self.reference, mesh, self.dtype, offload=offload)
        self.names = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
        self.parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self.half = self.dtype != torch.float32
        self.seeing = [p for p in _seeing(loaded) if p.requires_grad]
        if self.seeing:
            _reduce_unused(self.scorer)
            _same_order(loaded)
        self.optimiser = self._adamw(self.parameters)
        self.saw = False
        """Whether a prompt with images was in the step that is under way."""

    def _batches(self, samples: Sequence[Sample]) -> Sequence[Batch]:
        self.saw = any(not self.images.isdisjoint(s.prompt_ids) for s in samples) if self.seeing else False
        return plan_ranks(
            [s.group for s in samples], [len(s.prompt_ids) for s in samples], [len(s.token_ids) for s in samples],
            self.micro_tokens, self.ranks, seen_share(self.loaded),
        )[self.rank]  # fmt: skip

    def _vision(self, sample: Sample) -> Vision:
        if self.vision_of is None or sample.source is None:
            return sample.vision
        return self.vision_of(sample.source)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _advance(self) -> float:
        if not self.saw:  # zeros, where one process has no gradient and makes no step
            for parameter in self.seeing:
                parameter.grad = None
        shards = [_shard_of(p.grad) for p in self.parameters if p.grad is not None]
        squares = torch.tensor([squared_norm(shards)], dtype=torch.float64)
        norm = math.sqrt(float(self._reduced(squares, dist.ReduceOp.SUM)))
        if math.isfinite(norm):
            clip(shards, norm, self.config.optimiser.clip)
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _summed(self, metrics: dict[str, float]) -> dict[str, float]:
        sums = self._reduced(torch.tensor(list(metrics.values()), dtype=torch.float64), dist.ReduceOp.SUM)
        return dict(zip(metrics, sums.tolist(), strict=True))

    def _summed_mismatch(self, mismatch: Mismatch) -> Mismatch:
        sums = torch.tensor([mismatch.tokens, mismatch.kl], dtype=torch.float64)
        tokens, kl = self._reduced(sums, dist.ReduceOp.SUM).tolist()
        largest = self._reduced(torch.tensor([mismatch.largest], dtype=torch.float64), dist.ReduceOp.MAX)
        return Mismatch(int(tokens), kl, float(largest))

    def _shared(self, found: list[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        self._reshard()
        shared = torch.zeros(sum(lengths), dtype=torch.float32, device=self.loaded.device)
        pieces = list(torch.split(shared, list(lengths)))
        for piece, own in zip(pieces, found, strict=True):
            if len(own):
                piece.copy_(own)
        dist.all_reduce(shared)
        return pieces

    def _reference_logprobs(self, rows: Rows) -> Tensor:
        found = super()._reference_logprobs(rows)
        self._reshard()
        return found

    def _reshard(self) -> None:
        """Let go of what a pass without gradients leaves gathered, which weights that change would not reach."""
        root: Any = self.scorer
        root.reshard()

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        """peft's own switch also says that adapters need no gradient, which FSDP2 remembers of a unit's first call."""
        layers: list[Any] = [m for m in self.loaded.model.modules() if isinstance(m, BaseTunerLayer)]
        before = [layer._disable_adapters for layer in layers]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, value in zip(layers, before, strict=True):
                layer._disable_adapters = value

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        """(N,) over all ranks, on the CPU."""
        values = values.to(self.loaded.device)
        dist.all_reduce(values, how)
        return values.cpu()

    def weights(self) -> ModelWeights:
        """The weights as they are now, whole on every rank: all ranks ask for them in step."""
        return ModelWeights(self.loaded.model, self.updates, self.dtype)

    def not_finite(self) -> str | None:
        """Like that of one process; each rank looks at its shards, in the number format of the model, and all ranks
        call it."""
        named = list(self.loaded.model.named_parameters())
        found = first_not_finite((name, _shard_of(p.detach()).to(self.dtype)) for name, p in named)
        place = torch.tensor([len(named) if found is None else found[0]])
        first = int(self._reduced(place, dist.ReduceOp.MIN))
        return None if first == len(named) else named[first][0]

    def save(self, path: Path) -> None:
        """``model/``, and what :mod:`.shards` writes: moments, where the schedule is, float32 weights of a model in
        half precision. ``path`` is a place that all ranks see.
        """
        self.begin_save(path)()
        dist.barrier()

    def begin_save(self, path: Path) -> Callable[[], None]:
        """Write ``model/`` and begin to write the rest, several times as much, from a copy: training goes on meanwhile.

        What is returned waits for the end, in whatever thread; on rank 0, for that of all ranks.
        """
        self.export(path / "model")
        schedule = {"updates": self.updates, "warm": self.warm}
        return begin_save(path, self._named(), self.optimiser, schedule, self.group, weights=self.half)

    def load(self, path: Path) -> None:
        """The inverse of :meth:`save` for everything but ``model/``, which the learner was made with; any number of
        ranks may have saved it, or one process without ranks.
        """
        self.updates, self.warm = restore(path, self._named(), self.optimiser, self.group, weights=self.half)
        self._reshard()

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(zip(self.names, self.parameters, strict=True))

    def export(self, path: Path) -> None:
        """See :func:`spark_rl.model.stream.write_model`."""
        if self.loaded.adapted:
            write_adapters(self.loaded, path)
        else:
            write_model(self.loaded, self.weights(), path)


def shard(scorer: Scorer, mesh: DeviceMesh, dtype: torch.dtype, *, offload: bool) -> None:
    """Divide the parameters of a scorer among the ranks of a mesh, in place: one unit a decoder layer, one for the
    rest, which is gathered as long as one micro-batch lasts.

    Args:
        scorer: made on each rank of the same weights, or of those that the first rank holds.
        mesh: of one dimension.
        dtype: what it computes in.
        offload: whether shards lie in the memory of the CPU.
    """
    precision = MixedPrecisionPolicy()
    if dtype != torch.float32:
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    on_gpu = mesh.device_type != "cpu"
    policy = CPUOffloadPolicy(pin_memory=on_gpu) if offload else OffloadPolicy()
    trained = any(p.requires_grad for p in scorer.parameters())
    for unit in [*divided_layers(scorer.loaded), scorer]:
        keep = unit is scorer and trained
        fully_shard(unit, mesh=mesh, mp_policy=precision, offload_policy=policy, reshard_after_forward=not keep)
        assert isinstance(unit, FSDPModule), "fully_shard makes it one"
        unit.set_gradient_divide_factor(1.0)  # gradients are added up, not averaged
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other sum
    if scorer.loaded.held is not None:
        hand_out(scorer, offload=offload)


def divided_layers(loaded: LoadedModel) -> list[nn.Module]:
    """The layers of the language model; those of what sees are left out, which not every micro-batch calls."""
    text: nn.Module = loaded.causal_lm.get_decoder()
    found: list[nn.Module] = []
    for name, module in text.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and name:
            found.append(module)
    inner = {id(m) for layer in found for m in layer.modules() if m is not layer}
    return [layer for layer in found if id(layer) not in inner]


def _seeing(loaded: LoadedModel) -> list[nn.Parameter]:
    """What no prompt without images uses."""
    causal_lm = loaded.causal_lm
    if loaded.processor is None:
        return []
    text = {id(p) for m in (causal_lm.get_decoder(), causal_lm.get_output_embeddings()) for p in m.parameters()}
    return [p for p in causal_lm.parameters() if id(p) not in text]


def _reduce_unused(root: Any) -> None:
    """Let ranks that use a part of a unit and ranks that don't add up the same gradients.

    Raises:
        ConfigError: this torch can't.
    """
    if not hasattr(root, "set_reduce_scatter_unused_params"):
        raise ConfigError(f"model.freeze leaves what sees to be trained, which torch {torch.__version__} can't on "
                          "several ranks; use torch 2.13, or model.freeze=[vision,projector]")  # fmt: skip
    root.set_reduce_scatter_unused_params(True, recurse=False)


def _same_order(loaded: LoadedModel) -> None:
    """Let ranks without images add up the gradients of the first layer where those with images do.

    FSDP2 adds up a unit's when the gradient of its input is there, or at the end. Where the embeddings are frozen, as
    with adapters, the input of the first layer has a gradient only in a micro-batch with images that is trained.
    """

    def with_gradient(_: object, __: object, found: Tensor) -> Tensor:
        if found.requires_grad or not torch.is_grad_enabled():
            return found
        return found.detach().requires_grad_().view_as(found)  # no leaf: some models write images into it

    loaded.causal_lm.get_input_embeddings().register_forward_hook(with_gradient)


def _shard_of(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
