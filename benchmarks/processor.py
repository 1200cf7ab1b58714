"""The processor that a benchmark runs on."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """Its name, and how many threads it has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {os.cpu_count()} threads"
