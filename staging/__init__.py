"""Turn recordings into results: hypnogram, statistics, pictures and a page for each, and a table of all."""

import data  # noqa: F401 - before ONNX Runtime
