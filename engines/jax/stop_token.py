"""What a stop token leaves of a decode run, and whether its time is still that of the point."""

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest


def generated(first: NDArray[np.int32], tokens: NDArray[np.int32], stop_token: int) -> NDArray[np.int64]:
    """How many of ``tokens`` [steps, batch] each sequence generated: its first stop token is the last, [batch].

    None where ``first`` [batch], the token before them, was that already.
    """
    stops = tokens == stop_token
    upto = np.where(stops.any(axis=0), stops.argmax(axis=0) + 1, len(tokens))
    return np.where(first == stop_token, 0, upto)


def whole_run(first: NDArray[np.int32], tokens: NDArray[np.int32], stop_token: int, steps_run: int) -> dict[str, int]:
    """``steps_run`` and ``generated_tokens`` of a run in which no sequence stopped before the last step.

    Rates of a row count output_len tokens of every sequence, so the time of a shorter run must not come to a row.

    Raises:
        InvalidRequest: a sequence stopped earlier.
    """
    made = int(generated(first, tokens, stop_token).sum())
    if made < tokens.size:
        raise InvalidRequest(
            "engine.stop_token",
            stop_token,
            f"came early: {made} of {tokens.size} tokens in {steps_run} of {len(tokens)} steps, whose time would pass "
            "for that of output_len",
            "use a shorter output_len, an id that does not come, or null",
        )
    return {"steps_run": steps_run, "generated_tokens": made}
