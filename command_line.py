"""What the commands share: arguments, and mistakes told in one sentence."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from data.databases import Database
from data.terms import InputError

if TYPE_CHECKING:
    from staging.recordings import Source

SUBJECTS = "text file with a subject's number, or a night's or recording's name, on each line: these subjects alone"
"""Help of the option ``--subjects``."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {InputError(f'{message} (see --help)')}\n")


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that spread the work on ``what``."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=f"{what} worked on side by side (default 1)")
    scheduler = f"Dask scheduler to send {what} to, such as tcp://scheduler:8786"
    parser.add_argument("--cluster", metavar="ADDRESS", help=scheduler)


def check_workers(arguments: argparse.Namespace) -> None:
    """Refuse what :func:`add_workers`'s options cannot mean."""
    if not 1 <= arguments.jobs <= 1024:
        raise InputError(f"--jobs {arguments.jobs}: a number of processes is wanted, 1 or above.")
    if arguments.jobs > 1 and arguments.cluster:
        raise InputError("--jobs counts processes of this machine, --cluster uses others: give one of them.")


def add_recordings(add: Callable[..., Any], required: bool = False) -> None:
    """Add the options that name recordings and the folder of their results, and what is done with finished ones."""
    recordings = (
        "recordings in any format that MNE reads, or night files; folders of them, or patterns, local or remote"
    )
    add("--recording", nargs="+", required=required, metavar="FILE", help=recordings)
    add("--out", metavar="DIR", help="folder of the results, local or remote (default results)")
    add("--overwrite", action="store_true", help="work on finished recordings again")


def recordings_and_folders(arguments: argparse.Namespace) -> tuple[list["Source"], Path, Path]:
    """The recordings, the folder of models and that of results, as other machines know them if they do the work.

    ``arguments`` hold those of :func:`add_recordings`, of :func:`add_workers`, and ``dir``.

    Raises:
        InputError: a recording is nowhere, or the results cannot be written.
    """
    check_workers(arguments)
    from data.store import anywhere, location
    from data.writing import require_writable
    from staging.recordings import find_recordings

    folder, trained = location(arguments.out or "results"), arguments.dir
    sources = find_recordings(arguments.recording)
    require_writable(folder)
    if arguments.cluster:
        folder, trained = anywhere(folder), anywhere(trained)
        sources = [replace(source, path=anywhere(source.path)) for source in sources]
    return sources, trained, folder


def print_published(spec: Database, tasks: Collection[str]) -> None:
    """Print published results on a database for some tasks, to compare ours with."""
    for result in spec.published:
        if result.task in tasks:
            task = "" if result.task == "sleep_stage" else f", {result.task}"
            about = f" ({result.about})" if result.about else ""
            figures = f"accuracy {result.accuracy:.3f}"
            figures += "" if result.macro_f1 is None else f"   macro-F1 {result.macro_f1:.3f}"
            figures += "" if result.kappa is None else f"   kappa {result.kappa:.2f}"
            print(f"published on {spec.title}{task}, {result.model}{about}: {figures}")


TEMPORARY = "recsleep-"
"""How the names of the commands' temporary folders begin."""


@contextmanager
def _temporary_folder() -> Iterator[None]:
    """Let this command and its processes keep temporary files in a folder of their own, which goes with the command.

    Those of commands that were killed go too.
    """
    from data.writing import alone_in

    for left in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError, InputError):
            about = left.lstat()
            # A command that begins this minute may not have taken its folder yet.
            if left.is_dir() and not left.is_symlink() and about.st_uid == os.getuid() and _age(about) > 60:
                with alone_in(left):
                    shutil.rmtree(left, ignore_errors=True)
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, ignore_cleanup_errors=True) as folder, alone_in(Path(folder)):
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            del os.environ["TMPDIR"]
            if variable is not None:
                os.environ["TMPDIR"] = variable


def _age(file: os.stat_result) -> float:
    return time.time() - file.st_mtime


def _open_streams() -> None:
    """Lead to nowhere those of the three standard streams that are closed: files would be opened in their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))


def run(command: Callable[[], int | None], prog: str) -> int:
    """Run ``command`` and return an exit code: its own or 0, 2 after a user's mistake, 130 after Ctrl-C or SIGTERM."""
    _open_streams()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Else the first process takes all memory of a GPU, and none is left for the processes beside it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # A file's name may hold bytes that are no text.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _temporary_folder():
            return command() or 0
    except InputError as error:
        mistake = str(error)
    except ValueError as error:
        # What a field of config.py refuses; the library that checks it is not imported for a command without it.
        if type(error).__name__ != "ValidationError":
            raise
        first = error.errors()[0]  # type: ignore[attr-defined]
        where = f"{error.title}: {'.'.join(map(str, first['loc']))}"  # type: ignore[attr-defined]
        mistake = f"config.py, {where} = {first.get('input')!r}: {first['msg']}."
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough; nothing may be flushed to it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        mistake = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    except MemoryError:
        mistake = "there is too little memory: end other programs, or raise the limit."
    except ImportError as error:
        # What the loader says of a library that finds no room.
        if not any(sign in str(error) for sign in ("failed to map segment", "cannot allocate memory")):
            raise
        mistake = (
            f"there is too little memory to load {error.name or 'a library'}: end other programs, or raise the limit."
        )
    except KeyboardInterrupt:
        print(f"{prog}: stopped; give the same command again to go on.", file=sys.stderr)
        return 130
    print(f"{prog}: error: {InputError(mistake)}", file=sys.stderr)
    return 2
