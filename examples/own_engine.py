"""An engine of your own: transformers' ``generate`` on a copy of the weights, taken over after every update.

    spark-rl train engine.name=examples/own_engine.py:TransformersEngine train.steps=2

It is slow, and shows all that an engine must do: sample, say the log-probability of each token under the distribution
that it was sampled from, and take over weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM

from spark_rl import Completion, Config
from spark_rl.chat import ChatFormat, Prompt
from spark_rl.engine.base import Sampling
from spark_rl.model.places import find_model
from spark_rl.model.weights import Weights


class TransformersEngine:
    """Holds a model of its own, with the names and shapes of the trained one."""

    def __init__(self, config: Config, chat: ChatFormat) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(find_model(config.model.path), dtype=config.model.dtype)
        self.chat, self.version = chat, 0
        self.ends = sorted(chat.eos_ids(self.model.generation_config))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        torch.manual_seed(sampling.seed)
        return [self._group(torch.tensor([prompt.token_ids]), sampling) for prompt in prompts]

    def _group(self, prompt_1S: torch.Tensor, sampling: Sampling) -> list[Completion]:
        greedy = sampling.temperature == 0
        how = {} if greedy else {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        found = self.model.generate(
            prompt_1S, attention_mask=torch.ones_like(prompt_1S), do_sample=not greedy, eos_token_id=self.ends,
            max_new_tokens=sampling.max_new_tokens, num_return_sequences=1 if greedy else sampling.n,
            pad_token_id=self.ends[0], return_dict_in_generate=True, output_logits=True, **how,
        )  # fmt: skip
        logits_TBV = torch.stack(found.logits) / (1.0 if greedy else sampling.temperature)
        tokens_BT = found.sequences[:, prompt_1S.shape[1] :]
        logp_BT = logits_TBV.float().log_softmax(-1).transpose(0, 1).gather(-1, tokens_BT[..., None])[..., 0]
        group = [self._completion(ids, logp) for ids, logp in zip(tokens_BT.tolist(), logp_BT.tolist(), strict=True)]
        return group * (sampling.n if greedy else 1)

    def _completion(self, ids: list[int], logp: list[float]) -> Completion:
        end = next((place + 1 for place, token in enumerate(ids) if token in self.ends), len(ids))
        finish = "stop" if ids[end - 1] in self.ends else "length"
        return Completion(
            self.chat.decode(ids[:end]), tuple(ids[:end]), tuple(logp[:end]), finish, version=self.version
        )

    def sync(self, weights: Weights) -> None:
        missing, unknown = self.model.load_state_dict({name: t.clone() for name, t in weights.named()}, strict=False)
        assert not unknown, unknown
        assert set(missing) <= set(self.model.all_tied_weights_keys), missing
        self.version = weights.version

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...
