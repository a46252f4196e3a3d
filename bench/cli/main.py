"""``shardbench``: finds the subcommand, turns errors into one line and an exit code.

Exit codes: 0 done, 1 negative result (a regression or a failed check), 2 invalid request, 3 some points failed, 4 an
error that nobody foresaw.
"""

from bench.cli import start

if __name__ == "__main__":
    start.keep_current_folder_off_path()

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, cast

from bench.cli import interrupts, streams
from bench.cli.args import Command, help_text, parse
from bench.cli.unforeseen import EXIT_CODE, message
from bench.sweep.config_dirs import in_use, without_flags
from engines.core.errors import ShardbenchError
from engines.core.text import one_line

COMMANDS: Final[dict[str, str]] = {
    "run": "run one point, a grid or a sweep, and store its rows",
    "estimate": "time any JAX program on chips that are not there: a function, scheduled HLO or StableHLO",
    "report": "write latency and MFU tables, figures and findings from stored rows",
    "compare": "compare the rows of two stores; exit code 1 if a point is slower or fails now",
    "results": "list, check, export, add, merge, compact or rekey the stored rows",
    "validate": "compare an engine's predictions with published or measured times",
    "plan": "choose chips, mesh, layouts and dtype for a workload, and compare it with the runners-up",
    "pareto": "cost against latency over chips, batch, layout and dtype: the Pareto frontier as CSV and figure",
    "calibrate": "fit the constants of the analytic or the compiled engine to measured times",
    "model": "write the model of a checkpoint into your own config folder, or print it as YAML",
    "distill": "let a small model learn from a text, alone or from a teacher, and write it as a checkpoint",
    "import": "store results of other benchmark harnesses as published rows",
    "jobs": "write the job file that runs a command on Kubernetes, SLURM, xpk or SkyPilot, with one store for all",
    "nightly": "run a sweep, judge it by the nights before it, write report and dashboard; exit code 1 if worse",
    "dashboard": "write a static site of all rows: explore, filter and compare them, and see each with its command",
    "wandb": "log stored rows to Weights & Biases that were stored without it, or save a view that draws them",
    "env": "show what a row records of here (git revision, versions, machine, flags), extras, results folder",
}
"""Subcommand → its line in the help. The module is ``bench/cli/commands/<name>.py``."""
STORING: Final = ("run", "estimate", "report", "validate", "calibrate", "distill", "import", "nightly", "dashboard")
"""Subcommands that write files beside what they print."""
MODULES: Final = {"import": "import_"}
"""Subcommand → module, if the subcommand is a keyword of Python."""

HELP: Final = """\
shardbench: latency, utilisation and cost of a Transformer partitioned over TPUs or GPUs

usage: shardbench COMMAND [key=value ...]

{commands}

  shardbench COMMAND --help    the keys of a command
  --config-dir FOLDER          look for models, chips, sweeps … in FOLDER/model, FOLDER/hw, FOLDER/sweep first; for
                               every command, as often as needed; SHARDBENCH_CONFIG_DIR=FOLDER:FOLDER does the same
  --completion bash            print what makes bash complete: eval "$(shardbench --completion bash)" in ~/.bashrc
  SHARDBENCH_TRACEBACK=1       show the traceback of an error

examples:
  shardbench run model=palm-540b hw=tpu-v4 num_chips=64 phase=decode batch_size=64 weight_dtype=int8
  shardbench run model=tiny hw=cpu num_chips=8 engine=jax batch_size=[8,16] input_len=32 output_len=8
  shardbench run +sweep=paper-table2 engine=[published,analytic]
  shardbench report out=reports/mine

exit codes: 0 done, 1 negative result (a regression or a failed check), 2 invalid request, 3 some points failed, \
4 an error that nobody foresaw (please report it)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's own; returns the exit code."""
    if argv is None:
        return _in_this_process(sys.argv[1:])
    words = list(argv)
    try:
        words, folders = without_flags(words)
        with in_use(folders):
            return _dispatch(words)
    except ShardbenchError as error:
        if os.environ.get("SHARDBENCH_TRACEBACK"):
            traceback.print_exc()
        print(f"shardbench: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the output (head, less) has exited, which is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        print(
            "shardbench: interrupted; finished points are stored, run the same command again to continue",
            file=sys.stderr,
        )
        return interrupts.exit_code(error)
    except Exception as error:
        if os.environ.get("SHARDBENCH_TRACEBACK"):
            traceback.print_exc()
        print(f"shardbench: {message(error)}", file=sys.stderr)
        return EXIT_CODE


def _in_this_process(words: Sequence[str]) -> int:
    start.restart_in_utf8()
    start.let_warnings_be_warnings()
    interrupts.take_sigterm()
    printed = streams.prepare()
    command = next((word for word in words if word in COMMANDS), None)
    printed.stores = command in STORING
    if command is not None and not start.has_current_folder():
        print("shardbench: the current folder has been deleted; change to one that exists", file=sys.stderr)
        return 2
    code = main(words)
    sys.stdout.flush()
    if printed.problem is None:
        return code
    print(
        f"shardbench: stdout could not be written ({printed.problem}); what was printed is not complete",
        file=sys.stderr,
    )
    return code or 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS)) + 2
        print(HELP.format(commands="\n".join(f"  {name:<{width}}{line}" for name, line in COMMANDS.items())))
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("shardbench"))
        return 0
    name, rest = words[0], words[1:]
    if name in ("--completion", "--complete"):
        return _complete(name, rest)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ShardbenchError(
            f"{name}: is not a command; " + (f"did you mean {near[0]}" if near else "see shardbench --help")
        )
    module = importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}")
    if name == "run":
        if not {"-sc", "--shell-completion"}.isdisjoint(rest):
            raise ShardbenchError('-sc: is not how completion is set up; use eval "$(shardbench --completion bash)"')
        return int(module.run(rest))
    command = cast(Command, module)
    if "--help" in rest or "-h" in rest:
        print(help_text(name, command))
        return 0
    verb, settings = parse(name, rest, command.KEYS, command.VERBS)
    return command.main(verb, settings)


def _complete(flag: str, rest: Sequence[str]) -> int:
    from bench.cli.completion import candidates, script

    if flag == "--completion":
        print(script(rest[0] if rest else ""))
    else:
        for found in candidates(" ".join(rest), tuple(COMMANDS), MODULES):
            print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
