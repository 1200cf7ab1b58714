"""How many hostile inputs the tests try: a few, or by ``python -m benchmarks.hostile`` many."""

from hypothesis import settings

settings.register_profile("many", max_examples=200)
