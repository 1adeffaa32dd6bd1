"""Plans that outlive their training: the next training of the same network takes its plan over.

A plan allocates panels, workspaces and copies of the optimizer's memory. For small networks that takes as long as an
epoch, and ``partial_fit`` and its like train one epoch a call. A plan that is kept holds no data, and it goes with its
network. Whether it is there changes no result: `gpuprop.core.plan.Renewable.renew` takes a training only if a new plan
would be equal to this one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, cast
from weakref import ref

from gpuprop.core.plan import Renewable

if TYPE_CHECKING:
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import Training
    from gpuprop.model.network import Network

__all__ = ["MOST_BYTES", "give_back", "renewed"]

#: All kept plans together have at most so many bytes; beyond that the oldest go.
MOST_BYTES = 2**28

_lock = threading.RLock()
#: By the identity of a network, the newest last. A plan refers to the network's layers, and never to the network.
_kept: OrderedDict[int, tuple[ref[Network], Renewable]] = OrderedDict()
_NOTHING = (None, None)


def renewed(network: Network, training: Training, want: str) -> Plan | None:
    """Return the plan that was kept for a network, for this training and no other; None if a new one is needed."""
    with _lock:
        _, plan = _kept.pop(id(network), _NOTHING)
    return cast("Plan", plan) if plan is not None and plan.renew(training, want) else None


def give_back(network: Network, plan: Plan | None) -> None:
    """Keep the plan of a training that has ended."""
    if not isinstance(plan, Renewable):
        return
    plan.release()
    key = id(network)

    def forget(_: ref[Network]) -> None:
        with _lock:
            _kept.pop(key, None)

    with _lock:
        _kept[key] = ref(network, forget), plan
        _kept.move_to_end(key)
        while sum(one.n_bytes for _, one in _kept.values()) > MOST_BYTES:
            _kept.popitem(last=False)
