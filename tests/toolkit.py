"""What the toolkit consists of: its packages and its commands, which are the modules with a function ``main``."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("data", "evaluation", "recsleep", "runs", "staging", "synth")

COMMANDS = [
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for folder in ("", *(f"{package}/**/" for package in PACKAGES))
    for path in sorted(PROJECT.glob(f"{folder}*.py"))
    if "\ndef main(" in path.read_text()
]
