"""What only the eager backend promises: the caches stay where they are, and no gradient is kept."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.engines.eager.engine import GraphFunction
from jukebox_deploy.engines.eager.tensors import to_numpy, to_tensor
from jukebox_deploy.errors import EngineError
from tests.engines import handmade_prior


def test_caches_stay_in_their_memory():
    session = handmade_prior.eager_engine().prior_session(0, 3)
    address = session._tensors["key_0"].data_ptr()
    session.step(2)
    session.prefill(range(1, 3))
    session.step(1)
    assert session._tensors["key_0"].data_ptr() == address


def test_caches_that_a_step_copies_are_noticed():
    """PyTorch 2.11 compiles such steps out of ones that write in place, and what they give looks right."""
    engine = handmade_prior.eager_engine()
    step = engine._opener

    def copying(spec: GraphSpec) -> GraphFunction:
        function = step(spec)
        return lambda *tensors: function(*(tensor.clone() for tensor in tensors))

    engine._opener = copying
    with pytest.raises(EngineError, match=r"PyTorch .* did not update key_0 in place.*run without --compile"):
        engine.prior_session(0, 2).step(1)


def test_nothing_is_kept_for_gradients():
    weight = torch.nn.Parameter(torch.ones(()))
    engine = handmade_prior.eager_engine()
    engine._opener = lambda spec: lambda codes: ((codes[:, None].repeat_interleave(2, 2) * weight).float(),)
    audio = engine.runner(GraphKind.VQVAE_DECODE, 0)({"codes": np.array([[1, 2]])})["audio"]
    np.testing.assert_array_equal(audio, [[[1, 1, 2, 2]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int32, np.bool_, ml_dtypes.bfloat16])
def test_arrays_and_tensors_are_the_same_numbers(dtype):
    array = np.array([[0, 1], [3, 7]]).astype(dtype)
    tensor = to_tensor(array, "cpu")
    assert str(tensor.dtype) == f"torch.{array.dtype.name}"
    np.testing.assert_array_equal(tensor.float().numpy(), array.astype(np.float32))
    back = to_numpy(tensor)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
