"""The keys of a point are stated once: every reader carries a key that is added and refuses what it does not take."""

from dataclasses import MISSING, dataclass, field, fields, replace

import pytest
from omegaconf import OmegaConf

from bench.rows import pairing
from bench.sweep import expand
from bench.sweep.catalog import conf_dir, load_chip, load_group, load_model
from bench.validate import csv_cases
from engines.core.errors import InvalidRequest
from engines.core.keys import Choice, Integer, about
from engines.core.needs import With
from engines.core.point import Point
from engines.core.row import POINT_FIELDS, Row
from engines.published.table import NAMES, columns, published_rows

ASKED = {
    "engine": "analytic",
    "num_chips": 64,
    "phase": "generate",
    "batch_size": 64,
    "input_len": 1984,
    "output_len": 64,
}
OF_ANOTHER_KIND = "no-such-name"
OF_KIND = ("packed", "absorbed", "all_to_all", "xyz", load_model("palm-8b"), 1)
"""A value of every kind of key that needs something; no two kinds take the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderPoint(Point):
    """A point with more keys."""

    experts: int | None = field(default=None, metadata=about(Integer(1), "experts a token", engine_chooses=True))
    offload: str = field(default="none", metadata=about(Choice(("none", "host")), "where idle weights are"))
    early: str = field(default="no", metadata=about(Choice(("no", "yes")), "leaves early", is_off=True))
    how_early: int | None = field(default=None, metadata=about(Integer(1), "layers", needs=With("early", ("yes",))))


def a_point(cls=Point, **changes):
    return cls(**{"model": load_model("palm-540b"), "chip": load_chip("tpu-v4"), **ASKED, **changes})


def refuses(key, value):
    try:
        key.check(value, "generate")
    except InvalidRequest:
        return True
    return False


def config(**changes):
    content = {group: load_group(group, name) for group, name in (("model", "palm-540b"), ("hw", "tpu-v4"))}
    content |= {group: load_group(group, "default") for group in ("timing", "wandb")}
    content |= {"engine": load_group("engine", "analytic"), "runtime": load_group("runtime", "auto")}
    content |= {"price": load_group("price", "none")}
    return {**OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml")), **content, **changes}


def points(**changes):
    return [point for job in expand.request_from(config(**changes)).jobs for point in job.points]


def test_a_row_begins_with_the_keys_of_a_point():
    names = [each.name for each in fields(Row)]
    assert names[: len(POINT_FIELDS) + 1] == [*POINT_FIELDS, "chosen"]
    assert list(a_point().axes()) == list(POINT_FIELDS)


def test_the_config_has_every_key_and_leaves_open_what_the_engine_chooses():
    content = config()
    for name, key in Point.schema().items():
        [value] = key.alternatives(content[name])
        key.check(value, content["phase"])
        assert key.default in (MISSING, value), name
        assert (value in (None, "auto")) or not key.about.engine_chooses, name


@pytest.mark.parametrize("name", Point.schema())
def test_a_key_refuses_another_kind_in_a_point_and_in_a_config(name):
    for refuse in (lambda: a_point(**{name: OF_ANOTHER_KIND}), lambda: points(**{name: OF_ANOTHER_KIND})):
        with pytest.raises(InvalidRequest) as refused:
            refuse()
        assert (refused.value.key, refused.value.value) == (name, OF_ANOTHER_KIND)
        kind = Point.schema()[name].about.kind
        assert not isinstance(kind, Choice) or all(each in refused.value.remedy for each in kind.names)


def test_every_key_is_either_stated_or_left_open():
    assert sorted(["engine", *pairing.STATED, *pairing.OPEN]) == sorted(POINT_FIELDS)
    assert all(Point.schema()[name].default in (None, "auto") for name in pairing.OPEN if name != "runtime")
    assert a_point().runtime is None


def test_a_key_that_is_added_is_checked_and_told():
    wide = a_point(WiderPoint, experts=2, offload="host")
    assert wide.axes() == {**a_point().axes(), "experts": 2, "offload": "host", "early": None, "how_early": None}
    assert wide.fingerprint("a") != replace(wide, offload="none").fingerprint("a")
    for wrong in ({"experts": 0}, {"offload": "nvme"}):
        with pytest.raises(InvalidRequest, match=next(iter(wrong))):
            a_point(WiderPoint, **wrong)


def test_a_key_that_is_added_says_what_it_needs():
    early = a_point(WiderPoint, early="yes", how_early=2)
    early.check()
    assert [early.axes()[key] for key in ("early", "how_early")] == ["yes", 2]
    with pytest.raises(
        InvalidRequest, match=r"how_early=2: is read with early=yes alone, and early=no; give early=yes,"
    ):
        a_point(WiderPoint, how_early=2).check()


@pytest.mark.parametrize("name", [name for name, key in Point.schema().items() if key.about.needs is not None])
def test_a_key_without_what_it_needs_is_refused_and_left_out_of_the_row(name):
    key = Point.schema()[name]
    [value] = [each for each in OF_KIND if not refuses(key, each) and each != key.default][:1]
    asked = a_point(**{name: value})
    assert not key.about.needs.met(asked)
    with pytest.raises(InvalidRequest) as refused:
        asked.check()
    assert refused.value.key == name
    assert a_point().axes()[name] is None
    a_point().check()


def test_a_key_that_is_added_makes_grids(monkeypatch):
    monkeypatch.setattr(expand, "Point", WiderPoint)
    other = {"early": "no", "how_early": "auto"}
    found = points(experts=["auto", 2], offload=["none", "host"], mesh_shape=[[4, 4, 4], [2, 4, 8]], **other)
    assert {(each.experts, each.offload, each.mesh_shape) for each in found} == {
        (experts, offload, mesh)
        for experts in (None, 2)
        for offload in ("none", "host")
        for mesh in ((4, 4, 4), (2, 4, 8))
    }
    [swept] = points(experts="auto", offload="none", **other, points=[{"experts": 4, "offload": "host"}])
    assert (swept.experts, swept.offload) == (4, "host")


def test_a_key_that_is_added_is_a_column_of_a_csv_file(monkeypatch, tmp_path):
    monkeypatch.setattr(csv_cases, "Point", WiderPoint)
    line = "source,mine,palm-540b,tpu-v4,64,,,decode,64,1984,64,int8,ws_2d,batch,1.82,0.14,ok"
    path = tmp_path / "times.csv"
    header = ",".join([*columns(), "experts", "offload", "mesh_shape"])
    path.write_text("\n".join([header, f'{line},2,host,"[4,4,4]"', f"{line},,,"]), encoding="utf-8")
    stated, left = (case.point for case in csv_cases.read_cases(path, "analytic").cases)
    assert (stated.experts, stated.offload, stated.mesh_shape) == (2, "host", (4, 4, 4))
    assert (left.experts, left.offload, left.mesh_shape) == (None, "none", None)


def test_a_published_row_does_not_answer_a_key_that_it_does_not_state():
    row = next(row for row in published_rows() if row.stated["phase"] == "decode")
    values = {key: value for key, value in row.stated.items() if key not in NAMES}
    wide = a_point(WiderPoint, **values)
    assert row.matches(wide)
    assert not row.matches(replace(wide, offload="host"))
    assert not row.matches(replace(wide, experts=2))
