"""``shardbench estimate``: any JAX program, timed on chips that are not there."""

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRINT, RESULTS_DIR, Key
from bench.cli.values import FilePath, Integer, ListOf, Number, Text
from engines.core.errors import InvalidRequest, ShardbenchError

if TYPE_CHECKING:
    from bench.programs.question import Answer
    from engines.core.row import Row
    from engines.core.slice import Slice

SUMMARY: Final = "time any JAX program on chips that are not there: a function, scheduled HLO or StableHLO"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("function", None, "module:name of a function, or of a factory that returns (function, arguments)"),
    Key(
        "arguments",
        None,
        "shapes to call the function with, [bf16[8,128],'bf16[128,512]@-,model']",
        kind=ListOf(Text()),
    ),
    Key("settings", [], "keyword arguments of the factory or function, [batch=8]", kind=ListOf(Text(), least=0)),
    Key("path", [], "folders of its modules, beside the current one", kind=ListOf(FilePath(), least=0)),
    Key(
        "hlo",
        None,
        "in place of a function: scheduled HLO of a dump, text or proto; several files make one step",
        kind=ListOf(FilePath()),
    ),
    Key("stablehlo", None, "in place of a function: what jax.export wrote, or StableHLO", kind=FilePath()),
    Key("hw", None, "the chip, one of conf/hw"),
    Key("num_chips", None, "chips of the slice (default: as many as the mesh has)", kind=Integer(1)),
    Key(
        "mesh_shape",
        None,
        "chips along the slice's axes x, y, z (default: the most cubic slice)",
        kind=ListOf(Integer(1)),
    ),
    Key("topology", None, "in place of hw and num_chips: a slice as XLA names it, such as v5e:4x4"),
    Key(
        "num_slices",
        1,
        "so many slices, joined by the data-centre network; the mesh's first axis goes between them",
        kind=Integer(1),
    ),
    Key("mesh", None, "the program's own mesh, [data:2,model:8] (default: the slice's x, y, z)", kind=ListOf(Text())),
    Key(
        "axis_types",
        "auto",
        "who decides shardings: the compiler, or the program itself (JAX's explicit axes)",
        ("auto", "explicit"),
    ),
    Key(
        "trip_count",
        None,
        "turns of a loop whose trip count the program does not tell, or the least and the most",
        kind=ListOf(Integer(0)),
    ),
    Key("compiler_options", [], "options of the XLA compiler, [name=value]", kind=ListOf(Text(), least=0)),
    Key("name", None, "what the program is called in its row (default: module.function)"),
    Key("trace", None, "write the schedule for Perfetto or xprof to this file, such as step.json.gz", kind=FilePath()),
    Key("save_hlo", None, "write the scheduled HLO to this file", kind=FilePath()),
    Key("cache_dir", None, "the folder of compiled programs (default: in the user's cache folder)", kind=FilePath()),
    Key("timeout_s", 600.0, "seconds that tracing, compiling and reading may take", kind=Number(above=0)),
    RESULTS_DIR,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench estimate function=mlp:train_step path=examples/estimate hw=tpu-v5e mesh=[data:2,model:8]",
    "shardbench estimate function=model:step 'arguments=[bf16[64,4096],bf16[4096,8192]]' hw=tpu-v6e num_chips=1",
    "shardbench estimate hlo=dump/module_0003.jit_step.after_codegen.txt topology=v5e:4x4",
    "shardbench estimate stablehlo=step.export topology=v5p:2x2x2 trace=step.json.gz",
)
SOME_FAILED: Final = 3


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Estimate, store the rows that are new and print what they say. Returns 0, or 3 if a program has no time.

    A program that is stored already, timed by the same model, is not stored again.

    Raises:
        ShardbenchError: the request is invalid, or the store cannot be written.
    """
    del verb
    from bench.programs.ask import answers
    from bench.programs.row import row_of
    from bench.rows.store import Store

    question = question_of(settings)
    store = Store(settings["results_dir"])
    found = answers(question)
    for each in found:
        if each.status == "invalid":
            raise ShardbenchError(each.error or "")
    rows = [row_of(question, each) for each in found]
    stored = store.latest()
    rows = [_known(stored.get(row.point_id), row) for row in rows]
    new = [row for row in rows if stored.get(row.point_id) is not row]
    if new:
        store.append(new)
    if settings["print"] == "json":
        for row in rows:
            print(json.dumps(row.to_dict(), allow_nan=False))
    else:
        for row, each in zip(rows, found, strict=True):
            _print(row, each)
    return 0 if all(row.status == "ok" for row in rows) else SOME_FAILED


def _known(stored: "Row | None", row: "Row") -> "Row":
    """The stored row where it says the same of the same program."""
    same = stored is not None and row.status == "ok" and (stored.status, stored.program_id) == ("ok", row.program_id)
    return stored if stored is not None and same and stored.latency_s == row.latency_s else row


def question_of(settings: Mapping[str, Any]) -> Any:
    """The question that the keys ask.

    Raises:
        InvalidRequest: there is not one program, no such slice, or a key has another form.
    """
    from bench.programs.question import Question
    from bench.programs.shapes import shape_of

    given = [key for key in ("function", "hlo", "stablehlo") if settings[key] is not None]
    if len(given) != 1:
        problem = "is not given" if not given else f"and {given[1]} are both given"
        raise InvalidRequest(given[0] if given else "function", settings[given[0]] if given else "", problem,
                             "give one of function=module:name, hlo=FILE and stablehlo=FILE")  # fmt: skip
    for key in ("arguments", "settings", "path"):
        if settings[key] and settings["function"] is None:
            raise InvalidRequest(key, settings[key], f"belongs to function=, and {given[0]} is given", "leave it out")
    trips = settings["trip_count"]
    if trips is not None and (len(trips) > 2 or trips[0] > trips[-1]):
        raise InvalidRequest("trip_count", trips, "must be a number, or the least and the most", "use 8 or [1,8]")
    arguments = settings["arguments"]
    axes = None if settings["mesh"] is None else axes_of(settings["mesh"])
    for key, file in [*(("hlo", each) for each in settings["hlo"] or ()), ("stablehlo", settings["stablehlo"])]:
        if file is not None and not Path(file).exists():
            raise InvalidRequest(key, file, "does not exist", "use a file, or a folder of XLA_FLAGS=--xla_dump_to")
    for key in ("trace", "save_hlo"):
        if settings[key] is not None:
            _check_folder(key, settings[key])
    return Question(
        slice=_slice(settings, axes),
        function=settings["function"],
        hlo=settings["hlo"] or (),
        stablehlo=settings["stablehlo"],
        arguments=None if arguments is None else [shape_of(each) for each in arguments],
        settings=dict(_setting("settings", each, value_of) for each in settings["settings"]),
        axes=axes,
        num_slices=settings["num_slices"],
        explicit=settings["axis_types"] == "explicit",
        trips=None if trips is None else (trips[0], trips[-1]),
        compiler_options=dict(_setting("compiler_options", each, str) for each in settings["compiler_options"]),
        name=settings["name"],
        path=settings["path"],
        cache_dir=settings["cache_dir"],
        trace=settings["trace"],
        save_hlo=settings["save_hlo"],
        timeout_s=settings["timeout_s"],
    )


def _check_folder(key: str, path: str) -> None:
    folder = Path(path).parent
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(key, path, f"{folder} is a file", "use another file")


def axes_of(texts: Sequence[str]) -> dict[str, int]:
    """``data:2`` → name and size of an axis.

    Raises:
        InvalidRequest: an item has another form, or a name stands twice.
    """
    axes: dict[str, int] = {}
    for text in texts:
        name, _, size = text.partition(":")
        if not name.isidentifier() or not size.isdigit() or int(size) < 1 or name in axes:
            raise InvalidRequest(
                "mesh", text, "must be name:size, each name once", "write it like mesh=[data:2,model:8]"
            )
        axes[name] = int(size)
    return axes


def value_of(text: str) -> Any:
    """A Python number, text in quotes, list, true, false or null; anything else is text as typed."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _setting(key: str, text: str, read: Any) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidRequest(key, text, "must be name=value", f"write it like {key}=[name=value]")
    return name, read(value)


def _slice(settings: Mapping[str, Any], axes: Mapping[str, int] | None) -> "Slice":
    import math

    from bench.programs.topology import slice_named
    from bench.sweep.catalog import load_chip
    from engines.core.slice import slice_of

    if settings["topology"] is not None:
        for key in ("hw", "num_chips", "mesh_shape"):
            if settings[key] is not None:
                raise InvalidRequest(key, settings[key], "and topology are both given", "leave one of them out")
        return slice_named(settings["topology"])
    told = None if settings["hw"] is not None or settings["hlo"] is None else _told(settings["hlo"][0])
    if told is not None:
        return slice_named(told)
    if settings["hw"] is None:
        raise InvalidRequest("hw", "", "is required", "add hw=tpu-v5e num_chips=16, or topology=v5e:4x4")
    chip = load_chip(settings["hw"])
    cores = chip.xla.cores if chip.xla is not None else 1
    shape = settings["mesh_shape"]
    chips = settings["num_chips"] or (
        math.prod(shape)
        if shape
        else max(1, math.prod(axes.values()) // cores // settings["num_slices"])
        if axes
        else 1
    )
    return slice_of(chip, chips, None if shape is None else tuple(shape))


def _told(path: str) -> str | None:
    """The topology that a dump says its module was compiled for."""
    from engines.compiled.program.dump import dumped_beside, module_in

    told = dumped_beside(module_in(path) if Path(path).is_dir() else path)
    return None if told is None else told.topology


def _print(row: "Row", answer: "Answer") -> None:
    if row.status != "ok":
        print(f"{row.model} on {row.num_chips} {row.hw}: {row.status}: {row.error}", file=sys.stderr)
        return
    print("\n\n".join(answer.told))
    if len(answer.programs) > 1 and row.latency_s is not None:
        print(f"\n{row.model}: {row.latency_s * 1e3:.4g} ms a step of {len(answer.programs)} programs")
    if answer.files:
        print(f"wrote {', '.join(answer.files)}", file=sys.stderr)
