"""Learner and engines in processes of their own, placed by Ray: the only room that imports it.

``session`` starts or joins Ray, reserves the places and tells who died; ``learners`` and ``engines`` hold a proxy each,
which fulfils the contract of a learner or of an engine, and the worker it speaks to; ``stream`` carries weights from
one to the other.
"""
