"""Read stored rows: how far are the predictions in results/reference from what was published?"""

import sys
from pathlib import Path

from bench.rows.pairing import pair_errors, pair_up
from bench.rows.store import Store

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def main(results_dir: str | Path = REFERENCE) -> None:
    """Print what the store holds, and the errors by model."""
    store = Store(results_dir)
    frame = store.frame()
    print(frame.groupby(["source", "engine", "status"]).size().to_string())
    pairs = pair_up(list(store.latest().values()))
    for model in sorted({pair.reference.model for pair in pairs}):
        errors = pair_errors(pair for pair in pairs if pair.reference.model == model)
        if errors is not None:
            print(f"{model}: mean error {errors.mean:.1%}, worst {errors.worst:.1%}, {errors.n} rows")


if __name__ == "__main__":
    main(*sys.argv[1:2])
