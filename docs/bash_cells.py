"""How notebooks run their ``%%bash`` cells when the manual is built; the kernels start with this file.

IPython's own ``%%bash`` hands the output on in pieces of 100 bytes, which the manual would show as lines of their own,
and it goes on after a command that failed.
"""

import subprocess
import sys

from IPython import get_ipython


def bash(line: str, cell: str) -> None:
    """Run ``cell`` by bash with the options in ``line``; CalledProcessError where a command fails."""
    done = subprocess.run(["bash", "-e", *line.split()], input=cell, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    done.check_returncode()


get_ipython().register_magic_function(bash, "cell")
