"""The machine that a training runs on: its backend of Keras, its processors, and this process's memory."""

import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from data.terms import InputError


def require_tensorflow() -> None:
    """Refuse any other backend than TensorFlow, which the streams of a training need, before Keras is imported.

    Raises:
        InputError: the environment or Keras's own file names another one.
    """
    backend, where = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not backend:
        # Without a home, or a file in it that names one, Keras takes TensorFlow.
        with suppress(OSError, RuntimeError, ValueError, KeyError, TypeError):
            file = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "keras.json")
            backend, where = json.loads(file.read_text())["backend"], str(file)
    if backend not in (None, "", "tensorflow"):
        raise InputError(
            f"training needs TensorFlow, but {where} names {backend} as the backend of Keras: set the environment "
            "variable KERAS_BACKEND to tensorflow."
        )


def processor() -> str:
    """The processor's name, its widest instruction set if known, and how many threads this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    widest = next((name for name in ("amx_bf16", "avx512_vnni", "avx512f", "avx2", "avx") if name in flags), None)
    name = told.get("model name") or platform.processor() or platform.machine()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}{f' with {widest}' if widest else ''}, {threads} threads"


def computing(precision: str, every_gpu: bool = False) -> str:
    """One sentence that says in which precision and on what is trained: the GPU, every GPU, or else the processor."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = map(tf.config.experimental.get_device_details, gpus if every_gpu else gpus[:1])
        return f"Training in {precision} on {', '.join(about.get('device_name', 'a GPU') for about in details)}."
    # If the variable is not set, TensorFlow chooses the kernels.
    setting = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    kernels = f", oneDNN {'on' if setting in ('1', 'true') else 'off'}" if setting else ""
    return f"Training in {precision} on {processor()}{kernels}."


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    # getrusage would also count the memory of the process that started this one.
    status = Path("/proc/self/status")
    told = status.read_text().partition("VmHWM:")[2].split() if status.exists() else []
    if told:
        return 1024 * int(told[0])
    # If the kernel does not tell it there, use getrusage, which gives kilobytes on Linux.
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
