"""The folder of trained models: what is said where there is none, without a framework."""

from pathlib import Path

from data.terms import InputError

HOW_TO_GET_MODELS = (
    "fetch RecSleepNet's published ones with `make weights` or `python -m recsleep.weights [DB]`, "
    "or name another folder with --dir"
)


def require_models(folder: Path) -> None:
    """Raise InputError, which says how to get models, if there is no such ``folder``."""
    if not folder.is_dir():
        raise InputError(f"the folder of models {folder} does not exist: {HOW_TO_GET_MODELS}.")
