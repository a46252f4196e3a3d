"""Where tests make temporary files: in one folder a session, which is gone with it, however that ends."""

import getpass
import os
import tempfile

from engines.host.scratch import ScratchFolder


def keep_in_one_folder():
    """Make that folder, and let this process and all that it starts use it; return it, which keeps it.

    What tests start may leave something there: a killed process does, and torchrun and W&B's library do by themselves.
    pytest's own folders (``tmp_path``) stay where they are, for who wants to look at them; so does what a compiler of
    PyTorch keeps for the next time.
    """
    usual = tempfile.gettempdir()
    scratch = ScratchFolder(prefix="shardbench-tests-")
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", usual)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(usual, f"torchinductor_{getpass.getuser()}"))
    os.environ["TMPDIR"] = str(scratch.path)
    tempfile.tempdir = None
    return scratch
