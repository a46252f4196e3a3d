"""Predict a grid of points and look at it as a pandas frame: which batch is the cheapest within 50 ms a step?"""

import itertools

import pandas as pd

from bench.sweep.catalog import load_chip, load_model
from engines.analytic.engine import AnalyticEngine
from engines.core.point import Point

STEP_LIMIT_S = 0.05


def predict(model: str, hw: str, chips: list[int], batches: list[int]) -> pd.DataFrame:
    """One row a point that fits in memory: a decode of 64 tokens at a context of 1984."""
    points = [
        Point(
            model=load_model(model),
            chip=load_chip(hw),
            engine="analytic",
            phase="decode",
            num_chips=num_chips,
            batch_size=batch_size,
            input_len=1984,
            output_len=64,
            weight_dtype="int8",
        )
        for num_chips, batch_size in itertools.product(chips, batches)
    ]
    answers = AnalyticEngine().estimate(points)
    return pd.DataFrame(
        {
            "num_chips": point.num_chips,
            "batch_size": point.batch_size,
            "ffn_layout": answer.facts.resolved["ffn_layout"],
            "step_time_s": answer.step_time_s,
            "chip_s_per_token": point.num_chips * answer.latency_s / point.tokens,
        }
        for point, answer in zip(points, answers, strict=True)
        if answer.status == "ok" and answer.latency_s is not None
    )


def main() -> None:
    """Print the grid, and the cheapest point within the limit."""
    frame = predict("palm-62b", "tpu-v4", chips=[8, 16, 32, 64], batches=[1, 16, 64, 256])
    print(frame.to_string(index=False))
    within = frame[frame.step_time_s <= STEP_LIMIT_S]
    best = within.loc[within.chip_s_per_token.idxmin()]
    print(
        f"cheapest within {STEP_LIMIT_S * 1e3:g} ms a step: batch {best.batch_size} on {best.num_chips} chips, "
        f"{best.ffn_layout}, {best.step_time_s * 1e3:.1f} ms, {best.chip_s_per_token * 1e3:.3g} chip-ms a token"
    )


if __name__ == "__main__":
    main()
