"""Mutation testing of the money rooms: `python -m scripts.mutate`; see docs/mutation.md."""
