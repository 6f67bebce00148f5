"""From ``sync.transport`` to the object that carries weights: short names, a user's own class, and what auto takes.

Left out: what each of them needs (its own file says).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.reward.plugins import PluginError
from rlpost.reward.registry import Registry
from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import Bundle

AUTO = "auto"
TRANSPORTS = Registry(
    "weight transport",
    {
        "ipc": "rlpost.rollout.transport.ipc:CudaIpc",
        "object_store": "rlpost.rollout.transport.object_store:ObjectStore",
        "nccl": "rlpost.rollout.transport.nccl:Nccl",
    },
    Transport,
)
"""Short names; ``auto`` takes the first that offers itself and can be."""


class TransportError(ValueError):
    """No such transport, or one that cannot be here; the message says why and what to do."""


def find(name: str) -> Transport:
    """The transport of a short name or ``module:Class``.

    Raises:
        TransportError: there is none of this name.
    """
    try:
        found: type[Transport] = TRANSPORTS.load(name)
    except PluginError as error:
        raise TransportError(str(error)) from error
    return found(name)


def choose(asked: str, bundles: Sequence[Bundle]) -> Transport:
    """The transport that a recipe asks for, or what ``auto`` takes for actors placed so (no bundles: on a CPU).

    Raises:
        TransportError: weights cannot travel so here.
    """
    if asked == AUTO:
        return next(one for one in map(find, TRANSPORTS.names) if one.automatic and not one.refusal(bundles))
    transport = find(asked)
    if why := transport.refusal(bundles):
        raise TransportError(f"{asked} {why}")
    return transport
