"""Settings that go together, by name."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "patch",
        "ell_max": (6, 8, 10),
        "iterations": (25, 15, 15),
        "rotations": 552,
        "batch_fraction": 0.05,
        "batching": "stochastic",
        "starts": 1,
        "over_relaxation": 1.0,
    }
}
"""Settings that go together, by name; "paper" is for its reproduction."""
