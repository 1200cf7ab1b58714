"""Training in units of work that continues after it was killed: the state after each unit is kept in a folder."""

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from data.store import read_json
from data.terms import InputError
from data.writing import UNFINISHED, alone_in, new_folder, remove_unfinished, write_json, written_aside
from runs.budget import Cost, Enough, FirstUpdates
from runs.identity import require_same_run
from runs.machine import peak_memory
from runs.saved import METADATA, PROGRESS, read_metadata
from runs.settings import Config


class ResumableRun(ABC):
    """A training in units of work. The state is kept after each unit, so that a killed run continues with the next.

    Whatever is random in a unit must be drawn only from seeds and the unit's number: then a run that was killed and
    continued ends with the same weights as a run that was not. Of all judged units, the weights of the best are kept.

    Args:
        folder: the folder of the results and, until they are complete, of the state.
        title: the name of the run in messages, such as ``fold 3``.
        config: the configuration of the run.
        record: what is kept with the state to recognise the run: ``config`` and whatever else decides its result.
        bar: whether to show a progress bar.
        chief: whether this process writes; of several that train together, only one does.

    Attributes:
        unit: the word for a unit in messages.
        decided_by: the names of the values that decide the result; see :mod:`runs.identity`.
        chosen_by: the figures that decide which unit is best: all of them must be higher than those of the best so far.
        rate: the name of the hyper-parameter to lower if the training diverges.
        judged: the network whose weights after the best unit are kept.
        best: the best unit's number and figures. A network that begins with trained weights is judged before unit 1.
        temporary: folders inside the folder of the results that are removed when the results are complete.
    """

    unit = "pass"
    decided_by: tuple[str, ...]
    chosen_by: tuple[str, ...]
    rate: str
    judged: keras.layers.Layer
    temporary: tuple[str, ...] = (PROGRESS,)

    def __init__(
        self, folder: Path, title: str, config: Config, record: dict[str, Any], bar: bool, chief: bool = True
    ) -> None:
        self.folder, self.title, self.config, self.record = folder, title, config, record
        self.bar, self.chief = bar, chief
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def train(self) -> Any:
        """Train the units that are left and finish, unless this was done before; return the result.

        Raises:
            InputError: the folder holds another run, its state is damaged, another process trains there, or the
                training diverged.
        """
        if (self.folder / METADATA).is_file():
            return self._skip()
        # Of several processes that train together, only one writes.
        with alone_in(self.folder) if self.chief else nullcontext():
            # Another process may have finished it just now.
            return self._skip() if (self.folder / METADATA).is_file() else self._train()

    def _train(self) -> Any:
        self.prepare()
        self.best_weights = self.judged.get_weights()
        self._continue()
        steps, done = self.steps, len(self.history)
        about: dict[str, Any] = {"total": sum(steps), "initial": sum(steps[:done]), "unit": "step", "desc": self.title}
        with tqdm(**about, mininterval=0.5, disable=not self.bar) as bar:
            for numbers in self._by_kind(done):
                first = FirstUpdates(partial(self._tell, bar, numbers))
                for number in numbers:
                    if self.ended:
                        break
                    row = self._one_unit(number, bar, first)
                    self._choose(row)
                    self.history.append(row)
                    if self.chief:
                        # Logged before the state is kept: if the run is killed in between, the unit is logged again.
                        self._log()
                        self._keep()
                    bar.write(self._line(row))
        self.judged.set_weights(self.best_weights)
        result = self.finish()
        self.wait()
        self._clean()
        return result

    def rehearse(self, results: Path, others: Callable[[Sequence[int]], float] | None = None) -> list[Cost]:
        """Estimate from a few updates what the units that are left will take, for each kind of unit.

        A run that is finished costs nothing, and its model is copied, so that other runs can begin with it.

        Args:
            results: the folder of the real run, which is only read; this run has another folder.
            others: gives the seconds that some units take besides their updates; without it, one judgement is timed.
        """
        if (results / METADATA).is_file():
            shutil.copytree(results, self.folder, ignore=lambda _, names: {n for n in names if "." not in n})
            return []
        self.prepare()
        self.best_weights = self.judged.get_weights()
        return [self._rehearsed(numbers, others or self._judging) for numbers in self._by_kind(kept_units(results))]

    def _rehearsed(self, numbers: list[int], others: Callable[[Sequence[int]], float]) -> Cost:
        def stop(_: float) -> None:
            raise Enough

        first, started = FirstUpdates(stop), time.monotonic()
        # This machine rehearses alone, so updates can be timed.
        first.enough = False
        with suppress(Enough):
            for number in numbers:
                first.begin()
                self.train_unit(number, first)
        # If there are too few updates to time one, take the average over all.
        whole = (time.monotonic() - started) / self._updates(numbers)
        return self._cost(numbers, median(first.timed) if first.timed else whole, others(numbers))

    def _judging(self, numbers: Sequence[int]) -> float:
        started = time.monotonic()
        self.judge(numbers[-1])
        return len(numbers) * (time.monotonic() - started)

    def _by_kind(self, done: int) -> list[list[int]]:
        """The units after the first ``done``, grouped by kind."""
        return [list(numbers) for _, numbers in groupby(range(done, len(self.steps)), self._kind)]

    def _kind(self, number: int) -> str:
        return "".join(f" {value}" for value in self.about(number).values() if isinstance(value, str))

    def _updates(self, numbers: Sequence[int]) -> int:
        steps = self.steps
        return sum(steps[number] for number in numbers)

    def _cost(self, numbers: list[int], update_seconds: float, other_seconds: float | None) -> Cost:
        title = f"{self.title}{self._kind(numbers[0])}"
        return Cost(title, self._updates(numbers), update_seconds, other_seconds, peak_memory(), self._disk())

    def _tell(self, bar: tqdm, numbers: list[int], update_seconds: float) -> None:
        """Print what these units will take, if it is longer than a minute."""
        if self.chief and update_seconds * self._updates(numbers) > 60:
            bar.write(self._cost(numbers, update_seconds, None).line())

    def _disk(self) -> int:
        """The most bytes that the folder takes: the state, the next state while it is written, and other files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=UNFINISHED, dir=self.folder) as aside:
            self._write_state(Path(aside))
            state = _bytes_in(Path(aside))
        return 2 * state + _bytes_in(self.folder) - _bytes_in(self.folder / PROGRESS)

    @abstractmethod
    def prepare(self) -> None:
        """Make the networks, among them :attr:`judged`, and whatever else the units need."""

    @property
    @abstractmethod
    def steps(self) -> list[int]:
        """How many steps of the progress bar each unit takes."""

    @property
    def ended(self) -> bool:
        """Whether training ends before the last unit, decided only from the history and the best unit."""
        return False

    def about(self, number: int) -> dict[str, Any]:
        """The first columns of a unit's row in the log: numbers counted from 1, among them ``pass``, and words."""
        return {"pass": number + 1}

    @abstractmethod
    def train_unit(self, number: int, advance: Callable[[], Any]) -> dict[str, float]:
        """Train unit ``number``, and call ``advance`` after each step; return figures to log, among them ``loss``."""

    @abstractmethod
    def judge(self, number: int) -> dict[str, float | None]:
        """The figures on the validation subjects after unit ``number``, among them those of :attr:`chosen_by`.

        The result is empty if the unit is not judged; a figure that the validation subjects do not give is None.
        """

    @abstractmethod
    def save_state(self, folder: Path) -> None:
        """Write what :meth:`load_state` needs into ``folder``."""

    @abstractmethod
    def load_state(self, folder: Path) -> None:
        """Restore the state in ``folder``; any exception means that it is damaged."""

    @abstractmethod
    def finish(self) -> Any:
        """Test the best network, save it (the metadata last), and return the result."""

    def result(self, metadata: dict[str, Any]) -> Any:
        """The result that :meth:`finish` returned, from the metadata; any exception means that they are damaged."""
        return None

    def wait(self) -> None:  # noqa: B027, because most runs have no other process to wait for.
        """Return when all processes that train together have reached this point."""

    def _skip(self) -> Any:
        metadata = read_metadata(self.folder)
        with restoring(self.folder / METADATA):
            require_same_run(self.folder, self.decided_by, metadata, self.record, self.config)
            result = self.result(metadata)
        # A run that was killed just after its results were complete has left its temporary folders.
        self._clean()
        print(f"{self.title} is finished: skipped.")
        return result

    def _clean(self) -> None:
        for name in self.temporary if self.chief else ():
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _one_unit(self, number: int, bar: tqdm, first: FirstUpdates) -> dict[str, Any]:
        def advance() -> None:
            bar.update()
            first()

        started = time.monotonic()
        first.begin()
        row = {**self.about(number), "seconds": 0.0, **self.train_unit(number, advance)}
        if not np.isfinite(row["loss"]):
            raise InputError(
                f"the loss of {self.title} became {row['loss']} in {self.unit} {number + 1}: "
                f"try a lower {self.rate} with --set, and check the units of the nights."
            )
        row |= {f"val_{name}": value for name, value in self.judge(number).items()}
        row["seconds"] = round(time.monotonic() - started, 1)
        return row

    def _choose(self, row: dict[str, Any]) -> None:
        """Keep the weights of the best unit."""
        if not self._is_judged(row):
            return
        figures = {name: row[f"val_{name}"] for name in self.chosen_by}
        # If there is no figure to choose by, the last unit is taken.
        if self.best is None or all(value is None or value > self.best[name] for name, value in figures.items()):
            self.best = {"pass": row["pass"], **figures}
            self.best_weights = self.judged.get_weights()

    def _is_judged(self, row: dict[str, Any]) -> bool:
        return f"val_{self.chosen_by[0]}" in row

    def _line(self, row: dict[str, Any]) -> str:
        unit = f"{self.unit} {row[self.unit]}/{len(self.steps)}{self._kind(row[self.unit] - 1)}"
        line = f"{self.title} {unit}: loss {row['loss']:.4g}"
        if self._is_judged(row) and self.best:
            figures = {name[4:]: value for name, value in row.items() if name.startswith("val_") and value is not None}
            named = "".join(f" {name} {value:.3f}" for name, value in figures.items())
            named = named.replace("macro_f1", "macro-F1").replace("_", " ")
            line += f"  validation{named}" + " (best so far)" * (self.best["pass"] == row["pass"])
        return f"{line}  {row['seconds']:.0f} s"

    def _log(self) -> None:
        """Write ``log.csv``, a row for each unit, and the newest unit's numbers for TensorBoard."""
        with written_aside(self.folder / "log.csv") as aside:
            pd.DataFrame(self.history).to_csv(aside, index=False)
        writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        with writer.as_default(step=len(self.history)):
            for name, value in self.history[-1].items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        writer.close()

    def _keep(self) -> None:
        """Write the state, which appears whole, and only then remove the one before."""
        number = len(self.history)
        new_folder(self.folder / PROGRESS / f"{number}", self._write_state)
        for kept in (self.folder / PROGRESS).iterdir():
            if kept.name != f"{number}":
                shutil.rmtree(kept, ignore_errors=True)

    def _write_state(self, folder: Path) -> None:
        self.save_state(folder)
        np.savez(folder / "best.npz", *self.best_weights)
        write_json(folder / "state.json", {"run": self.record, "history": self.history, "best": self.best})

    def _continue(self) -> None:
        """Restore the newest state, if there is one."""
        # Remove what a killed run left half-written.
        remove_unfinished(self.folder)
        done = kept_units(self.folder)
        if not done:
            return
        newest, begun = self.folder / PROGRESS / f"{done}", self.best is not None
        with restoring(newest):
            state = read_json(newest / "state.json")
            require_same_run(self.folder, self.decided_by, state["run"], self.record, self.config)
            self.history, self.best = state["history"], state["best"]
            if [row[self.unit] for row in self.history] != list(range(1, int(newest.name) + 1)):
                raise ValueError(f"it does not hold the history of {newest.name} units")
            judged = begun or any(map(self._is_judged, self.history))
            if judged != (self.best is not None) or (judged and self.best.keys() != {"pass", *self.chosen_by}):
                raise ValueError("it does not tell which unit was best")
            self.best_weights = arrays_in(newest / "best.npz")
            if [weight.shape for weight in self.best_weights] != [weight.shape for weight in self.judged.get_weights()]:
                raise ValueError("best.npz does not hold the network's weights")
            self.load_state(newest)
        print(f"{self.title} continues after {self.unit} {len(self.history)} of {len(self.steps)}.")


def kept_units(folder: Path) -> int:
    """The number of units after which the newest state in a run's folder was kept; 0 if there is none."""
    kept = (path for path in (folder / PROGRESS).glob("*") if path.name.isdecimal() and path.is_dir())
    return max((int(path.name) for path in kept), default=0)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def arrays_in(path: Path) -> list[np.ndarray]:
    """The arrays of an ``.npz`` file, in its order."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


@contextmanager
def restoring(kept: Path) -> Iterator[None]:
    """Turn any exception that damaged files in ``kept`` cause into an InputError of one sentence."""
    try:
        yield
    except InputError:
        raise
    # Keras, h5py and NumPy raise almost any exception on damaged files.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{kept} is damaged ({reason}): remove {kept.parent} to train this fold from its start."
        ) from None
