"""Programs of others through the TPU compiler: from Python, from factories, from files."""

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("libtpu")
import jax
import jax.export
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bench.estimate import absent_mesh, compare, estimate
from bench.programs.question import Question
from bench.programs.shapes import shape_of
from bench.programs.worker import answers_of
from bench.sweep.catalog import load_chip
from engines.compiled.program.estimate import Settings
from engines.compiled.program.files import estimate_hlo, estimate_stablehlo
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError
from engines.core.slice import slice_of

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples" / "estimate"
V5E4 = {"hw": "tpu-v5e", "mesh": {"model": 4}}
WIDE = jax.ShapeDtypeStruct((512, 2048), jnp.bfloat16)
SQUARE = jax.ShapeDtypeStruct((2048, 2048), jnp.bfloat16)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def product(x, w):
    return jnp.tanh(x @ w)


@pytest.fixture(scope="module")
def found(cache):
    return estimate(product, WIDE, SQUARE, in_shardings=(P(None, "model"), P("model", None)), **V5E4)


def asked(**settings):
    return Question(slice=slice_of(load_chip("tpu-v5e"), 4), axes={"model": 4}, **settings)


def test_a_plain_function_is_timed_by_its_lines(found):
    places = {line.source.file for line in found.hot_spots if line.source.file}
    assert places == {__file__}
    assert sum(line.seconds for line in found.hot_spots) == pytest.approx(found.step_time_s)
    (reduced,) = found.collectives
    assert (reduced.opcode, reduced.axes) == ("all-reduce", ("model",))
    assert found.hbm.arguments["x"] == 512 * 512 * 2
    assert found.hbm.arguments["w"] == 512 * 2048 * 2


def test_arrays_and_jitted_functions_give_the_same_program(found):
    arrays = jnp.zeros(WIDE.shape, WIDE.dtype), jnp.zeros(SQUARE.shape, SQUARE.dtype)
    again = estimate(jax.jit(product), *arrays, in_shardings=(P(None, "model"), P("model", None)), **V5E4)
    assert again.program_id == found.program_id
    assert "same program" in compare(found, again).explain()


def test_the_scheduled_text_alone_takes_the_same_time(found, tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text(found.hlo)
    again = estimate_hlo(str(path), found.slice, {"model": 4}, Settings())
    assert again.step_time_s == found.step_time_s
    assert again.hbm.temporaries_bytes is None


SHARDED = (P(None, "model"), P("model", None))


def exported(mesh=None, platform="tpu"):
    shardings = SHARDED if mesh is not None else (None, None)
    shapes = [
        each if spec is None else jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=NamedSharding(mesh, spec))
        for each, spec in zip((WIDE, SQUARE), shardings, strict=True)
    ]
    return jax.export.export(jax.jit(product), platforms=[platform])(*shapes)


def content_of(form, made):
    if form == "export":
        pytest.importorskip("flatbuffers")
        return bytes(made.serialize())
    return made.mlir_module().encode() if form == "text" else made.mlir_module_serialized


@pytest.mark.parametrize("form", ["text", "portable", "export"])
def test_an_exported_program_is_its_function_on_its_own_mesh(form, found, tmp_path):
    path = tmp_path / "step.export"
    path.write_bytes(content_of(form, exported(absent_mesh("tpu-v5e", {"model": 4}))))
    again = estimate_stablehlo(str(path), found.slice, None, Settings())
    assert again.step_time_s == found.step_time_s
    assert [each.axes for each in again.collectives] == [("model",)]
    with pytest.raises(InvalidRequest, match="is partitioned over 4 devices, and the slice has 8"):
        estimate_stablehlo(str(path), slice_of(load_chip("tpu-v5e"), 8), None, Settings())


def test_an_export_for_another_platform_is_refused(tmp_path):
    path = tmp_path / "step.export"
    path.write_bytes(content_of("export", exported(platform="cpu")))
    with pytest.raises(InvalidRequest, match=r"was exported for cpu.*; export it with platforms=\['tpu'\]"):
        estimate_stablehlo(str(path), slice_of(load_chip("tpu-v5e"), 1), None, Settings())


def test_lines_are_those_of_the_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    identities = set()
    for before in (0, 3):
        text = "import jax.numpy as jnp\n" + "\n" * before + "def step(x, w):\n    return jnp.tanh(x @ w)\n"
        (tmp_path / "moved_step.py").write_text(text)
        sys.modules.pop("moved_step", None)
        importlib.invalidate_caches()
        step = importlib.import_module("moved_step").step
        now = estimate(step, WIDE, SQUARE, hw="tpu-v5e")
        identities.add(now.program_id)
        assert {line.source.line for line in now.hot_spots if line.source.file} == {3 + before}
    assert len(identities) == 1


def test_no_line_is_ours(found):
    root = str(EXAMPLES.parents[1])
    alone = estimate(jnp.matmul, WIDE, SQUARE, hw="tpu-v5e", name="matmul")
    for hlo in (found.hlo, alone.hlo):
        assert f"{root}/bench/" not in hlo
        assert f"{root}/engines/" not in hlo


def test_slices_are_joined_by_the_first_axis():
    def loss(w, x):
        return jnp.sum(product(x, w).astype(jnp.float32))

    step = {"hw": "tpu-v5e", "mesh": {"data": 2, "model": 4}, "num_slices": 2}
    two = estimate(jax.grad(loss), SQUARE, WIDE, in_shardings=(P(), P("data", "model")), **step)
    assert two.slice.num_chips == 4
    between = next(each for each in two.collectives if each.axes == ("data",))
    assert between.seconds == pytest.approx(2 / 2 * between.bytes / 3.125e9)
    with pytest.raises(InvalidRequest, match="put the axis that goes from slice to slice first"):
        absent_mesh("tpu-v5e", {"model": 1, "data": 8}, num_slices=2)


def test_the_doubled_gather_is_told_by_its_lines(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (answer,) = answers_of(asked(function="doubled_gather:step", path=(str(EXAMPLES),), settings={"tokens": 128}))
    assert answer.status == "ok"
    lines = (EXAMPLES / "doubled_gather.py").read_text().splitlines()
    first, second = (number for number, line in enumerate(lines, 1) if "jax.lax.all_gather(" in line)
    (told,) = answer.told
    assert "is done twice" in told
    assert f"doubled_gather.py:{first} and " in told
    assert f"doubled_gather.py:{second}: one would do" in told


def test_a_kernel_is_charged_what_it_states(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    question = Question(
        slice=slice_of(load_chip("tpu-v5e"), 1),
        function="flash_attention:attend",
        path=(str(EXAMPLES),),
        settings={"batch": 1, "length": 1024},
    )
    (answer,) = answers_of(question)
    (program,) = answer.programs
    assert program["unestimated_instructions"] == {"custom-call tpu_custom_call": 1}
    assert program["interval_s"][0] > 0


@pytest.mark.parametrize(
    ("library", "module", "settings"),
    [
        ("jax", "mlp", {"batch": 256, "width": 512, "hidden": 1024}),
        ("equinox", "equinox_mlp", {"batch": 256, "width": 256, "depth": 2}),
        ("flax", "flax_mlp", {"batch": 256, "width": 256, "hidden": 512}),
    ],
)
def test_train_steps_of_the_examples(library, module, settings, monkeypatch):
    pytest.importorskip(library)
    monkeypatch.setattr(sys, "path", [*sys.path])
    question = Question(
        slice=slice_of(load_chip("tpu-v5e"), 4),
        axes={"data": 2, "model": 2},
        function=f"{module}:train_step",
        path=(str(EXAMPLES),),
        settings=settings,
    )
    (answer,) = answers_of(question)
    assert answer.status == "ok", answer.error
    assert answer.programs[0]["collectives"][0]["opcode"] == "all-reduce"
    assert any("mlp.py:" in each["place"] for each in answer.programs[0]["hot_spots"])


def test_a_mesh_of_absent_devices_decides_the_slice():
    mesh = absent_mesh("tpu-v5e", {"data": 2, "model": 2})
    array = jax.ShapeDtypeStruct(WIDE.shape, WIDE.dtype, sharding=NamedSharding(mesh, P("data")))
    found = estimate(jnp.sin, array, hw="tpu-v5e")
    assert (found.slice.num_chips, dict(found.placement.axes)) == (4, {"data": 2, "model": 2})


def test_several_programs_of_a_step_and_several_names(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "parts.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)\n"
        "def step():\n"
        "    return {'a': [(jnp.dot, (x, x)), (jnp.sin, (x,))], 'b': (jnp.dot, (x, x))}\n"
    )
    several, one = answers_of(asked(function="parts:step", path=(str(tmp_path),)))
    assert (several.name, one.name) == ("parts.step.a", "parts.step.b")
    assert [len(each.programs) for each in (several, one)] == [2, 1]
    assert several.programs[0]["step_time_s"] == one.programs[0]["step_time_s"]


def test_what_cannot_be_timed_says_why_in_a_sentence():
    def branches_on_a_value(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(ShardbenchError, match=r"does not trace at .*test_compiling_programs\.py:"):
        estimate(branches_on_a_value, WIDE, **V5E4)
    with pytest.raises(InvalidRequest, match="does not fit arguments"):
        estimate(product, WIDE, SQUARE, in_shardings=(P("nowhere"), P()), **V5E4)
    odd = jax.ShapeDtypeStruct((511, 2048), jnp.bfloat16)
    with pytest.raises(InvalidRequest, match="does not fit arguments"):
        estimate(product, odd, SQUARE, in_shardings=(P("model"), P()), **V5E4)
    huge = jax.ShapeDtypeStruct((200_000, 200_000), jnp.bfloat16)
    with pytest.raises(OutOfMemory):
        estimate(product, huge, huge, hw="tpu-v5e")
    with pytest.raises(InvalidRequest, match="is not a slice of tpu-v5e"):
        estimate(product, WIDE, SQUARE, hw="tpu-v5e", num_chips=7)


def test_shapes_typed_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "typed.py").write_text("import jax.numpy as jnp\ndef step(x, w):\n    return jnp.tanh(x @ w)\n")
    shapes = [shape_of(text) for text in ("bf16[512,2048]@-,model", "bf16[2048,2048]@model")]
    (answer,) = answers_of(asked(function="typed:step", path=(str(tmp_path),), arguments=shapes))
    (program,) = answer.programs
    assert [each["axes"] for each in program["collectives"]] == [("model",)]
