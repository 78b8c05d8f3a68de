"""Every op of the catalogue has the derivative that it declares: first and second order, backward and forward mode."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.catalogue.subjects import SIZES, SUBJECTS, Primals, Subject

pytestmark = [
    pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name),
    pytest.mark.filterwarnings(
        "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
    ),  # torch's own forward mode
]
SEEDS = range(4)
# The surrogates divide by steps near 0.1 and cancel: a few thousand roundings of float64.
ROUNDING = 2.0**-40


def leaves(tensors: Primals) -> Primals:
    return tuple(t.detach().clone().requires_grad_() for t in tensors)


def cotangent_for(y: Tensor, seed: int) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)


def gradients(f, primals: Primals, frozen: Primals, u: Tensor | None = None, *, seed: int = 0) -> Primals:
    y = f(*primals, *frozen)
    return torch.autograd.grad(y, primals, cotangent_for(y, seed) if u is None else u, create_graph=True)


def agree(mine: Tensor, theirs: Tensor) -> bool:
    """Equal up to the rounding of sums, at the scale of the tensor."""
    size = theirs.abs().max().item() if theirs.numel() else 0.0
    return mine.shape == theirs.shape and bool(((mine - theirs).abs() <= ROUNDING * max(size, 1.0)).all())


@pytest.mark.parametrize("sizes", SIZES)
def test_backward_is_the_derivative_of_the_surrogate_also_at_its_bounds(
    subject: Subject, sizes: tuple[int, int]
) -> None:
    for seed in SEEDS:
        primals, frozen = subject.point(seed, sizes)
        mine = gradients(subject.op, leaves(primals), frozen)
        theirs = gradients(subject.surrogate, leaves(primals), frozen)
        assert all(map(agree, mine, theirs)), (seed, sizes)


def test_a_surrogate_off_by_a_millionth_would_be_seen(subject: Subject) -> None:
    primals, frozen = subject.point(0)
    mine = gradients(subject.op, leaves(primals), frozen)
    theirs = gradients(lambda *a: subject.surrogate(*a) * (1 + 1e-6), leaves(primals), frozen)
    assert not all(map(agree, mine, theirs))


def test_double_backward_is_that_of_the_surrogate(subject: Subject) -> None:
    def second(f, primals: Primals, frozen: Primals) -> list[Tensor]:
        u = cotangent_for(f(*primals, *frozen), 1).requires_grad_()
        first = gradients(f, primals, frozen, u)
        mixed = sum((g * cotangent_for(g, 7 + i)).sum() for i, g in enumerate(first))
        found = torch.autograd.grad(mixed, (*primals, u), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, (*primals, u), strict=True)]

    for seed in SEEDS:
        primals, frozen = subject.point(seed)
        mine = second(subject.op, leaves(primals), frozen)
        assert all(map(agree, mine, second(subject.surrogate, leaves(primals), frozen))), seed


def test_forward_mode_is_the_transpose_of_backward(subject: Subject) -> None:
    for seed in SEEDS:
        primals, frozen = subject.point(seed)
        tangents = tuple(cotangent_for(p, seed + i) for i, p in enumerate(primals))
        y, y_tangent = torch.func.jvp(lambda *p: subject.op(*p, *frozen), primals, tangents)  # noqa: B023
        u = cotangent_for(y, seed)
        back = gradients(subject.op, leaves(primals), frozen, u)
        through = sum((g * t).sum() for g, t in zip(back, tangents, strict=True))
        assert agree((u * y_tangent).sum().detach(), through.detach()), seed


def test_frozen_arguments_get_no_gradient_and_their_tangents_are_ignored(subject: Subject) -> None:
    primals, frozen = subject.point(3)
    live = tuple(f.clone().requires_grad_() if f.is_floating_point() else f for f in frozen)
    y = subject.op(*leaves(primals), *live)
    wanted = [f for f in live if f.requires_grad]
    if wanted:
        assert torch.autograd.grad(y.sum(), wanted, allow_unused=True) == (None,) * len(wanted)
        assert not subject.op(*primals, *live).requires_grad
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(f, f) if f.is_floating_point() else f for f in frozen]
        tangent = forward_ad.unpack_dual(subject.op(*primals, *duals)).tangent
    assert tangent is None or not tangent.any()


def test_vmap_equals_a_loop_for_values_gradients_and_tangents(subject: Subject) -> None:
    points = [subject.point(seed) for seed in range(3)]
    primals = tuple(map(torch.stack, zip(*(p for p, _ in points), strict=True)))
    frozen = tuple(map(torch.stack, zip(*(f for _, f in points), strict=True)))
    k = len(primals)

    def everything(*arguments: Tensor) -> tuple[Tensor, ...]:
        f = lambda *p: subject.op(*p, *arguments[k:])  # noqa: E731
        y, pull = torch.func.vjp(f, *arguments[:k])
        _, push = torch.func.jvp(f, arguments[:k], arguments[:k])
        return y, push, *pull(y)

    batched = torch.func.vmap(everything)(*primals, *frozen)
    looped = map(torch.stack, zip(*(everything(*p, *f) for p, f in points), strict=True))
    assert all(itertools.starmap(agree, zip(batched, looped, strict=True)))


def test_only_some_arguments_need_gradients(subject: Subject) -> None:
    primals, frozen = subject.point(5)
    everything = gradients(subject.op, leaves(primals), frozen)
    for mask in itertools.product((False, True), repeat=len(primals)):
        if not any(mask):
            continue
        some = tuple(p.detach().clone().requires_grad_(m) for p, m in zip(primals, mask, strict=True))
        y = subject.op(*some, *frozen)
        y.backward(cotangent_for(y, 0))
        for p, m, g in zip(some, mask, everything, strict=True):
            assert agree(p.grad, g.detach()) if m else p.grad is None


def test_layouts_of_inputs_and_cotangents_do_not_matter(subject: Subject) -> None:
    primals, frozen = subject.point(6)
    y = subject.op(*primals, *frozen)
    u = cotangent_for(y, 0)
    plain = gradients(subject.op, leaves(primals), frozen, u)
    transposed = lambda t: t.mT.contiguous().mT if t.ndim == 2 else t  # noqa: E731
    sliced = lambda t: t.repeat_interleave(2, -1)[..., ::2] if t.ndim else t  # noqa: E731
    for lay in (transposed, sliced):
        laid = tuple(lay(p.detach()).requires_grad_() for p in primals)
        assert all(map(agree, gradients(subject.op, laid, frozen, lay(u)), plain))
    ones = gradients(subject.op, leaves(primals), frozen, torch.ones((), dtype=torch.float64).expand(y.shape))
    assert all(map(agree, ones, gradients(subject.op, leaves(primals), frozen, torch.ones_like(y))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_have_the_dtype_of_their_input_and_few_rounding_errors(subject: Subject, dtype: torch.dtype) -> None:
    (x, *others), frozen = subject.point(8)
    primals = (1.03 * x, *others)  # off the bounds, which a narrower dtype may place on their other side
    low = [tuple(t.to(dtype) if t.is_floating_point() else t for t in ts) for ts in (primals, frozen)]
    wide = [tuple(t.double() if t.is_floating_point() else t for t in ts) for ts in low]
    y = subject.op(*low[0], *low[1])
    u = cotangent_for(y, 0).to(y.dtype)
    mine = gradients(subject.op, leaves(low[0]), low[1], u)
    theirs = gradients(subject.op, leaves(wide[0]), wide[1], u.double())
    for g, p, t in zip(mine, low[0], theirs, strict=True):
        assert g.dtype == p.dtype == dtype
        assert bool(((g - t).abs() <= 8 * torch.finfo(dtype).eps * t.abs().max()).all())
