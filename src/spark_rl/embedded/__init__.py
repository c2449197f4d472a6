"""The two tiny bases that ship with the package: their weights, and how they were made.

``text/`` and ``vision/`` hold the weights. :mod:`.build` and :mod:`.build_vision` made them from random numbers, on the
texts of :mod:`.demonstrations` and the pictures of :mod:`.tile_demonstrations`.
"""
