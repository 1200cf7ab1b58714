"""Writing night files."""
