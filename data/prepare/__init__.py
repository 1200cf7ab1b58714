"""Raw recordings to night files: ``python -m data.prepare --help``."""
