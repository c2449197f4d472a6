"""A server in OpenAI's protocol for a model that answers, judges itself and reflects (Sec. 3.3 of the paper).

``protocol`` is what requests may hold, ``replies`` what goes back, ``asked`` how a model or another server is asked,
``guard`` what keeps strangers, floods and slow readers out, ``app`` the routes. FastAPI is imported by ``app`` alone.
"""
