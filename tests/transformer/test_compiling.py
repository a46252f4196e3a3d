"""That the tests of this folder compile plainly: nothing else would show it but the time that they take."""

import jax
import pytest
from builders.models import MODELS
from builders.plans import mesh_of, plan_of
from partitioned_case import TIME

from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

pytestmark = pytest.mark.usefixtures("plainly_compiled")


@pytest.mark.parametrize("partitioner", ["manual", "gspmd"])
def test_programs_have_the_fast_compiler_s_options(partitioner):
    plan, mesh = plan_of(MODELS["palm"], (1, 1, 2), "ws_1d", "heads", partitioner=partitioner), mesh_of((1, 1, 2))
    arguments = abstract_arguments(plan, mesh, TIME)
    for name, program in (("prefill", make_prefill(plan, mesh)), ("decode", make_decode(plan, mesh, 1))):
        # A jitted function inside another one has its options refused, and told.
        with pytest.raises(ValueError, match="xla_backend_optimization_level"):
            jax.jit(lambda *each, program=program: program(*each)).lower(*arguments[name])
