"""The reference of the configuration: keys, values and comments of every file in ``conf``."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import point_keys
import yaml
from metrics import escaped

from bench.sweep.commented import Setting, settings

ROOT: Final = Path(__file__).parents[2]
CONF: Final = ROOT / "conf"


def heading_of(path: Path) -> str:
    """The comment with which a config file opens, as one paragraph."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("# @package"):
        lines = lines[1:]
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# ") if not line.startswith("#   ") else f"`{line.lstrip('# ')}`")
    return " ".join(comment)


def page() -> str:
    """``reference/configuration.md``."""
    return "\n".join(
        [
            "# Configuration",
            "",
            "`shardbench run` composes `conf/config.yaml` with one file of each group. Each key can be given on the "
            "command line, and a list makes a grid. `shardbench run --cfg job` prints the composed config, and "
            "`--config-dir FOLDER` adds a folder of yours to the groups, in every command; "
            "`SHARDBENCH_CONFIG_DIR` does the same.",
            "",
            "## shardbench run",
            "",
            *_sections(_explained(settings(CONF / "config.yaml"))),
            "## engine",
            "",
            "Keys of the engine that is chosen, as `engine.KEY=VALUE`. They are part of what a row stands for.",
            "",
            *_files("engine"),
            "## timing",
            "",
            *_files("timing"),
            "## wandb",
            "",
            *_files("wandb"),
            "## price",
            "",
            *_files("price"),
        ]
    )


def choices_page() -> str:
    """``reference/choices.md``."""
    return "\n".join(
        [
            "# Models, chips, runtimes and sweeps",
            "",
            "The files of the config groups. `--config-dir FOLDER` adds yours.",
            "",
            "## Models",
            "",
            "| `model=` | parameters | layers | d_model | d_ff | heads | KV heads | head_dim | block |",
            "|---|---|---|---|---|---|---|---|---|",
            *_models(),
            "",
            "### Sources of the models",
            "",
            *(f"- `{path.stem}`: {_load(path)['source']}" for path in _paths("model")),
            "",
            "## Chips",
            "",
            "Dense peaks. Links are one direction. A source stands beside each figure in its file.",
            "",
            "| `hw=` | peak (TFLOP/s) | memory (GiB) | bandwidth (GB/s) | links | chips up to |",
            "|---|---|---|---|---|---|",
            *_chips(),
            "",
            *_sources(),
            "## Runtimes",
            "",
            "What each cannot run stands in its file, as do the prior, the source and the rows behind each constant.",
            "",
            "| `runtime=` | what it is | runs on |",
            "|---|---|---|",
            *_runtimes(),
            "",
            "## Sweeps",
            "",
            "Recipes for `shardbench run +sweep=NAME`.",
            "",
            "| `+sweep=` | what it asks |",
            "|---|---|",
            *(f"| `{path.stem}` | {escaped(heading_of(path))} |" for path in _paths("sweep")),
            "",
        ]
    )


def _paths(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


def _files(group: str) -> Iterator[str]:
    for path in _paths(group):
        if path.stem not in (group, "default"):
            yield from (f"### {group}={path.stem}", "")
        opening = heading_of(path)
        found = [
            replace(each, comment=each.comment.removeprefix(opening).strip())
            for each in settings(path)
            if each.key != "name"
        ]
        yield from (escaped(opening), "", *_table(found, prefix=f"{group}."), "")


def _explained(found: list[Setting]) -> list[Setting]:
    """The point's keys with the meaning of their schema, which says more than the file's comments."""
    meanings = point_keys.meanings()
    return [replace(each, comment=meanings.get(each.key, each.comment)) for each in found]


def _sections(found: list[Setting]) -> Iterator[str]:
    for section, keys in itertools.groupby(found, key=lambda each: each.section):
        yield from (f"### {section}", "", *_table(list(keys)), "")


def _table(found: list[Setting], prefix: str = "") -> list[str]:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for each in found:
        value = f"`{each.value}`" if each.value else ""
        lines.append(f"| `{prefix}{each.key}` | {escaped(value)} | {escaped(each.comment)} |")
    return lines


def _load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict), path
    return content


def _models() -> Iterator[str]:
    keys = ("num_layers", "d_model", "d_ff", "num_heads", "num_kv_heads", "head_dim", "block")
    for path in _paths("model"):
        content = _load(path)
        cells = [
            f"`{path.stem}`",
            _short(content["published_params"]),
            *(str(content[key]) for key in keys),
        ]
        yield f"| {' | '.join(map(escaped, cells))} |"


def _chips() -> Iterator[str]:
    for path in _paths("hw"):
        chip = _load(path)
        peaks = ", ".join(f"{dtype} {float(rate) / 1e12:g}" for dtype, rate in chip["peak_flops_per_s"].items())
        memory = "" if chip["hbm_bytes"] is None else f"{float(chip['hbm_bytes']) / 2**30:.4g}"
        bandwidth = "" if chip["hbm_bytes_per_s"] is None else f"{float(chip['hbm_bytes_per_s']) / 1e9:g}"
        cells = [f"`{path.stem}`", peaks, memory, bandwidth, _links(chip), str(chip["max_chips"])]
        yield f"| {' | '.join(cells)} |"


def _runtimes() -> Iterator[str]:
    for path in _paths("runtime"):
        limits = _load(path).get("limits") or {}
        where = ", ".join(limits.get("chips") or limits.get("kinds") or ["what the engine runs on"])
        yield f"| `{path.stem}` | {escaped(heading_of(path))} | {where} |"


def _links(chip: dict[str, Any]) -> str:
    if chip.get("link_bytes_per_s"):
        return f"{chip['torus_dims']}D torus, {float(chip['link_bytes_per_s']) / 1e9:g} GB/s a link"
    if chip.get("node_bytes_per_s"):
        return f"{float(chip['node_bytes_per_s']) / 1e9:g} GB/s to {chip['node_size']} GPUs of a node"
    return ""


def _sources() -> Iterator[str]:
    yield from ("### Sources of the chips' figures", "")
    for path in _paths("hw"):
        yield from (f"**{path.stem}**", "")
        yield from (f"- `{key}`: {source}" for key, source in _load(path)["sources"].items())
        yield ""


def _short(count: float) -> str:
    number = float(count)
    return f"{number / 1e9:.4g} B" if number >= 1e9 else f"{number / 1e6:.4g} M"
