"""Dollars in reports, plans and the dashboard's data: only where prices are given, and the same in each."""

import csv
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from builders.rows import a_row

from bench.cli.args import parse
from bench.cli.main import main as shardbench
from bench.dashboard.columns import columns
from bench.report.main.dollars import dollars_over_time, dollars_table
from bench.report.main.sections import full_report
from bench.rows.at_read import at_read
from bench.rows.prices import Prices
from bench.rows.store import Store
from engines.core.errors import InvalidRequest

MINE = Prices(
    name="mine",
    terms="own",
    source="our books",
    date="2026-01-31",
    usd_per_chip_hour={"tpu-v4": 2.0, "tpu-v5e": 1.0},
)
DECODE = {"phase": "decode", "input_len": 1984, "output_len": 64, "source": "predicted", "engine": "analytic"}


def rows():
    """Two chips, each with a fast and a cheap row; tpu-v5e has more chip-seconds, and fewer dollars."""
    found = []
    for hw, chip_s in (("tpu-v4", 0.010), ("tpu-v5e", 0.012)):
        for step_s, factor in ((0.01, 2.0), (0.04, 1.0)):
            row = replace(a_row(), **DECODE, hw=hw, step_time_s=step_s, latency_s=64 * step_s, valid=True, status="ok")
            found.append(replace(row, cost_chip_s_per_token=chip_s * factor, point_id=f"{hw}{step_s}"))
    return found


def test_chips_are_ordered_by_dollars_and_not_by_chip_seconds():
    table = dollars_table(at_read(rows(), MINE))
    usd = {cells["hw"]: cells["cost_usd_per_mtok"] for cells in table.rows}
    assert usd == {"tpu-v5e": pytest.approx(0.012 / 3600 * 1e6), "tpu-v4": pytest.approx(0.010 * 2 / 3600 * 1e6)}
    assert [cells["hw"] for cells in table.rows] == ["tpu-v5e", "tpu-v4"]
    assert "our books" in table.note


def test_the_figure_has_a_line_a_chip():
    drawn = dollars_over_time(at_read(rows(), MINE))
    [axis] = drawn.figure.axes
    lines = {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}
    assert len(lines) == 2
    for x, y in lines.values():
        assert x == [10.0, 40.0]
        assert y[0] == pytest.approx(2 * y[1])


def test_without_prices_nothing_is_said_of_dollars():
    plain, priced = (
        full_report(at_read(rows(), replace(MINE, usd_per_chip_hour={})), "t"),
        full_report(at_read(rows(), MINE), "t"),
    )
    titles = [section.title for section in plain.sections]
    assert "Cost in dollars" not in titles
    assert [section.title for section in priced.sections if section.title not in titles] == ["Cost in dollars"]


def test_the_dashboard_has_a_column_of_dollars_where_there_are_prices():
    for prices, there in ((MINE, True), (replace(MINE, usd_per_chip_hour={}), False)):
        found = columns(at_read(rows(), prices), ["a"] * 4, {})["columns"]
        assert any(each["name"] == "cost_usd_per_mtok" for each in found) is there


def test_a_run_shows_dollars_and_stores_none(tmp_path, capsys):
    words = ["model=palm-8b", "hw=tpu-v4", "num_chips=8", "phase=decode", "batch_size=8", "price=example"]
    assert shardbench(["run", *words, f"results_dir={tmp_path}"]) == 0
    assert "USD/Mtok" in capsys.readouterr().out
    [stored] = Store(tmp_path).load()
    assert (stored.cost_usd_per_mtok, stored.price, stored.energy_j) == (None, None, None)
    # Other prices are no other question.
    assert shardbench(["run", *words[:-1], f"results_dir={tmp_path}"]) == 0
    assert "already stored" in capsys.readouterr().err
    out = tmp_path / "rows.csv"
    assert shardbench(["results", "export", f"results_dir={tmp_path}", f"out={out}", "price=example"]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        [cells] = csv.DictReader(file)
    assert float(cells["cost_usd_per_mtok"]) == pytest.approx(stored.cost_chip_s_per_token / 3600 * 1e6)
    assert float(cells["energy_j"]) == pytest.approx(8 * 192 * stored.latency_s)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["price={file}"], "mine (own, 2026-01-31; it's #1, ours)"),
        (["price={file}", "price.usd_per_chip_hour.tpu-v4=3.6"], "ours), tpu-v4 at 3.6 as typed"),
        (["price.usd_per_chip_hour.tpu-v4=3.6"], "tpu-v4 at 3.6 as typed"),
    ],
)
def test_a_run_takes_a_file_of_prices_and_typed_ones(words, told, tmp_path, capsys):
    folder = tmp_path / "a folder, mine"
    folder.mkdir()
    file = folder / "mine.yaml"
    text = 'name: mine\nterms: own\nsource: "it\'s #1, ours"\ndate: 2026-01-31\nusd_per_chip_hour: {tpu-v4: 1.5}\n'
    file.write_text(text, encoding="utf-8")
    point = ["model=palm-8b", "num_chips=8", "batch_size=8", f"results_dir={tmp_path}/rows", "print=json"]
    assert shardbench(["run", *point, *(word.format(file=file) for word in words)]) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["price"].endswith(told)
    usd = 3.6 if "typed" in told else 1.5
    assert row["cost_usd_per_mtok"] == pytest.approx(row["cost_chip_s_per_token"] * usd / 3600 * 1e6)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("price=/nowhere.yaml", "price=/nowhere.yaml: cannot be read (No such file or directory); use a choice"),
        ("price.usd_per_chip_hour.tpu-v9=3", "price.usd_per_chip_hour.tpu-v9=3: is of no known chip; did you mean"),
        ("price.usd_per_chip_hour.tpu-v4=-3", "price.usd_per_chip_hour.tpu-v4=-3: must be a number > 0"),
        ("price.usd_per_chip_hour.tpu-v4=", "price.usd_per_chip_hour.tpu-v4=: is empty; give US dollars"),
    ],
)
def test_a_run_refuses_prices_of_nothing(word, said, tmp_path, capsys):
    assert shardbench(["run", "model=palm-8b", f"results_dir={tmp_path}", word]) == 2
    assert said in capsys.readouterr().err


def planned(command, *words):
    return command("plan", *["model=palm-8b", "num_chips=8", "batch_size=[8,64]", "input_len=512", "runners=2"], *words)


@pytest.fixture
def command(capsys):
    """Exit code and JSON of a subcommand."""

    def run(name, *words):
        module = import_module(f"bench.cli.commands.{name}")
        verb, settings = parse(name, [*words, "print=json"], module.KEYS, module.VERBS)
        code = module.main(verb, settings)
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_plan_chooses_among_chips_by_dollars(command, tmp_path):
    code, equal = planned(command, "hw=[tpu-v4,tpu-v5e]", "objective=cost", "price=example")
    assert code == 0
    [other] = equal["other_hw"]
    assert equal["chosen"]["cost_usd_per_mtok"] <= other["cost_usd_per_mtok"]
    assert equal["chosen"]["cost_usd_per_mtok"] == pytest.approx(equal["chosen"]["cost_chip_s_per_token"] / 3600 * 1e6)
    # A chip that costs a hundredth is chosen, with the same plan that it had before.
    file = Path(tmp_path, "cheap.yaml")
    prices = {equal["hw"]: 1.0, other["hw"]: 0.01}
    lines = "\n".join(f"  {hw}: {usd}" for hw, usd in prices.items())
    text = f"name: cheap\nterms: own\nsource: us\ndate: 2026-01-31\nusd_per_chip_hour:\n{lines}\n"
    file.write_text(text, encoding="utf-8")
    _, cheap = planned(command, "hw=[tpu-v4,tpu-v5e]", "objective=cost", f"price={file}")
    assert cheap["hw"] == other["hw"]
    assert cheap["chosen"]["cost_chip_s_per_token"] == other["chosen"]["cost_chip_s_per_token"]


def test_chip_seconds_of_different_chips_are_not_compared(command):
    with pytest.raises(InvalidRequest, match=r"price=none: has no price of tpu-v4, and chip-seconds of different"):
        planned(command, "hw=[tpu-v4,tpu-v5e]", "objective=cost")
    _, fastest = planned(command, "hw=[tpu-v4,tpu-v5e]", "objective=latency")
    [other] = fastest["other_hw"]
    assert fastest["chosen"]["latency_s"] <= other["chosen"]["latency_s"]
    assert fastest["chosen"]["cost_usd_per_mtok"] is None
