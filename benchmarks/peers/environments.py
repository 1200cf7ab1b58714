"""The virtual environment of each peer, made once; the toolkit itself neither needs nor imports them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from data.terms import InputError

PACKAGES = {"yasa": ("yasa==0.7.0",), "gssc": ("gssc==0.0.9", "torch==2.13.0")}
"""What each is installed from, with what these need; the weights are in the packages."""
READY = "ready.txt"
"""Says, in a finished environment, what it was made of."""


def python_of(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of the environment in ``folder``, which is made where it is absent, unfinished or of other packages.

    Raises:
        InputError: ``folder`` holds something else, or the packages cannot be installed.
    """
    python, ready = folder.absolute() / "bin" / "python", folder / READY
    if ready.is_file() and ready.read_text().split() == list(packages):
        return python
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise InputError(f"{folder} holds no virtual environment: name another folder with --environments.")
    print(f"{folder}: an environment with {' and '.join(packages)} is being made, once; some minutes.", flush=True)
    ready.unlink(missing_ok=True)
    made = [sys.executable, "-m", "venv", "--clear", str(folder)]
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *packages]
    if any(subprocess.run(command).returncode for command in (made, install)):
        raise InputError(f"{folder}: {' and '.join(packages)} cannot be installed, as said above: check the network.")
    ready.write_text("\n".join(packages))
    return python
