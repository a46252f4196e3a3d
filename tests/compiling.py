"""How tests compile programs of a few numbers, which otherwise take seconds to compile and no time to run."""

import functools

import jax

PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@functools.cache
def plainly():
    """Options that have machine code written plainly, in a fifth of the time; those of them that this XLA knows.

    What they leave out comes after all that this project decides: it is the same HLO that is computed.
    """
    return {key: value for key, value in PLAINLY.items() if _is_known({key: value})}


def _is_known(option):
    try:
        jax.jit(abs).lower(1.0).compile(option)
    except jax.errors.JaxRuntimeError:
        return False
    return True
