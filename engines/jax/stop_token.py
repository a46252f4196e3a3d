"""How many tokens a decode run with a stop token generated, and whether it ran to the end."""

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest


def generated(first: NDArray[np.int32], tokens: NDArray[np.int32], stop_token: int) -> NDArray[np.int64]:
    """How many of ``tokens`` [steps, batch] each sequence generated, up to and with its first stop token: [batch].

    0 where ``first`` [batch], the token before them, is already the stop token.
    """
    stops = tokens == stop_token
    upto = np.where(stops.any(axis=0), stops.argmax(axis=0) + 1, len(tokens))
    return np.where(first == stop_token, 0, upto)


def complete_run(
    first: NDArray[np.int32], tokens: NDArray[np.int32], stop_token: int, steps_run: int
) -> dict[str, int]:
    """``steps_run`` and ``generated_tokens`` of a run in which no sequence stopped before the last step.

    A row's rates count output_len tokens for every sequence, so the time of a shorter run must not become a row.

    Raises:
        InvalidRequest: a sequence stopped earlier.
    """
    made = int(generated(first, tokens, stop_token).sum())
    if made < tokens.size:
        raise InvalidRequest(
            "engine.stop_token",
            stop_token,
            f"stopped early: {made} of {tokens.size} tokens in {steps_run} of {len(tokens)} steps, and the time must "
            "be that of output_len",
            "use a shorter output_len, an id that is not generated, or null",
        )
    return {"steps_run": steps_run, "generated_tokens": made}
