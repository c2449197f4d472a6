"""The puzzles of the embedded bases: :mod:`.missing` numbers, :mod:`.operators`, and numbers read from :mod:`.tiles`.

All are built on the :mod:`.chains` of small numbers, whose hash decides what is trained on and what is held out.
"""
