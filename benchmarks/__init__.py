"""One script a question; each prints a table with the machine, the median and the ratio."""

import data  # noqa: F401 - before TensorFlow
