"""Engines: prompts in, sampled completions out.

:mod:`.base` is the contract. :mod:`.embedded` decodes on the learner's weights (:mod:`.attention` makes that fast on
CPUs), :mod:`.vllm` holds a copy of its own (:mod:`.probe` compares such an engine with the learner), :mod:`.openai`
asks a server (:mod:`.endpoint`, :mod:`.dialect`, :mod:`.refusals`).
"""
