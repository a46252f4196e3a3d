"""A saved view of a project in W&B that draws latency and MFU of every point's run, by wandb-workspaces."""

import importlib.util
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bench.rows.metrics import METRICS
from bench.run.wandb_mode import unreachable
from bench.run.wandb_session import REACH_TIMEOUT_S, reason, within
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import POINT_FIELDS

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME: Final = "shardbench"
COLUMNS: Final = ("config:model", "config:hw", "config:phase", "config:batch_size", "summary:latency_s", "summary:mfu")
"""Columns of the list of runs that stay in view."""
SCATTERS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "Latency": (("batch_size", "latency_s"), ("batch_size", "step_time_s"), ("num_chips", "latency_s")),
    "MFU": (("latency_s", "mfu"), ("batch_size", "mfu"), ("num_chips", "mfu")),
    "Cost": (("latency_s", "cost_chip_s_per_token"), ("step_time_s", "cost_chip_s_per_token")),
}
"""Section → the two figures or keys of each of its panels."""
FRACTIONS: Final = frozenset({"mfu"})
"""Figures that are drawn on a linear axis from zero."""
LAYOUT: Final = ("num_chips", "batch_size", "ffn_layout", "attn_sharding", "latency_s", "mfu")
"""Axes of the parallel coordinates, where a layout's rows are one bundle of lines."""


def workspace(project: str, entity: str | None) -> "Workspace":
    """The view, not yet saved. Uses no network.

    Raises:
        InvalidRequest: wandb-workspaces is not installed.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise InvalidRequest(
            "verb", "workspace", "needs wandb-workspaces, which is not installed", "pip install 'shardbench[wandb]'"
        )
    from wandb_workspaces import expr
    from wandb_workspaces import workspaces as ws
    from wandb_workspaces.reports.v2 import ParallelCoordinatesPlot, ParallelCoordinatesPlotColumn, ScatterPlot

    sections = [
        ws.Section(
            name=name,
            is_open=True,
            panels=[
                ScatterPlot(
                    title=f"{_heading(y)} over {_heading(x)}",
                    x=_key(x),
                    y=_key(y),
                    log_x=True,
                    log_y=y not in FRACTIONS,
                    range_y=(0, None) if y in FRACTIONS else (None, None),
                )
                for x, y in panels
            ],
        )
        for name, panels in SCATTERS.items()
    ]
    columns = [ParallelCoordinatesPlotColumn(metric=_key(each), display_name=_heading(each)) for each in LAYOUT]
    layouts = ParallelCoordinatesPlot(title="Layouts", columns=columns)
    sections.append(ws.Section(name="Layouts", is_open=True, panels=[layouts]))
    points_alone = expr.And(expr.Metric("JobType") != "sweep")
    return ws.Workspace(
        entity=entity or "",
        project=project,
        name=NAME,
        sections=sections,
        runset_settings=ws.RunsetSettings(filters=points_alone, pinned_columns=list(COLUMNS)),
    )


def to_json(view: "Workspace") -> str:
    """What is sent to the server to save the view, as JSON."""
    model = view._to_model()
    spec: dict[str, Any] = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    content = {
        "entityName": model.entity or None,
        "projectName": model.project,
        "displayName": model.display_name,
        "type": "project-view",
        "spec": spec,
    }
    return json.dumps(content, indent=1) + "\n"


def save(view: "Workspace", timeout_s: float) -> str:
    """Save the view on the server, in the project of the login's default entity if it names none; returns its URL.

    Raises:
        ShardbenchError: the server refused it or did not answer in time.
    """
    import wandb

    def send() -> str:
        problem = unreachable(wandb.setup().settings.base_url, REACH_TIMEOUT_S)
        if problem is not None:
            raise ConnectionError(problem)
        if not view.entity:
            view.entity = wandb.Api().default_entity or ""
        return str(view.save().url)

    try:
        return within(timeout_s, send)
    except (Exception, SystemExit) as error:
        raise ShardbenchError(f"the view was not saved ({reason(error)}); mode=offline writes it as a file") from None


def _key(name: str) -> Any:
    from wandb_workspaces.reports.v2 import Config, SummaryMetric

    return Config(name) if name in POINT_FIELDS else SummaryMetric(name)


def _heading(name: str) -> str:
    return METRICS[name].heading if name in METRICS else name.replace("_", " ")
