"""A server in OpenAI's protocol for a model that answers, judges itself and reflects (Sec. 3.3 of the paper).

``app`` has the routes, and alone imports FastAPI; ``guard`` keeps strangers, floods and slow readers out; ``protocol``
is what requests may hold, ``replies`` what goes back, ``errors`` what goes back instead. A ``backend`` answers:
``embedded``, a model in this process, or ``upstream``, another server. ``reasoned`` and ``judging`` have either of them
judge and reflect.
"""
