"""Parts of a model that autocast must leave alone. Source: specification 4.4 and 17.3."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """The context in which products on the device of `x` keep their dtype; it does not cast `x`.

    Outside of autocast it does nothing, so it leaves no trace in exported graphs.
    """
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
