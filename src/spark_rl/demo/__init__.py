"""``spark-rl demo``: a page in the browser on which a model answers, judges and reflects (the extra ``demo``).

``ask`` asks models and knows no page, ``cards`` writes what they said as safe HTML, ``page`` is the one importer of
Gradio, ``limits`` stands before it.
"""
