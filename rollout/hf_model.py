"""What a Hugging Face model's configuration says that both learner and engines act on: which class loads it, and
whether it is a masked-diffusion model. Left out: what is done with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

REMOTE_CODE = "transformers_modules"
"""Package that transformers puts a model's own code into."""
KNOWN_SHIFTS = {"dream": 1}
"""Models of the hub whose own configuration does not say it, by lower-case ``model_type``."""


def masked_diffusion_facts(config: Any) -> tuple[int, int] | None:
    """``(mask token, logit shift)`` of a masked-diffusion model, which is one that names a ``mask_token_id``; None of
    any other. The shift is the number of rows between a token and its prediction: 0 (LLaDA) or 1 (Dream)."""
    mask = getattr(config, "mask_token_id", None)
    if mask is None:
        return None
    known = KNOWN_SHIFTS.get(str(getattr(config, "model_type", "")).lower(), 0)
    return int(mask), int(getattr(config, "logit_shift", known))


def auto_class(folder: Path | str, trust_remote_code: bool = False) -> Any:
    """AutoModelForCausalLM; AutoModel where the model's own code offers only that (Dream does)."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    offered = getattr(config, "auto_map", None) or {}
    return AutoModel if "AutoModel" in offered and "AutoModelForCausalLM" not in offered else AutoModelForCausalLM
