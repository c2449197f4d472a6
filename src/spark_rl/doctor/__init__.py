"""What this machine can run, found by looking and by trying, not by guessing.

:mod:`.finding`   one line of the doctor's table
:mod:`.machine`   ``spark-rl doctor``: software, hardware, sizes
:mod:`.gpu`       ``spark-rl doctor --gpu``: the parts below, one after the other, each guarded
:mod:`.card`      what the card is and how fast it multiplies
:mod:`.update`    the embedded default and half a billion weights: parity, gradients, learning, memory, speed
:mod:`.ranks`     a process group over all cards: all-reduce and FSDP2
:mod:`.sharded`   the sharded learner beside the learner of one device
:mod:`.rollouts`  vLLM: generate, sleep, wake, weights, parity
"""
