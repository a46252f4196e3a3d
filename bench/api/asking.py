"""Points asked from Python: composed, checked, answered and stored as by ``shardbench run``."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    import pandas as pd

    from bench.sweep.expand import Request

Folder = str | os.PathLike[str]


def ask(
    point: Mapping[str, Any] | None = None,
    /,
    *,
    results_dir: Folder | None = None,
    config_dir: Folder | Sequence[Folder] = (),
    **keys: Any,
) -> Row:
    """The row that answers one point.

    ``bench.ask(model="llama-3.1-70b", hw="tpu-v5e", num_chips=16, engine="analytic", phase="decode", batch_size=16)``

    Args:
        point: keys and values of ``shardbench run`` as a mapping, for keys with a dot: ``{"model.num_layers": 8}``.
        results_dir: the store that keeps the row, and answers where it has the same point of the same program; None
            keeps nothing, and logs nothing to W&B.
        config_dir: folders of your own models, chips and sweeps, looked into first.
        **keys: further keys; those left out are as in ``conf/config.yaml``.

    Returns:
        The row, in SI units; one that has no time says why (``row.status``, ``row.error``).

    Raises:
        InvalidRequest: a key or a value is wrong, the values do not fit together, or several points are asked.
        ShardbenchError: the store cannot be read or written.
    """
    asked = _together(point or {}, _with_store(keys, results_dir))
    rows = _rows(asked, config_dir, most=1)
    if not rows:
        raise ShardbenchError("this process follows process 0 of its job, which has the row; ask there")
    return rows[0]


def ask_all(
    points: Iterable[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    /,
    *,
    results_dir: Folder | None = None,
    config_dir: Folder | Sequence[Folder] = (),
    **keys: Any,
) -> "pd.DataFrame":
    """The rows of many points, in the order in which they are asked, as :func:`bench.load` gives them.

    A list is several values of its key, and all combinations are asked:
    ``bench.ask_all(model=["palm-62b", "palm-540b"], batch_size=[1, 16, 256], ffn_layout=["ws_1d", "ws_2d"])``; a point
    asked twice is answered once. ``bench.ask_all(sweep="paper-table2", engine=["published", "analytic"])`` asks a
    recipe of ``conf/sweep``.

    Args:
        points: a mapping as of :func:`ask`, or several, each of them a point or a grid.
        results_dir: as of :func:`ask`.
        config_dir: as of :func:`ask`.
        **keys: keys and values of all points.

    Raises:
        InvalidRequest: as :func:`ask`, but for several points; a point that cannot be among others that can is a row
            that says so. A key is in ``points`` and in ``keys``.
        ShardbenchError: the store cannot be read or written.
    """
    from bench.api.frame import framed

    if points is None or isinstance(points, Mapping):
        asked = _together(points or {}, _with_store(keys, results_dir))
    else:
        listed = [dict(each) for each in points]
        for each in listed:
            _together(each, keys)
        asked = _together({"points": listed}, _with_store(keys, results_dir))
    return framed(_rows(asked, config_dir))


def _with_store(keys: Mapping[str, Any], results_dir: Folder | None) -> dict[str, Any]:
    return dict(keys) if results_dir is None else {**keys, "results_dir": results_dir}


def _together(point: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    both = point.keys() & keys.keys()
    if both:
        key = sorted(both)[0]
        raise InvalidRequest(key, keys[key], "is given twice", "leave one of them out")
    return {**point, **keys}


def _rows(asked: Mapping[str, Any], config_dir: Folder | Sequence[Folder], most: int | None = None) -> list[Row]:
    """The rows of all points asked, in their order.

    Without ``results_dir`` they have a store that is gone afterwards, so that they take the way of all points.
    """
    from bench.api.words import words_of
    from bench.run import runner
    from bench.sweep.config_dirs import in_use
    from engines.host.scratch import ScratchFolder

    folders = [config_dir] if isinstance(config_dir, (str, os.PathLike)) else config_dir
    is_kept = "results_dir" in asked
    options = {} if is_kept else {"wandb.mode": "disabled"}
    words = [word for key, value in {**options, **asked}.items() for word in words_of(key, value)]
    with ExitStack() as stack:
        stack.enter_context(in_use([os.fspath(folder) for folder in folders]))
        requests = _requests(words)
        count = sum(len(job.points) for request in requests for job in request.jobs)
        if most is not None and count > most:
            key = next(filter(lambda key: _is_grid(key, asked[key]), asked), "sweep")
            raise InvalidRequest(key, asked.get(key), f"asks {count} points", "use bench.ask_all for their frame")
        if not is_kept:
            store = str(stack.enter_context(ScratchFolder()))
            requests = [replace(each, options=replace(each.options, results_dir=store)) for each in requests]
        place = {each: order for order, each in enumerate(_point_ids(requests))}
        rows = runner.run(requests).rows
    return sorted(rows, key=lambda row: place.get(row.point_id, len(place)))


def _is_grid(key: str, value: Any) -> bool:
    """Whether the value of a key is several; the one ``[4, 4, 4]`` of ``mesh_shape`` is not."""
    from engines.core.point import Point

    several = isinstance(value, (list, tuple, range))
    kind = Point.schema().get(key)
    return several and (kind is None or len(kind.alternatives(list(value))) > 1)


def _requests(words: Sequence[str]) -> "list[Request]":
    """The requests of a command line that prints nothing."""
    from bench.sweep.composer import Composer
    from bench.sweep.expand import without_repeats
    from bench.sweep.requests import requests_of

    with Composer().ready() as composer:
        requests, _ = without_repeats(requests_of(composer, words))
    return [replace(request, options=replace(request.options, print="none")) for request in requests]


def _point_ids(requests: "Sequence[Request]") -> Iterator[str]:
    from bench.run.keys import point_id
    from bench.run.load_engine import make_engine

    for request in requests:
        for job in request.jobs:
            engine = make_engine(job.engine_config)
            yield from (point_id(engine, point) for point in job.points)
