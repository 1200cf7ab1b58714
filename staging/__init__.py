"""Recordings to results: hypnogram, statistics, pictures and a page of each, and a table of all."""
