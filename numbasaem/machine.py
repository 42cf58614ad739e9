"""What this installation runs on: versions, processor, threads, SIMD width."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

COMPUTING_PACKAGES = ("numba", "llvmlite", "numpy", "scipy")


def describe() -> dict[str, str]:
    """Describe the installation and the machine, for bug reports and `info`.

    Returns
    -------
    dict of str to str
        What is described, and how it stands, in printing order.
    """
    import numba

    from numbasaem.kernels import _cache
    from numbasaem.kernels.llvm import vector_width

    # Asking for the number of threads starts them, which decides the threading layer.
    in_use = numba.get_num_threads()
    packages = {name: version(name) for name in COMPUTING_PACKAGES}
    return {
        "numbasaem": version("numbasaem"),
        "python": platform.python_version(),
        **packages,
        "processor": _processor(),
        "threads": f"{in_use} in use of {numba.config.NUMBA_NUM_THREADS}",
        "SIMD width": f"{vector_width()} float32",
        "threading layer": numba.threading_layer(),
        "kernel cache": str(_cache.folder() or "none") if _cache.enabled() else "off",
    }


def _processor() -> str:
    """Name of the processor's model, as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine()).strip()
