"""Points of plans, and graphs of them."""

from builders.models import MODELS

from bench.sweep.catalog import load_chip, load_model
from engines.analytic.alpa.layer import graph_of
from engines.analytic.grid import grid_of
from engines.core.point import Point


def a_point(model="llama-3-8b", num_chips=4, **keys):
    values = {"hw": "tpu-v4", "phase": "decode", "batch_size": 8, "input_len": 512, "output_len": 8} | keys
    found = MODELS.get(model) or load_model(model)
    chip = load_chip(values.pop("hw"))
    return Point(**{"model": found, "chip": chip, "num_chips": num_chips, "engine": "analytic", **values})


def a_graph(point, **keys):
    return graph_of(point.model, grid_of([point]), point.mesh, prefill=point.phase == "prefill", **keys)
