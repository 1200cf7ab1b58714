"""Night files: their contents, their two forms, their check, and which subjects train, validate and test."""
