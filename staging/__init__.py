"""Turn recordings into results: hypnogram, statistics, pictures and a page for each, and a table of all."""
