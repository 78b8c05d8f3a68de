"""The Triton kernels of attention on a CPU: run by test_attention.py in a process with TRITON_INTERPRET=1."""

from __future__ import annotations

import itertools
from dataclasses import astuple, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from gradverify.catalogue import attention as ops
from gradverify.catalogue.attention import Tiles, attention
from tests.catalogue.subjects import all_scores, normal

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
BOUND = 1e-14
TILES = Tiles((4, 8, 4, 1), (8, 4, 4, 1), (4, 4, 4, 1), (8, 8, 4, 1), (4, 8, 4, 1))
# b, hk, group, m, n, d, dv
SHAPES = ((1, 1, 2, 5, 9, 5, 5), (2, 1, 1, 9, 5, 3, 7), (1, 2, 1, 8, 8, 4, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(g: torch.Generator, shape: tuple[int, ...]) -> list[Tensor]:
    b, hk, group, m, n, d, dv = shape
    return [normal(g, b, hk * group, m, d), normal(g, b, hk, n, d), normal(g, b, hk, n, dv)]


def error(mine: Tensor, theirs: Tensor) -> float:
    """Relative to the norm, or absolute where that is 0; infinite where the shapes differ."""
    if mine.shape != theirs.shape or mine.isnan().any():
        return float("inf")
    return ((mine - theirs).norm() / (theirs.norm() or 1)).item() if mine.numel() else 0.0


def everything(f, primals: list[Tensor], tangents: list[Tensor], u: Tensor) -> tuple[Tensor, ...]:
    """The value, the gradients and the forward derivative."""
    leaves = [p.detach().requires_grad_() for p in primals]
    y = f(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, u), torch.func.jvp(f, tuple(primals), tuple(tangents))[1]


def worst(
    primals: list[Tensor], *, tiles: Tiles = TILES, mask: Tensor | None = None, deterministic: bool = True, **options
) -> float:
    """The largest error of the kernels against all scores, of values, gradients and tangents."""
    g = generator(1)
    fixed = {} if mask is None else {"mask": mask}
    own = {"deterministic": deterministic, "backend": "interpret", "tiles": tiles}
    fused = partial(attention, **fixed, **options, **own)
    plain = partial(all_scores, **fixed, **options)
    tangents = [normal(g, *p.shape) for p in primals]
    u = normal(g, *primals[0].shape[:3], primals[2].shape[3])
    found, wanted = (everything(f, primals, tangents, u) for f in (fused, plain))
    return max(map(error, found, wanted))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"causal": True, "align": "upper_left"},
        {"causal": True, "window": 3},
        {"window": (2, None), "align": "upper_left"},
        {"window": (None, 1), "scale": -0.7},
        {"window": 0},
    ],
    ids=str,
)
def test_values_gradients_and_tangents_are_those_of_all_scores(
    shape: tuple[int, ...], deterministic: bool, options: dict
) -> None:
    assert worst(drawn(generator(), shape), deterministic=deterministic, **options) <= BOUND


@pytest.mark.parametrize(("rows", "columns"), [(2, 16), (16, 2), (4, 4), (32, 32)])
def test_tiles_do_not_matter(rows: int, columns: int) -> None:
    primals = drawn(generator(2), (1, 1, 2, 7, 9, 3, 4))
    for deterministic in (True, False):
        tiles = Tiles.same(rows, columns)
        assert worst(primals, tiles=tiles, deterministic=deterministic, causal=True, window=4) <= BOUND


@pytest.mark.parametrize("shape", [(2, 2, 5, 9), (1, 2, 1, 9), (2, 1, 1, 9), (9,)], ids=str)
def test_an_additive_mask_is_differentiated_too(shape: tuple[int, ...]) -> None:
    g = generator(3)
    primals = [*drawn(g, (2, 1, 2, 5, 9, 5, 3)), normal(g, *shape)]
    primals[3][torch.rand(shape, generator=g) < 0.3] = -torch.inf
    for deterministic in (True, False):
        assert worst(primals, deterministic=deterministic, causal=len(shape) == 4) <= BOUND


def test_an_additive_mask_may_be_narrower_than_q() -> None:
    g = generator(3)
    assert worst(drawn(g, (1, 1, 1, 9, 13, 5, 3)), mask=normal(g, 9, 13).float(), causal=True) <= BOUND


@pytest.mark.parametrize("shape", [(2, 2, 5, 9), (2, 1, 9), (5, 1)], ids=str)
def test_a_boolean_mask_hides(shape: tuple[int, ...]) -> None:
    g = generator(4)
    mask = torch.rand(shape, generator=g) < 0.6
    assert worst(drawn(g, (2, 1, 2, 5, 9, 5, 3)), mask=mask) <= BOUND


@pytest.mark.parametrize("hidden", ["boolean", "additive", "window", "causal", "no keys"])
def test_rows_that_see_nothing_are_zero_with_zero_gradients(hidden: str) -> None:
    primals = drawn(generator(5), (1, 1, 2, 11, 0 if hidden == "no keys" else 5, 3, 3))
    see = torch.arange(11)[:, None].expand(11, 5) % 3 > 0
    options: dict = {
        "boolean": {"mask": see},
        "additive": {"mask": torch.zeros(11, 5).masked_fill(~see, -torch.inf)},
        "window": {"window": 1, "align": "upper_left"},
        "causal": {"causal": True},
        "no keys": {},
    }[hidden]
    q = primals[0].requires_grad_()
    y = attention(*primals, **options, backend="interpret", tiles=TILES)
    (dq,) = torch.autograd.grad(y.sum(), q)
    dead = (all_scores(*primals, **options) == 0).all(-1)
    assert dead.any()
    assert not y[dead].any()
    assert not dq[dead].any()
    assert worst([p.detach() for p in primals], **options) <= BOUND


@pytest.mark.parametrize("shift", [-3000.0, 3000.0])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_logits_far_from_zero_change_nothing(shift: float, causal: bool, deterministic: bool) -> None:
    """Tails of zeros beside logits of -3000: 2^(0 - lse) would be infinite."""
    q, k, v = drawn(generator(6), (1, 1, 1, 9, 13, 5, 3))
    q[..., 0], k[..., 0] = 1.0, shift
    # Of a difference of logits near 3000, 4 of 16 digits are gone in either implementation.
    assert worst([q, k, v], scale=1.0, causal=causal, deterministic=deterministic) <= 1e4 * BOUND


def test_a_copy_for_long_strides_lies_as_the_shapes_alone_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled takes the strides of results from fake tensors."""
    monkeypatch.setattr(ops, "REACH", 3)
    g = generator(11)
    q, k, v = drawn(g, (1, 1, 2, 5, 9, 5, 3))
    q, k, v = (t.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1) for t in (q, k, v))
    assert worst([q, k, v]) <= BOUND
    call = (1.0, None, None, "interpret", [n for tile in astuple(TILES) for n in tile], True)
    o, lse = ops._forward(q, k, v, None, *call)
    torch.library.opcheck(ops._forward, (q, k, v, None, *call), test_utils="test_faketensor")
    torch.library.opcheck(ops._backward, (o, q, k, v, None, o, lse, *call, 3), test_utils="test_faketensor")
    torch.library.opcheck(ops._jvp, (q, k, v, None, o, lse, q, k, v, None, *call), test_utils="test_faketensor")


def test_bounds_of_more_than_32_bits_are_no_bounds() -> None:
    q, k, v = drawn(generator(12), (1, 1, 2, 5, 9, 5, 3))
    for far in (2**31 - 2, 2**63 - 1):
        assert worst([q, k, v], window=(far, 0)) <= BOUND
        assert worst([q, k, v], window=(0, far), align="upper_left") <= BOUND


def test_strides_of_inputs_and_cotangents_do_not_matter() -> None:
    primals = drawn(generator(7), (1, 1, 2, 5, 9, 5, 5))
    laid = [
        lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        lambda t: t.mT.contiguous().mT,
        lambda t: t.repeat_interleave(2, -1)[..., ::2],
        lambda t: t.repeat_interleave(3, -2)[..., 1::3, :],
    ]
    for i in range(4):
        q, k, v = (lay(p) for lay, p in zip(laid[i:] + laid[:i], primals, strict=False))
        assert worst([q, k, v]) <= BOUND
    leaves = [p.detach().requires_grad_() for p in primals]
    one = torch.ones((), dtype=torch.float64).expand(1, 2, 5, 5)
    found, wanted = (
        torch.autograd.grad(attention(*leaves, backend="interpret", tiles=TILES), leaves, u) for u in (one, one.clone())
    )
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("deterministic", [True, False])
def test_only_wanted_gradients_are_made(deterministic: bool) -> None:
    g = generator(8)
    primals = [*drawn(g, (1, 1, 2, 3, 5, 3, 3)), normal(g, 3, 5)]
    u = normal(g, 1, 2, 3, 3)
    fused = partial(attention, deterministic=deterministic, backend="interpret", tiles=TILES)
    whole = everything(fused, primals, primals, u)[1:5]
    for mask in itertools.product((False, True), repeat=4):
        leaves = [p.detach().requires_grad_(m) for p, m in zip(primals, mask, strict=True)]
        if any(mask):
            fused(*leaves).backward(u)
        for leaf, m, wanted in zip(leaves, mask, whole, strict=True):
            # Alone, dq is made by the kernel that adds in one order.
            assert error(leaf.grad, wanted) <= (0 if deterministic else BOUND) if m else leaf.grad is None


@pytest.mark.parametrize("deterministic", [True, False])
def test_second_derivatives_and_batches_are_those_of_all_scores(deterministic: bool) -> None:
    g = generator(9)
    primals = [normal(g, 2, *p.shape) for p in drawn(g, (1, 1, 2, 4, 5, 3, 2))]

    def second(f, *arguments: Tensor) -> tuple[Tensor, ...]:
        once = lambda *a: sum((x**2).sum() for x in torch.func.vjp(f, *a)[1](torch.ones_like(f(*a))))  # noqa: E731
        return torch.func.grad(once, argnums=(0, 1, 2))(*arguments)

    fused = partial(attention, causal=True, deterministic=deterministic, backend="interpret", tiles=TILES)
    plain = partial(all_scores, causal=True)
    found, wanted = (torch.func.vmap(partial(second, f))(*primals) for f in (fused, plain))
    assert max(map(error, found, wanted)) <= BOUND


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_narrow_dtypes_lose_a_few_of_their_own_roundings(dtype: torch.dtype) -> None:
    primals = [p.to(dtype) for p in drawn(generator(10), (1, 2, 2, 9, 13, 8, 8))]
    u = normal(generator(11), 1, 4, 9, 8).to(dtype)
    found = everything(partial(attention, backend="interpret", tiles=TILES, causal=True), primals, primals, u)
    wide = [p.double() for p in primals]
    wanted = everything(partial(all_scores, causal=True), wide, wide, u.double())
    assert all(t.dtype == dtype for t in found)
    assert max(error(a.double(), b) for a, b in zip(found, wanted, strict=True)) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("deterministic", [True, False])
def test_rows_of_weights_sum_to_1_in_float32_however_large_the_logits_are(deterministic: bool) -> None:
    """An lse of some 700 in float32 is off by 3e-5, and all gradients of v with it."""
    q, k, v = ((p + 16).float().requires_grad_() for p in drawn(generator(12), (1, 2, 1, 9, 9, 8, 8)))
    u = normal(generator(13), 1, 2, 9, 8).float()
    mine = attention(q, k, v, backend="interpret", tiles=TILES, deterministic=deterministic)
    (dv,) = torch.autograd.grad(mine, v, u)
    wide = v.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(all_scores(q.double(), k.double(), wide), wide, u.double())
    assert error(dv.double(), wanted) <= 4 * torch.finfo(torch.float32).eps
    assert ops._forward(q, k, v, None, 1.0, None, None, "torch", [], True)[1].dtype == torch.float64
    assert (
        ops._forward(q.half(), k.half(), v.half(), None, 1.0, None, None, "torch", [], True)[1].dtype == torch.float32
    )


def test_dq_is_added_up_by_one_kernel_beside_dk_and_dv(monkeypatch: pytest.MonkeyPatch) -> None:
    launched, launch = [], ops.launch
    monkeypatch.setattr(
        ops, "launch", lambda kernel, *a, **m: launched.append(kernel.fn.__name__) or launch(kernel, *a, **m)
    )
    g = generator(14)
    q, k, v, mask = (p.requires_grad_() for p in [*drawn(g, (1, 1, 2, 5, 6, 3, 3)), normal(g, 5, 6)])
    for wanted, kernels in (
        ((q, k, v), ["_dkdv_kernel"]),
        ((q, k, v, mask), ["_dkdv_kernel"]),
        ((k, mask), ["_dkdv_kernel"]),
        ((q, mask), ["_dq_kernel"]),
        ((v,), ["_dkdv_kernel"]),
    ):
        call = [t if any(t is w for w in wanted) else t.detach() for t in (q, k, v, mask)]
        y = attention(*call, deterministic=False, backend="interpret", tiles=TILES)
        launched.clear()
        torch.autograd.grad(y.sum(), wanted)
        assert launched == ["_delta_kernel", *kernels]


def test_each_kernel_has_tiles_of_its_own() -> None:
    primals = drawn(generator(12), (1, 1, 1, 5, 6, 3, 3))
    for name in ("forward", "dkdv", "dq", "jvp", "fused"):
        tiles = replace(Tiles.same(4, 4), **{name: (8, 2, 4, 1)})
        assert worst(primals, tiles=tiles, deterministic=name != "fused") <= BOUND


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_graph_under_compile_with_the_same_gradients(deterministic: bool) -> None:
    primals = drawn(generator(13), (1, 1, 2, 5, 6, 3, 3))
    fused = partial(attention, causal=True, deterministic=deterministic, backend="interpret", tiles=TILES)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    leaves = [p.requires_grad_() for p in primals]
    u = torch.ones_like(fused(*leaves))
    found, wanted = (torch.autograd.grad(f(*leaves), leaves, u) for f in (compiled, fused))
    assert all(map(torch.equal, found, wanted))
