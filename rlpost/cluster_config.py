"""The recipe's ``cluster`` section; it stands apart so that commands which need no algorithm can read it without torch.

Left out: starting the cluster (cluster.py).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClusterSection(BaseModel):
    """Where Ray runs."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    address: str | None = Field(
        None, description="a running Ray cluster's address, auto for this machine's; default: start one here"
    )
    deadline_s: float = Field(
        600.0, gt=0, description="longest wait for any one remote call (start, learn, publish) before giving up"
    )
