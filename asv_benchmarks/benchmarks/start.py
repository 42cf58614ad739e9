"""What a user waits for before the first number."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from time import perf_counter


class Start:
    """Import and compilation."""

    timeout = 300

    def timeraw_import(self) -> str:
        """Import of the package."""
        return "import numbasaem"

    def timeraw_import_everything(self) -> str:
        """Import of all that a reconstruction needs."""
        return "from numbasaem import reconstruct"

    def track_compilation(self) -> float:
        """First E-step ever, L = 11, process included."""
        program = (
            "from numbasaem.observations.patch_expectation import compile_kernels\n"
            "compile_kernels(11)"
        )
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"XDG_CACHE_HOME": cache}
            environment.pop("NUMBA_CACHE_DIR", None)
            began = perf_counter()
            subprocess.run([sys.executable, "-c", program], env=environment, check=True)
            return perf_counter() - began


Start.track_compilation.unit = "s"  # type: ignore[attr-defined]
