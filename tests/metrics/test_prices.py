"""Dollars of chip-seconds: by hand, by laws, by prices that a user gives; and in no store."""

import json
from dataclasses import replace

import pytest
from builders.rows import a_row
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.at_read import as_stored, at_read
from bench.rows.labels import read_rows
from bench.rows.prices import Prices, load_prices, prices_from
from bench.rows.store import Store
from engines.core.errors import InvalidRequest, ShardbenchError

MINE = {"name": "mine", "terms": "spot", "source": "a bill", "date": "2026-01-31"}


def prices(**usd):
    return Prices(**MINE, usd_per_chip_hour={name.replace("_", "-"): value for name, value in usd.items()})


def priced(row, of):
    [found] = at_read([row], of)
    return found


def test_dollars_by_hand():
    """10 ms of a chip for a token are 10⁴ s for a million of them: 2.78 hours, at 3.60 USD 10 USD."""
    row = replace(a_row(), hw="tpu-v4", cost_chip_s_per_token=0.01)
    found = priced(row, prices(tpu_v4=3.60))
    assert found.cost_usd_per_mtok == pytest.approx(10.0)
    assert found.price == "mine (spot, 2026-01-31; a bill)"


@given(
    cost=st.floats(1e-9, 1e3),
    usd=st.floats(1e-3, 1e3),
    factor=st.floats(1e-2, 1e2),
)
def test_dollars_are_linear_in_price_and_in_chip_seconds(cost, usd, factor):
    one = prices(h200=usd).usd_per_mtok("h200", cost)
    assert prices(h200=usd * factor).usd_per_mtok("h200", cost) == pytest.approx(one * factor)
    assert prices(h200=usd).usd_per_mtok("h200", cost * factor) == pytest.approx(one * factor)


@given(chips=st.integers(1, 4096), latency_s=st.floats(1e-4, 1e3))
def test_energy_without_a_measurement_is_chips_times_their_power_times_the_time(chips, latency_s):
    row = replace(a_row(), hw="h100-80gb", num_chips=chips, latency_s=latency_s)
    found = priced(row, load_prices("none"))
    assert found.energy_j == pytest.approx(chips * 700 * latency_s)
    assert found.energy_source == "tdp"
    limited = priced(replace(row, hw="h100-80gb+power_limit_w=350"), load_prices("none"))
    assert limited.energy_j == pytest.approx(found.energy_j / 2)


def test_a_chip_without_a_price_or_a_power_has_neither():
    found = priced(replace(a_row(), hw="tpu-v5e", cost_chip_s_per_token=0.01), prices(tpu_v4=1.0))
    assert (found.cost_usd_per_mtok, found.price, found.energy_j, found.energy_source) == (None, None, None, None)
    found = priced(replace(a_row(), hw="somebodys-chip"), prices(tpu_v4=1.0))
    assert (found.cost_usd_per_mtok, found.energy_j) == (None, None)


def test_a_measured_energy_stays():
    row = replace(a_row(), hw="h100-80gb", energy_j=12.5, energy_source="nvml_total_energy")
    assert priced(row, prices(h100_80gb=2.0)).energy_j == 12.5
    assert as_stored(row) is row


def test_a_row_without_a_time_has_no_energy():
    row = replace(a_row(), hw="h100-80gb", status="oom", latency_s=None)
    assert priced(row, load_prices("none")).energy_j is None


def test_no_store_holds_dollars_and_other_prices_make_others(tmp_path):
    row = replace(a_row(), hw="tpu-v4", cost_chip_s_per_token=0.01)
    Store(tmp_path).append([priced(row, prices(tpu_v4=3.60))])
    [text] = [path.read_text(encoding="utf-8") for path in tmp_path.glob("rows/*.jsonl")]
    stored = json.loads(text)
    absent = ("cost_usd_per_mtok", "price", "energy_j", "energy_source")
    assert {key: stored[key] for key in absent} == dict.fromkeys(absent)
    assert stored["cost_chip_s_per_token"] == 0.01
    file = tmp_path / "own.yaml"
    for usd in (3.60, 7.20):
        content = {**MINE, "terms": "own", "usd_per_chip_hour": {"tpu-v4": usd}}
        file.write_text(json.dumps(content), encoding="utf-8")
        [found] = read_rows(str(tmp_path), price=str(file))
        assert found.cost_usd_per_mtok == pytest.approx(10.0 * usd / 3.60)
        assert found.point_id == row.point_id
    [plain] = read_rows(str(tmp_path))
    assert (plain.cost_usd_per_mtok, plain.price) == (None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"usd_per_chip_hour": {"tpu-v9": 1.0}},
            "price.usd_per_chip_hour.tpu-v9=1.0: is of no known chip; did you mean",
        ),
        ({"usd_per_chip_hour": {"tpu-v4": 0}}, "price.usd_per_chip_hour.tpu-v4=0: must be a number > 0"),
        ({"usd_per_chip_hour": {"tpu-v4": "cheap"}}, "price.usd_per_chip_hour={tpu-v4:cheap}: must be a mapping"),
        ({"source": " "}, "price.source= : says nothing; say whose prices these are"),
        ({"terms": "free"}, "price.terms=free: is not known; use one of on_demand, spot, reserved, own"),
        ({"date": "yesterday"}, "price.date=yesterday: is no day"),
        ({"date": None}, "price.date=null: is no day"),
        ({"usd_per_hour": {}}, "price.usd_per_hour={}: is not a key of prices; did you mean usd_per_chip_hour"),
    ],
)
def test_prices_of_nobody_or_of_nothing_are_refused(changes, said):
    with pytest.raises(InvalidRequest) as refused:
        prices_from({**MINE, "usd_per_chip_hour": {"tpu-v4": 1.0}, **changes})
    assert str(refused.value).startswith(said)


def test_a_day_may_be_written_as_yaml_reads_one(tmp_path):
    file = tmp_path / "mine.yaml"
    lines = "name: mine\nterms: own\nsource: us\ndate: 2026-01-31\nusd_per_chip_hour: {h200: 2}\n"
    file.write_text(lines, encoding="utf-8")
    assert load_prices(str(file)).label == "mine (own, 2026-01-31; us)"
    file.write_text("a: [", encoding="utf-8")
    with pytest.raises(ShardbenchError, match="is not valid YAML"):
        load_prices(str(file))
    with pytest.raises(InvalidRequest, match=r"price=.*nowhere.yaml: cannot be read"):
        load_prices(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(InvalidRequest, match="price=exampel: is not known; use example"):
        load_prices("exampel")


def test_typed_prices_come_first_and_are_said_to_be_typed():
    both = Prices(**MINE, usd_per_chip_hour={"tpu-v4": 1.0, "h200": 1.0}, typed={"tpu-v4": 3.6})
    assert (both.usd_per_mtok("tpu-v4", 0.01), both.usd_per_chip_hour_of("h200")) == (pytest.approx(10.0), 1.0)
    assert both.label == "mine (spot, 2026-01-31; a bill), tpu-v4 at 3.6 as typed"
    alone = replace(load_prices("none"), typed={"tpu-v4": 3.6})
    assert (alone.label, alone.note) == ("tpu-v4 at 3.6 as typed", "Dollars are by price=tpu-v4 at 3.6 as typed.")


def test_the_shipped_prices_are_nobodys():
    assert not load_prices("none").usd_per_chip_hour
    assert set(load_prices("example").usd_per_chip_hour.values()) == {1.0}
