import math

import pytest
import torch

from gradverify.cases import layouts
from gradverify.errors import UsageError
from gradverify.records.vocabulary import ALL

SHAPES = [(), (0,), (1,), (5,), (1, 1), (3, 4), (2, 0, 3), (2, 3, 4), (2, 3, 4, 5), (1, 3, 1, 2), (2, 2, 2, 2, 2)]
NAMES = (*ALL, layouts.STRIDE_ZERO)


def ramp(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_a_layout_changes_no_value(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = ramp(shape).to(dtype)
    varied = layouts.with_layout(tensor, name)
    assert varied.dtype == dtype
    assert torch.equal(varied, tensor)
    assert varied.numel() == 0 or varied.data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("contiguous", "offset", "expanded")])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layout_that_is_possible_differs_from_the_contiguous_one(name: str, shape: tuple[int, ...]) -> None:
    varied = layouts.with_layout(ramp(shape), name)
    if layouts.possible(shape, name):
        assert not varied.is_contiguous() or varied.storage_offset()


def test_a_sliced_tensor_has_stride_two_an_offset_and_decoys_between_its_elements() -> None:
    varied = layouts.with_layout(ramp((3, 4)), "sliced")
    assert (varied.stride(), varied.storage_offset()) == ((9, 2), 1)
    assert varied.as_strided((1,), (1,), 0).item() == layouts.DECOY


def test_an_offset_tensor_is_contiguous_and_not_at_the_start_of_its_memory() -> None:
    varied = layouts.with_layout(ramp((3, 4)), "offset")
    assert varied.is_contiguous()
    assert varied.storage_offset() == 1


def test_an_expanded_tensor_has_stride_zero_along_the_repeated_axis() -> None:
    even = layouts.repeat(ramp((1, 3, 4)), layouts.repeated_axis((1, 3, 4)))
    assert layouts.with_layout(even, "expanded").stride(1) == 0
    assert torch.equal(layouts.with_layout(even, "expanded"), even)


def test_a_tensor_that_is_not_constant_along_the_axis_is_not_expanded() -> None:
    assert 0 not in layouts.with_layout(ramp((3, 4)), "expanded").stride()


def test_stride_zero_is_the_cotangent_of_a_sum() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    seen = []
    x.clone().register_hook(seen.append)
    y = x * 1
    y.register_hook(seen.append)
    y.sum().backward()
    assert layouts.with_layout(torch.ones(3, 4), "stride0").stride() == seen[-1].stride() == (0, 0)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="'striped'"):
        layouts.with_layout(torch.ones(2), "striped")
