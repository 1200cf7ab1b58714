"""What the commands share: their arguments, and how a user's mistake is reported in one sentence."""

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

SUBJECTS = (
    "use only the subjects in this text file; each line is a subject's number or the name of a night or recording"
)
"""Help of the option ``--subjects``."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {InputError(f'{message} (see --help)')}\n")


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that spread the work on ``what`` over processes or machines."""
    at_once = f"number of {what} to work on at the same time (default 1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=at_once)
    scheduler = f"work on the {what} on the machines of this Dask scheduler, such as tcp://scheduler:8786"
    parser.add_argument("--cluster", metavar="ADDRESS", help=scheduler)


def check_workers(arguments: argparse.Namespace) -> None:
    """Refuse impossible values of the options of :func:`add_workers`."""
    if not 1 <= arguments.jobs <= 1024:
        raise InputError(f"--jobs {arguments.jobs}: give a number of processes from 1 to 1024.")
    if arguments.jobs > 1 and arguments.cluster:
        raise InputError("--jobs uses this machine, --cluster uses other machines: give only one of them.")


def add_recordings(add: Callable[..., Any], required: bool = False) -> None:
    """Add the options that name recordings and the folder of their results, and what is done with finished ones."""
    recordings = (
        "recordings in any format that MNE reads, or night files: files, folders, or patterns such as nights/*.edf, "
        "local or remote"
    )
    add("--recording", nargs="+", required=required, metavar="FILE", help=recordings)
    add("--out", metavar="DIR", help="folder of the results, local or remote (default results)")
    add("--overwrite", action="store_true", help="work on recordings again that are already finished")


def recordings_and_folders(arguments: argparse.Namespace) -> tuple[list["Source"], Path, Path]:
    """The recordings, the folder of models, and the folder of results.

    With ``--cluster`` their paths are such as other machines can use. ``arguments`` hold the options of
    :func:`add_recordings` and of :func:`add_workers`, and ``dir``.

    Raises:
        InputError: a recording does not exist, or the results cannot be written.
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
    """Print the published results on a database for some tasks, to compare ours with."""
    for result in spec.published:
        if result.task in tasks:
            task = "" if result.task == "sleep_stage" else f", {result.task}"
            about = f" ({result.about})" if result.about else ""
            figures = f"accuracy {result.accuracy:.3f}"
            figures += "" if result.macro_f1 is None else f"   macro-F1 {result.macro_f1:.3f}"
            figures += "" if result.kappa is None else f"   kappa {result.kappa:.2f}"
            print(f"published on {spec.title}{task}, {result.model}{about}: {figures}")


TEMPORARY = "recsleep-"
"""The names of the commands' temporary folders begin with this."""


@contextmanager
def _temporary_folder() -> Iterator[None]:
    """Give this command and its processes a temporary folder of their own, which is deleted when the command ends.

    The temporary folders of commands that were killed are deleted too.
    """
    from data.writing import alone_in

    for left in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError, InputError):
            about = left.lstat()
            # A command that started within this minute may not have locked its folder yet.
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
    """Connect each closed standard stream to the null device: else the next opened file would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number, which is this one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))


def run(command: Callable[[], int | None], prog: str) -> int:
    """Run ``command`` and return the exit code: its own or 0, 2 after a user's mistake, 130 after Ctrl-C or SIGTERM."""
    _open_streams()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Otherwise the first process takes all memory of a GPU, and none is left for the other processes.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Each line is to be seen at once in a file or a pipe too, and a file's name may hold bytes that are not valid text.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        with _temporary_folder():
            return command() or 0
    except InputError as error:
        mistake = str(error)
    except ValueError as error:
        # A field of config.py was refused. Pydantic, which checks it, is not imported here: not every command needs it.
        if type(error).__name__ != "ValidationError":
            raise
        first = error.errors()[0]  # type: ignore[attr-defined]
        where = f"{error.title}: {'.'.join(map(str, first['loc']))}"  # type: ignore[attr-defined]
        mistake = f"config.py, {where} = {first.get('input')!r}: {first['msg']}."
    except BrokenPipeError:
        # The program that read the output, such as head, has ended: nothing may be flushed to it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        mistake = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    except MemoryError:
        mistake = "there is too little memory: close other programs, or raise the memory limit."
    except ImportError as error:
        # The loader says this when there is no memory for a library.
        if not any(sign in str(error) for sign in ("failed to map segment", "cannot allocate memory")):
            raise
        mistake = (
            f"there is too little memory to load {error.name or 'a library'}: close other programs, or raise the "
            "memory limit."
        )
    except KeyboardInterrupt:
        print(f"{prog}: stopped; run the same command again to continue.", file=sys.stderr)
        return 130
    print(f"{prog}: error: {InputError(mistake)}", file=sys.stderr)
    return 2
