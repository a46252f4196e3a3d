"""The NVIDIA GPUs of this machine: what the driver says of them, and the power that it lets them use."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engines.core.chip import Chip
from engines.core.errors import Unsupported

QUERY_TIMEOUT_S: Final = 20
SLOWED_BY: Final = (
    "hw_slowdown",
    "hw_thermal_slowdown",
    "sw_thermal_slowdown",
    "sw_power_cap",
    "hw_power_brake_slowdown",
)
"""Why a GPU runs below the clock that it was asked for, as ``nvidia-smi --help-query-gpu`` calls it."""
SAME_W: Final = 1.0
"""Power limits that differ by less are the same one, rounded."""


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """What the driver lets a GPU use now, and what the board comes with, in watts."""

    watts: float
    default_watts: float

    @property
    def is_lowered(self) -> bool:
        """Whether the GPU was told to use less than the board comes with."""
        return self.watts < self.default_watts - SAME_W


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU does now: its clock of multiprocessors, the highest, what slows it down, and who computes on it."""

    index: int
    clock_hz: float
    max_clock_hz: float
    throttled_by: Sequence[str]
    processes: Sequence[int]


def check_present(chip: Chip, device_names: Sequence[str], power_limits: Sequence[PowerLimit] = ()) -> None:
    """Check that this machine's GPUs, given by their names, are all ``chip``, under the power limit that it states.

    Where no limits are given, the driver does not know any, and a stated one cannot be confirmed.

    Raises:
        Unsupported: there are none, there are others, or their power limits differ from the chip's.
    """
    if not device_names:
        raise Unsupported(f"hw={chip.name}: is not on this machine, which has no GPU")
    others = sorted({name for name in device_names if name.strip() not in chip.device_names})
    if others:
        raise Unsupported(f"hw={chip.name}: is not on this machine, which has {len(device_names)} × {others[0]}")
    check_power(chip, power_limits)


def check_power(chip: Chip, power_limits: Sequence[PowerLimit]) -> None:
    """Check that GPUs run under the power limit that the chip states, or at full power if it states none.

    Raises:
        Unsupported: they do not, or a limit is stated and the driver knows none.
    """
    stated = chip.power_limit_w
    if stated is not None and not power_limits:
        raise Unsupported(
            f"hw.power_limit_w={stated:g}: nvidia-smi tells no power limit here to confirm it by; leave it out"
        )
    for each in power_limits:
        if stated is not None and abs(each.watts - stated) > SAME_W:
            raise Unsupported(
                f"hw.power_limit_w={stated:g}: nvidia-smi says {each.watts:g} W; use that, "
                f"or set the limit with nvidia-smi -pl {stated:g}"
            )
        if stated is None and each.is_lowered:
            raise Unsupported(
                f"hw={chip.name}: nvidia-smi says that its power limit is {each.watts:g} of {each.default_watts:g} W; "
                f"add hw.power_limit_w={each.watts:g}, so that its rows are told from those at full power"
            )


def device_names(nvidia_smi: str = "nvidia-smi") -> list[str]:
    """Names of this machine's GPUs as ``nvidia-smi`` lists them; empty if it is missing, fails or hangs."""
    return _query("name", nvidia_smi)


def power_limits(nvidia_smi: str = "nvidia-smi") -> list[PowerLimit]:
    """The power limits of this machine's GPUs; empty if ``nvidia-smi`` is missing, fails, or does not know them."""
    limits = []
    for line in _query("power.limit,power.default_limit", nvidia_smi, "nounits"):
        try:
            watts, default_watts = (float(text) for text in line.split(","))
        except ValueError:  # [N/A] where a board has none
            return []
        limits.append(PowerLimit(watts, default_watts))
    return limits


def driver_and_gpus(nvidia_smi: str = "nvidia-smi") -> tuple[str | None, list[str]]:
    """The driver's version, and ``NAME, POWER LIMIT`` of each GPU in its words; None and empty without a driver."""
    found = [line.partition(", ") for line in _query("driver_version,name,power.limit", nvidia_smi)]
    return (found[0][0] if found else None), [described for _, _, described in found]


def gpu_states(nvidia_smi: str = "nvidia-smi") -> list[GpuState]:
    """What each GPU does now; empty if ``nvidia-smi`` is missing, fails or does not know."""
    keys = ["index", "uuid", "clocks.sm", "clocks.max.sm", *(f"clocks_throttle_reasons.{each}" for each in SLOWED_BY)]
    users: dict[str, list[int]] = {}
    for line in _query("gpu_uuid,pid", nvidia_smi, of="compute-apps"):
        uuid, _, pid = line.partition(",")
        if pid.strip().isdecimal():
            users.setdefault(uuid.strip(), []).append(int(pid))
    found = []
    for line in _query(",".join(keys), nvidia_smi, "nounits"):
        index, uuid, clock, most, *reasons = (text.strip() for text in line.split(","))
        try:
            hertz = float(clock) * 1e6, float(most) * 1e6
        except ValueError:  # [N/A]
            continue
        slowed = [name for name, said in zip(SLOWED_BY, reasons, strict=False) if said == "Active"]
        found.append(GpuState(int(index), *hertz, slowed, users.get(uuid, [])))
    return found


def _query(keys: str, nvidia_smi: str, *formats: str, of: str = "gpu") -> list[str]:
    words = [nvidia_smi, f"--query-{of}={keys}", f"--format={','.join(('csv', 'noheader', *formats))}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=QUERY_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
