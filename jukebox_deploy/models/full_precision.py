"""Protection of parts of a model from autocast. Source: specification 4.4 and 17.3."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast is disabled on the device of `x`; `x` itself is not cast.

    Outside of autocast the context does nothing, so it does not affect exported graphs.
    """
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
