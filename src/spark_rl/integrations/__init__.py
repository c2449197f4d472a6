"""SPARK inside other people's trainers: what they call at the end of a rollout becomes recycled problems.

Each is a package of its own and imports the library it extends, which is never needed elsewhere.
"""
