r"""Stage 2 of RM-based RL: a scalar reward model from the base, trained on pairs (Bradley and Terry 1952; Ouyang et al.
2022, arXiv 2203.02155, Eq. 1): loss = -log sigmoid(r(q, right) - r(q, wrong)).

It is transformers' sequence classifier with one label: the base's decoder with its weights, and a new linear head on
the last token. It reads a chat of question and response that ends with the tokenizer's end token, in training and
later alike, so that the last token always is the same one.

Plain torch in place of a library: TRL's ``RewardTrainer`` (https://huggingface.co/docs/trl/reward_trainer) trains the
same model with the same loss on a data set of chats, to which it applies the chat template itself. It is no dependency
of this package, and its loop counts neither tokens nor seconds as those of the other stages are counted.

Shape suffixes: _B rows, _T tokens, _P pairs.

Departures from common practice: no margin, no centring of rewards, no dropout, a constant rate; trained in float32 and
then scored in ``model.dtype``. Pairs of one question may be in different batches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.cost.preferences import Pair
from spark_rl.errors import ConfigError
from spark_rl.model.loaded import LoadedModel
from spark_rl.problem import Problem
from spark_rl.seeds import stream_seed


@dataclass(frozen=True, slots=True)
class RewardTraining:
    """How the reward model is trained."""

    problems: int = 256
    """Training problems of which the base's responses become pairs."""
    epochs: int = 1
    """Passes over the pairs."""
    batch: int = 32
    """Pairs an update."""
    lr: float | None = None
    """Rate of AdamW; ``None`` is :data:`RATE` times ``optimiser.lr``."""


RATE = 10
"""The embedded base's reward model is as good from 3 to 10 times the policy's rate; a 7B recipe's is 5e-6 so."""
CLIP = 1.0
"""Norm of the gradient at most."""


def bradley_terry(right_P: Tensor, wrong_P: Tensor) -> Tensor:
    """(P,) scores of the right and of the wrong responses -> the mean loss. Equal scores give log 2."""
    return -logsigmoid(right_P - wrong_P).mean()


class RewardModel:
    """A scalar judge of responses, and a reward function (:mod:`spark_rl.rewards`) that counts what it costs."""

    def __init__(self, model: Any, chat: ChatFormat, micro_tokens: int) -> None:
        """Take a sequence classifier with one label over.

        Args:
            model: of transformers.
            chat: format of the base, whose tokens it reads.
            micro_tokens: padded tokens of one pass at most (``learner.micro_tokens``).
        """
        self.model, self.chat, self.micro_tokens = model, chat, micro_tokens
        self.tokens = 0
        """Read by :meth:`score` so far, without padding."""
        self.seconds = 0.0
        """That :meth:`score` took so far."""

    @property
    def weights(self) -> int:
        """Numbers of all weights."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    @property
    def multiplied(self) -> int:
        """Weights that each token is multiplied with: the linear ones, the head among them."""
        return sum(m.weight.numel() for m in self.model.modules() if isinstance(m, torch.nn.Linear))

    def rows(self, questions: Sequence[str], responses: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each response below its question."""
        asked = {q: self.chat.encode(Problem(id="", question=q, answer="")).token_ids for q in dict.fromkeys(questions)}
        tokenizer: Any = self.chat.tokenizer
        return [
            (*asked[question], *tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
            for question, response in zip(questions, responses, strict=True)
        ]

    def __call__(self, question: Sequence[str], completions: Sequence[str]) -> list[float]:
        """The reward of each completion, as ``reward.function`` takes it."""
        return self.score(question, completions)

    @torch.no_grad()
    def score(self, questions: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One number a response, the higher the better; only differences mean anything."""
        began = time.perf_counter()
        rows = self.rows(questions, responses)
        found = [0.0] * len(rows)
        for places in self._packed(rows):
            for place, value in zip(places, self._scores([rows[i] for i in places]).tolist(), strict=True):
                found[place] = value
        self.tokens += sum(map(len, rows))
        self.seconds += time.perf_counter() - began
        return found

    def fit(self, pairs: Sequence[Pair], training: RewardTraining, lr: float, seed: int) -> int:
        """Train on pairs; returns the tokens that it was trained on, without padding. The weights are float32."""
        right = self.rows([pair.question for pair in pairs], [pair.right for pair in pairs])
        wrong = self.rows([pair.question for pair in pairs], [pair.wrong for pair in pairs])
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.0, foreach=False)
        rng = random.Random(stream_seed(seed, "reward-model"))
        for _ in range(training.epochs):
            order = rng.sample(range(len(pairs)), len(pairs))
            for start in range(0, len(order), training.batch):
                batch = order[start : start + training.batch]
                both = [(*right[i], *wrong[i]) for i in batch]  # the two of a pair go together
                for places in self._packed(both):
                    chosen = [batch[place] for place in places]
                    right_P = self._scores([right[i] for i in chosen])
                    wrong_P = self._scores([wrong[i] for i in chosen])
                    loss: Any = bradley_terry(right_P, wrong_P) * len(chosen) / len(batch)
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        return training.epochs * sum(map(len, (*right, *wrong)))

    def save(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder."""
        self.model.save_pretrained(folder)

    def _scores(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(B,) float32 scores of rows of tokens, padded on the right."""
        width, pad, device = max(map(len, rows)), self.model.config.pad_token_id, self.model.device
        ids_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
        lengths_B = torch.tensor([len(row) for row in rows], device=device)
        mask_BT = (torch.arange(width, device=device) < lengths_B[:, None]).long()
        logits: Tensor = self.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        return logits[:, 0].float()

    def _packed(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of rows of like lengths, as many together as ``micro_tokens`` has room for, one at least."""
        together: list[int] = []
        for place in sorted(range(len(rows)), key=lambda i: (len(rows[i]), i)):
            if together and len(rows[place]) * (len(together) + 1) > self.micro_tokens:
                yield together
                together = []
            together.append(place)
        if together:
            yield together


def check_classifier(found: Any) -> None:
    """Whether transformers has a sequence classifier for a model's configuration; nothing is loaded.

    Raises:
        ConfigError: it has none.
    """
    if type(found) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ConfigError(f"transformers has no sequence classifier of the architecture {found.model_type!r}, so no "
                          "reward model can be made of model.path; choose another base")  # fmt: skip


def new_reward_model(loaded: LoadedModel, chat: ChatFormat, config: Config) -> RewardModel:
    """The base with a new head in place of its language head, in float32; the head is a function of the seed."""
    found = _classifier_config(loaded, chat)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "reward-head"))
        model = AutoModelForSequenceClassification.from_config(found, dtype=torch.float32)
    state = {name: weight.float() for name, weight in loaded.causal_lm.base_model.state_dict().items()}
    model.base_model.load_state_dict(state)
    return RewardModel(model.to(loaded.device).eval(), chat, config.learner.micro_tokens)


def load_reward_model(folder: Path, chat: ChatFormat, device: torch.device, config: Config) -> RewardModel:
    """The reward model of a folder, to score with, in ``model.dtype``."""
    dtype = getattr(torch, config.model.dtype)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    return RewardModel(model.to(device).eval(), chat, config.learner.micro_tokens)


def _classifier_config(loaded: LoadedModel, chat: ChatFormat) -> Any:
    """The base's configuration with one label, and a padding token by which the classifier finds the last real one."""
    found, tokenizer = deepcopy(loaded.causal_lm.config), chat.tokenizer
    found.num_labels = 1
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    found.pad_token_id = pad if pad not in {None, end} else int(end == 0)  # masked, so any token but the last will do
    return found
