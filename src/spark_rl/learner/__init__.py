"""Learners: groups of graded responses in, better weights out (Eq. 3 and 4).

:mod:`.base` is the contract; :mod:`.local` fulfils it on one device, :mod:`.sharded` on several.
"""
