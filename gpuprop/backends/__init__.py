"""Devices: their names, which of them this machine can use, and which one ``auto`` takes; see `devices`."""

from gpuprop.backends.devices import (
    DEVICES,
    ENVIRONMENT_VARIABLE,
    Availability,
    Choice,
    availability,
    choose,
    get_ops,
    resolve,
)
from gpuprop.errors import BackendUnavailableError

__all__ = [
    "DEVICES",
    "ENVIRONMENT_VARIABLE",
    "Availability",
    "BackendUnavailableError",
    "Choice",
    "availability",
    "choose",
    "get_ops",
    "resolve",
]
