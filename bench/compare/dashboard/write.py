"""The dashboard as a file."""

from pathlib import Path

from bench.compare.dashboard.history import read_rows
from bench.compare.dashboard.page import page
from bench.compare.nights.judge import judge
from bench.compare.nights.read import read_nights
from bench.compare.nights.steps import StepRules
from bench.compare.verdicts import Rules
from bench.rows.atomic import replaced
from bench.rows.wrong_peaks import withhold_wrong_shares
from engines.core.errors import ShardbenchError


def write(results_dir: Path, out: Path, title: str, rules: Rules, steps: StepRules | None = None) -> int:
    """Write the page of all rows under ``results_dir`` to the file ``out``, which is replaced as a whole.

    ``steps`` judge the last of nights; a night passes its own, so that the page says what it said.

    Returns:
        the number of rows.

    Raises:
        ShardbenchError: there are no rows, or a file of them is broken.
        InvalidRequest: the file cannot be written.
    """
    nights = read_nights(results_dir)
    stored = [row for night in nights for row in night.rows] if nights else read_rows(results_dir)
    rows = withhold_wrong_shares(stored)
    if not rows:
        raise ShardbenchError(f"results_dir={results_dir}: has no rows; run shardbench run first")
    verdict = judge(nights, steps or StepRules(), rules.threshold) if nights else None
    text = page(rows, title, rules, verdict)
    with replaced(out) as aside:
        aside.write_text(text, encoding="utf-8")
    return len(rows)
