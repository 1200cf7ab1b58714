"""Night files: the record, its two forms, which were checked, and which subjects train, validate and test."""
