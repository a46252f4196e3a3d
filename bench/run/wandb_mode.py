"""How rows are logged to Weights & Biases on this machine: online, offline or not at all."""

import http.client
import importlib.util
import netrc
import os
import ssl
import urllib.error
import urllib.request
from typing import Final

from engines.core.errors import InvalidRequest

MODES: Final = ("auto", "offline", "online", "disabled")


def resolved_mode(mode: str) -> str:
    """The mode in effect on this machine: online, offline or disabled. Uses no network.

    The library's own WANDB_MODE can turn logging off or offline, never on. ``auto`` is disabled without the library.

    Raises:
        InvalidRequest: the mode is unknown.
    """
    if mode not in MODES:
        raise InvalidRequest("wandb.mode", mode, "is not known", f"use one of {', '.join(MODES)}")
    if mode == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
        return "disabled"
    if mode == "auto" and not is_installed():
        return "disabled"
    if os.environ.get("WANDB_MODE") == "offline":
        return "offline"
    if mode == "auto":
        return "online" if _logged_in() else "offline"
    return mode


def is_installed() -> bool:
    """Whether the library is installed; imports nothing."""
    return importlib.util.find_spec("wandb") is not None


def unreachable(server: str, timeout_s: float) -> str | None:
    """Why the server at this URL cannot be reached, by asking it for anything; None if it answers anything.

    The library itself would try for minutes. A certificate that only the library can judge counts as an answer.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(server, method="HEAD"), timeout=timeout_s):
            return None
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return None
        return f"{server} cannot be reached ({error.reason})"
    except TimeoutError:
        return f"{server} did not answer within {timeout_s:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{server} cannot be reached ({error})"


def _logged_in() -> bool:
    """Whether this machine has an API key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in logins.hosts)
