"""``shardbench estimate``: keys, rows and refusals that need no compiler."""

import json

import pytest
from builders import hlo_texts

from bench.cli.commands.estimate import axes_of, question_of, value_of
from bench.cli.main import main
from bench.programs.question import Question
from bench.programs.shapes import Shape, shape_of
from bench.programs.topology import slice_named
from bench.programs.worker import answers_of
from bench.rows.store import Store
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import PROGRAM

GATHERS = hlo_texts.gathers("x", "moved")


@pytest.fixture
def hlo(tmp_path):
    path = tmp_path / "step.txt"
    path.write_text(GATHERS)
    return path


@pytest.fixture
def in_this_process(monkeypatch):
    """Questions are answered without a child process, which takes a second to start."""
    monkeypatch.setattr("bench.programs.ask.answers", answers_of)


def test_an_hlo_text_makes_a_row_of_a_program(hlo, tmp_path, capsys):
    words = ["estimate", f"hlo={hlo}", "topology=v5e:2x2", "mesh=[model:4]", "name=twice", f"results_dir={tmp_path}"]
    assert main([*words, f"trace={tmp_path / 'step.json.gz'}"]) == 0
    told = capsys.readouterr().out
    assert "twice on 4 tpu-v5e (model=4) takes" in told
    assert "/home/user/model.py:12 and /home/user/model.py:30" in told
    assert (tmp_path / "step.json.gz").exists()
    (row,) = Store(tmp_path).load()
    assert (row.engine, row.source, row.phase, row.model) == ("compiled", "compiled", PROGRAM, "twice")
    assert (row.batch_size, row.input_len, row.output_len, row.weight_dtype) == (0, 0, 0, "")
    assert row.valid
    assert row.details["programs"][0]["repeated"]


@pytest.mark.usefixtures("in_this_process")
def test_a_program_that_changed_is_compared_with_what_it_was(hlo, tmp_path, capsys):
    words = ["estimate", f"hlo={hlo}", "topology=v5e:2x2", "mesh=[model:4]", "name=step", "print=json"]
    assert main([*words, f"results_dir={tmp_path / 'old'}"]) == 0
    hlo.write_text(hlo_texts.gathers("x", "y", "moved"))
    assert main([*words, f"results_dir={tmp_path / 'new'}"]) == 0
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert one["point_id"] == two["point_id"]
    assert one["program_id"] != two["program_id"]
    assert main(["compare", f"old={tmp_path / 'old'}", f"new={tmp_path / 'new'}"]) == 1
    assert "slower" in capsys.readouterr().out


@pytest.mark.usefixtures("in_this_process")
def test_the_same_program_is_stored_once(hlo, tmp_path):
    words = ["estimate", f"hlo={hlo}", "topology=v5e:2x2", f"results_dir={tmp_path / 'r'}"]
    assert [main(words), main(words)] == [0, 0]
    assert len(Store(tmp_path / "r").load()) == 1


@pytest.mark.usefixtures("in_this_process")
def test_several_files_are_one_step(hlo, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text(hlo_texts.gathers("x"))
    words = ["topology=v5e:2x2", "mesh=[model:4]", "print=json", f"results_dir={tmp_path / 'r'}"]
    for files in (f"[{hlo}]", f"[{other}]", f"[{hlo},{other}]"):
        assert main(["estimate", f"hlo={files}", "name=step", *words]) == 0
    one, two, both = (json.loads(line)["latency_s"] for line in capsys.readouterr().out.splitlines())
    assert both == pytest.approx(one + two)


CPU = (
    "HloModule jit_f, is_scheduled=true\n\nENTRY %main (x: f32[4]) -> f32[4] {\n  ROOT %x = f32[4]{0} parameter(0)\n}\n"
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (CPU, "was compiled for a CPU, and tpu-v5e is a TPU"),
        (GATHERS.replace("is_scheduled=true, ", ""), "lacks is_scheduled=true"),
        (GATHERS[: len(GATHERS) // 2], "ends within a computation, so it is cut off"),
        (GATHERS[: GATHERS.rindex("ROOT")], "ends within a computation, so it is cut off"),
        (GATHERS.replace("ENTRY ", ""), "the module ends before its entry computation does; dump it again"),
        ("", "is empty; dump with"),
        (
            GATHERS.replace('"window_config"', '"megacore_config":{"megacore_split_dim":"1"},"window_config"'),
            "tpu-v5e is",
        ),
        ("step: 3\n", "does not begin with HloModule"),
        (GATHERS.replace("num_partitions=4", "num_partitions=64"), "runs on 64 devices, and 4 tpu-v5e have 4"),
        (hlo_texts.loop_of_unknown_turns(), "trip_count=null: is needed"),
    ],
)
def test_a_file_that_cannot_be_timed_is_refused_in_a_sentence(content, problem, tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text(content)
    with pytest.raises(ShardbenchError) as refused:
        answers_of(Question(slice=slice_named("v5e:2x2"), hlo=[str(path)]))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("matmuls", "others"), [(1, 0), (0, 30)])
def test_a_text_without_split_work_is_not_v4s(matmuls, others, tmp_path):
    box = hlo_texts.BOX
    lines = [f"  %a = {box} parameter(0)", f"  %b = {box} parameter(1)"]
    lines += [f"  %c.{n} = {box} convolution(%a, %b), {hlo_texts.cycles(9000)}" for n in range(matmuls)]
    lines += [f"  %c.{n} = {box} fusion(%a), calls=%none, {hlo_texts.cycles(9000)}" for n in range(others)]
    body = f"ENTRY %main (a: x, b: x) -> x {{\n{chr(10).join(lines)}\n  ROOT %r = {box} add(%a, %b)\n}}\n"
    path = tmp_path / "dump.txt"
    path.write_text(hlo_texts.module(body))
    with pytest.raises(InvalidRequest, match=r"splits no work between two cores .* tpu-v4 is another TPU"):
        answers_of(Question(slice=slice_named("v4:2x2x1"), hlo=[str(path)]))


TARGET = """tpu_topology_args {
  version: TPU_VERSION_VIPERFISH
  variant: "lite"
  chips_per_host_bounds {
    x: 2
    y: 2
    z: 1
  }
  host_bounds {
    x: 1
    y: 2
    z: 1
  }
}
"""


@pytest.fixture
def dump(tmp_path):
    """The folder of a dump: one module, for v5e:2x4, of which it uses one row after the other."""
    folder = tmp_path / "dump"
    folder.mkdir()
    module = "module_0003.jit_step.cl_1"
    text = GATHERS.replace("num_partitions=4", "num_partitions=8")
    (folder / f"{module}.after_codegen.txt").write_text(text)
    (folder / f"{module}.target_arguments.txt").write_text(TARGET)
    ids = "\n".join(f"  computation_devices {{ replica_device_ids: {device} }}" for device in range(8))
    (folder / f"{module}.execution_options.txt").write_text(ids)
    return folder


def test_a_dump_says_which_slice_and_devices_it_is_for(dump):
    from engines.compiled.program.dump import dumped_beside, module_in

    told = dumped_beside(module_in(str(dump)))
    assert told.topology == "v5e:2x4"
    # Ids count x first, places z, then y: device 1 stands at x=1, y=0, which is place 4 of [2, 4, 1].
    assert told.devices == (0, 4, 1, 5, 2, 6, 3, 7)


@pytest.mark.usefixtures("in_this_process")
def test_a_dump_needs_no_topology(dump, tmp_path, capsys):
    assert main(["estimate", f"hlo={dump}", "print=json", f"results_dir={tmp_path / 'r'}"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["hw"], row["num_chips"], row["mesh_shape"]) == ("tpu-v5e", 8, [2, 4, 1])


@pytest.mark.parametrize("topology", ["v4:2x2x2", "v5e:4x4", "v6e:2x4"])
def test_a_dump_of_another_slice_is_refused(topology, dump):
    with pytest.raises(InvalidRequest, match=r"was compiled for v5e:2x4, says its dump, .*; use topology=v5e:2x4"):
        answers_of(Question(slice=slice_named(topology), hlo=[str(dump)]))


def test_a_folder_has_one_module(dump, tmp_path):
    with pytest.raises(InvalidRequest, match="is a folder without scheduled HLO; dump with XLA_FLAGS"):
        answers_of(Question(slice=slice_named("v5e:2x4"), hlo=[str(tmp_path)]))
    (dump / "module_0004.jit_other.after_codegen.txt").write_text(GATHERS)
    with pytest.raises(InvalidRequest, match=r"has 2 modules: module_0003.*; name one"):
        answers_of(Question(slice=slice_named("v5e:2x4"), hlo=[str(dump)]))


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"\x00\x01binary", "exports? "), (b"module {\n  func.func @main(", "cannot be parsed")],
)
def test_a_stablehlo_that_cannot_be_read_is_refused_in_a_sentence(content, problem, tmp_path):
    pytest.importorskip("libtpu")
    path = tmp_path / "step.export"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=problem) as refused:
        answers_of(Question(slice=slice_named("v5e:2x2"), stablehlo=str(path)))
    assert "\\n" not in str(refused.value)


def test_a_refusal_of_the_child_ends_the_command(tmp_path, capsys):
    path = tmp_path / "dump.txt"
    path.write_text(CPU)
    assert main(["estimate", f"hlo={path}", "topology=v5e:2x2", f"results_dir={tmp_path / 'r'}"]) == 2
    assert "was compiled for a CPU" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give one of function=module:name, hlo=FILE and stablehlo=FILE"),
        ([f"hlo={__file__}", "function=a:b", "topology=v5e:2x2"], "both given"),
        ([f"hlo={__file__}", "settings=[a=1]", "topology=v5e:2x2"], "belongs to function="),
        ([f"hlo={__file__}"], "hw=: is required"),
        (["hlo=a"], "hlo=a: does not exist"),
        (["stablehlo=a", "hw=tpu-v5e"], "stablehlo=a: does not exist"),
        ([f"hlo={__file__}", "topology=v9:2x2"], "there is no chip v9"),
        ([f"hlo={__file__}", "topology=v5e:3x5"], "is not a slice of tpu-v5e; the nearest have 8 and 16 chips"),
        ([f"hlo={__file__}", "topology=v5e"], "is not the name of a topology"),
        ([f"hlo={__file__}", "topology=v5e:2x2", "hw=tpu-v5e"], "and topology are both given"),
        ([f"hlo={__file__}", "hw=tpu-v5e", "num_chips=7"], "is not a slice of tpu-v5e"),
        ([f"hlo={__file__}", "topology=v5e:2x2", "trip_count=[8,1]"], "the least and the most"),
        (["function=a:b", "hw=tpu-v5e", "arguments=[float]"], "is not a shape"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(words, problem, capsys):
    assert main(["estimate", *words]) == 2
    assert problem in capsys.readouterr().err


def test_shapes_and_axes_as_typed():
    assert shape_of("bf16[8,128]") == Shape("bfloat16", (8, 128))
    assert shape_of("f32[]") == Shape("float32", ())
    assert shape_of("bf16[8,128,4]@-,data+model") == Shape("bfloat16", (8, 128, 4), ((), ("data", "model")))
    assert axes_of(["data:2", "model:8"]) == {"data": 2, "model": 8}
    for wrong in (["data"], ["data:0"], ["data:2", "data:2"]):
        with pytest.raises(InvalidRequest):
            axes_of(wrong)
    assert [value_of(text) for text in ("8", "0.5", "true", "null", "'8'", "[1,2]", "ws_1d")] == [
        8, 0.5, True, None, "8", [1, 2], "ws_1d",
    ]  # fmt: skip


def test_a_mesh_alone_says_how_many_chips(tmp_path):
    from bench.cli.commands.estimate import KEYS

    (tmp_path / "a").touch()
    settings = {key.name: key.default for key in KEYS} | {
        "hlo": [str(tmp_path / "a")],
        "hw": "tpu-v5e",
        "mesh": ["model:16"],
    }
    assert question_of(settings).slice.num_chips == 16
