"""Times one implementation of fixed dimensional encodings, in whatever environment it is installed.

    python benchmarks/fde_runner.py ragzip|muvera|fastembed VECTORS.npy

Prints one JSON object: documents a second, and the width of an encoding.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPETITIONS, PLANES, PROJECTION = 20, 5, 16
FEW = 20  # documents of an implementation that works through them one by one in Python


def encoder(name: str, dimensions: int) -> tuple[Callable[[Any], Any], int]:
    """Documents to encodings, and at most how many documents."""
    if name == "ragzip":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from ragzip.indexes.multi_vector.fde import FDE, FDERecipe

        return FDE(FDERecipe(dimensions, REPETITIONS, PLANES, PROJECTION)).documents, 1 << 30
    if name == "muvera":
        from muvera import Muvera  # type: ignore[import-not-found]

        made = Muvera(
            dimension=dimensions,
            num_repetitions=REPETITIONS,
            num_simhash_projections=PLANES,
            projection_type="ams_sketch",
            projection_dimension=PROJECTION,
        )
        return made.encode_documents, 1 << 30
    from fastembed.postprocess import Muvera as Fastembed  # type: ignore[import-not-found]

    slow = Fastembed(dim=dimensions, k_sim=PLANES, dim_proj=PROJECTION, r_reps=REPETITIONS)
    return lambda clouds: [slow.process_document(cloud) for cloud in clouds], FEW


def main(name: str, path: str) -> None:
    import numpy as np

    vectors = np.load(path, allow_pickle=False)
    encode, most = encoder(name, vectors.shape[2])
    clouds = [np.ascontiguousarray(cloud) for cloud in vectors[:most]]
    encode(clouds[: min(len(clouds), 32)])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = encode(clouds)
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps({"documents": len(clouds), "per_second": len(clouds) / sorted(seconds)[1], "width": len(found[0])})
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
