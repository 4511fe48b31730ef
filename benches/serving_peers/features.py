"""A step written in Python, as people write them: no converter can compile what it does."""

import numpy as np
import pandas as pd

#: How far a region lies from the store, in kilometres.
DISTANCE = {f"region_{number}": 3.0 * number + 1.0 for number in range(12)}


def engineered(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ratios, logarithms, cycles and a looked-up distance as numbers, shape (n, 9)."""
    hour = frame["x0"].abs() % 24.0
    text = frame["region"].map(DISTANCE).fillna(0.0)
    return pd.DataFrame(
        {
            "ratio": frame["x1"] / (1.0 + frame["x2"].abs()),
            "product": frame["x1"] * frame["x3"],
            "log": np.log1p(frame["x4"].abs()),
            "clipped": frame["x5"].clip(-2.0, 2.0),
            "sin": np.sin(2.0 * np.pi * hour / 24.0),
            "cos": np.cos(2.0 * np.pi * hour / 24.0),
            "distance": text,
            "near": (text < 10.0).astype(float),
            "urgent": frame["priority"].isin(["high", "urgent"]).astype(float),
        }
    )
