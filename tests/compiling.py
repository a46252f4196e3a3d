"""How tests compile programs of a few numbers, which otherwise take seconds to compile and no time to run."""

import functools
import inspect

import jax

from engines.transformer import reference

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


def jit_plainly(patch):
    """Until ``patch`` is undone, what is jitted from now on and the reference."""
    original, plain = jax.jit, plainly()

    def jit(*arguments, compiler_options=None, **settings):
        return original(*arguments, compiler_options={**plain, **(compiler_options or {})}, **settings)

    patch.setattr(jax, "jit", jit)
    use_plain_reference(patch)


def prepare_plainly(patch):
    """Until ``patch`` is undone, what is lowered and then compiled, and the reference."""
    original, plain = jax.stages.Lowered.compile, plainly()

    def compile_plainly(lowered, compiler_options=None, **settings):
        return original(lowered, {**plain, **(compiler_options or {})}, **settings)

    patch.setattr(jax.stages.Lowered, "compile", compile_plainly)
    use_plain_reference(patch)


def use_plain_reference(patch):
    """Until ``patch`` is undone, in engines.transformer."""
    for name, function in _plain_reference().items():
        patch.setattr(reference, name, function)


@functools.cache
def _plain_reference():
    """Its functions, jitted. Compiled once a process for the same shapes, whichever module asks.

    What stands before the layers is not jitted there: its operations would be compiled one by one, and not plainly.
    """
    return {
        name: jax.jit(inspect.unwrap(getattr(reference, name)), static_argnums=static, compiler_options=plainly())
        for name, static in (("embedded", 0), ("layer", (0, 1, 2)), ("output_logits", 0))
    }
