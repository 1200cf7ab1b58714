"""Processes that are ended, and what they leave."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

import command_line
from data.writing import alone_in


def start(code: str, **options) -> subprocess.Popen:
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | path, text=True, **options)


def test_workers_end_with_their_parent():
    code = "import time; from runs.workers import each\n"
    code += "for _ in each(time.sleep, [0, 0, 600, 600], jobs=2): print(flush=True)"
    with start(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(children) >= 2
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_sigterm_is_handled_like_ctrl_c():
    code = "import command_line, tempfile, time\n"
    code += "def work(): print(tempfile.mkdtemp(), flush=True); time.sleep(60)\n"
    code += "raise SystemExit(command_line.run(work, 'work'))"
    with start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        made = Path(process.stdout.readline().strip())
        assert made.is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[1] == "work: stopped; run the same command again to continue.\n"
    assert process.returncode == 130
    assert not made.parent.exists()


def test_temporary_files_of_killed_commands_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("recsleep-dead", "recsleep-alive", "recsleep-new", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with alone_in(tmp_path / "recsleep-alive"):
        for name in ("recsleep-dead", "recsleep-alive", "other"):
            os.utime(tmp_path / name, (0, 0))
        assert command_line.run(lambda: int(not list(tmp_path.glob("recsleep-*/.lock"))), "work") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "recsleep-alive", "recsleep-new"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_to_nowhere(tmp_path, closed):
    """No file is opened in their place, which would then get what is printed."""
    code = "import command_line, sys\n"
    code += "def work():\n with open('x', 'w') as file: print('o'); print('e', file=sys.stderr); sys.stderr.flush()\n"
    code += "raise SystemExit(command_line.run(work, 'work'))"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = f'"$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], cwd=tmp_path, env=os.environ | path)
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == ""


@pytest.mark.parametrize("error", [MemoryError(), ImportError("x.so: failed to map segment from shared object")])
def test_too_little_memory_is_told(error, capsys):
    def work():
        raise error

    assert command_line.run(work, "work") == 2
    assert "too little memory" in capsys.readouterr().err
