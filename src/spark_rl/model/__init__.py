"""The model: what engine and learner both stand on.

===================== ===============================================================================================
:mod:`.places`        where a model lies: a directory, a run, an embedded base, the hub
:mod:`.architecture`  which architectures run, told before and proven after loading
:mod:`.sizes`         tokenizer, embedding and lengths compared, before any weight is read
:mod:`.load`          a model by its name or path, or one that is in memory already
:mod:`.adapters`      low-rank adapters put into a model
:mod:`.read`          weights read so that none is missing or misread in silence
:mod:`.restore`       a model as a checkpoint holds it, and a frozen copy of it
:mod:`.loaded`        the loaded model with its tokenizer: what engine and learner are given
:mod:`.vision`        processors and image tokens of models that see
:mod:`.prefill`       the pass over a prompt and its images, shared by all responses to it
:mod:`.cache`         the key-value cache that such a pass fills, forked into rows that decode
:mod:`.score`         log-probabilities of given responses
:mod:`.weights`       the weights under Hugging Face names: what passes from learner to engine
===================== ===============================================================================================
"""
