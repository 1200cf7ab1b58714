"""How well and how fast do others stage the same nights? ``python -m benchmarks.peers``."""
