"""What the commands share: arguments, and mistakes told in one sentence."""

import argparse
import os
import sys
from collections.abc import Callable

from config import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage text."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def run(command: Callable[[], None], prog: str) -> int:
    """Run ``command`` and return an exit code: 0, or 2 after a user's mistake, 130 after Ctrl-C."""
    # TensorFlow's start-up notes are nothing a user can act on.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        command()
    except InputError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{prog}: error: {where}{error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: stopped; give the same command again to go on.", file=sys.stderr)
        return 130
    return 0
