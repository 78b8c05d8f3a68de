"""The Triton kernels of matmul on a CPU: run by test_matmul.py in a process with TRITON_INTERPRET=1."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from gradverify.catalogue import matmul as ops
from gradverify.catalogue.matmul import Tiles, matmul
from tests.catalogue.subjects import ACTIVATIONS, normal

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
SAVES = ("input", "preactivation")
SMALL = Tiles(4, 8, 4, group=2)
SHAPES = (((5, 7), 3), ((9, 8), 10), ((1, 1), 1), ((7,), 4), ((2, 3, 5), 6), ((0, 5), 3), ((4, 0), 3), ((4, 3), 0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fused(*tensors: Tensor, act: str = "gelu", **options) -> Tensor:
    return matmul(*tensors, act=act, backend="interpret", **{"tiles": SMALL, **options})


def plain(x: Tensor, w: Tensor, b: Tensor | None = None, *, act: str = "gelu") -> Tensor:
    z = torch.einsum("...c,cd->...d", x, w)
    return ACTIVATIONS[act](z if b is None else z + b)


def everything(f, primals, tangents, u: Tensor) -> tuple[Tensor, ...]:
    """The value, the gradients and the forward derivative."""
    leaves = [p.detach().requires_grad_() for p in primals]
    y = f(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, u), torch.func.jvp(f, tuple(primals), tuple(tangents))[1]


def error(mine: Tensor, theirs: Tensor) -> float:
    """Relative to the norm; infinite where the shapes differ."""
    if mine.shape != theirs.shape or mine.isnan().any():
        return float("inf")
    return ((mine - theirs).norm() / theirs.norm().clamp_min(1e-300)).item() if mine.numel() else 0.0


def agree(mine, theirs, bound: float = 1e-14) -> bool:
    return all(error(a, b) <= bound for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("shape", "n"), SHAPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_values_gradients_and_tangents_are_those_of_plain_pytorch(act: str, shape: tuple[int, ...], n: int) -> None:
    g = generator()
    for save, biased in zip(SAVES, (n % 2 == 0, n % 2 == 1), strict=True):
        primals = (normal(g, *shape), normal(g, shape[-1], n), normal(g, n))[: 2 + biased]
        tangents = [normal(g, *p.shape) for p in primals]
        u = normal(g, *shape[:-1], n)
        mine = everything(lambda *p: fused(*p, act=act, save=save), primals, tangents, u)  # noqa: B023
        assert agree(mine, everything(lambda *p: plain(*p, act=act), primals, tangents, u)), (save, biased)


def test_a_slope_off_by_a_millionth_would_be_seen() -> None:
    g = generator(1)
    primals, u = (normal(g, 5, 7), normal(g, 7, 3), normal(g, 3)), normal(g, 5, 3)
    theirs = everything(plain, primals, primals, u)
    assert not agree(everything(fused, primals, primals, u * (1 + 1e-6)), theirs)


@pytest.mark.parametrize("tiles", [Tiles(1, 1, 1), Tiles(2, 16, 1, group=1), Tiles(16, 4, 8, group=3), None])
def test_tiles_change_nothing_but_rounding(tiles: Tiles | None) -> None:
    g = generator(2)
    primals, u = (normal(g, 3, 4), normal(g, 4, 5), normal(g, 5)), normal(g, 3, 5)
    mine = everything(lambda *p: fused(*p, tiles=tiles), primals, primals, u)
    assert agree(mine, everything(plain, primals, primals, u))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are launched from here on."""
    names: list[str] = []

    def launch(kernel, grid, *args, **options) -> None:
        names.append(kernel.__name__)
        kernel[grid](*args, **options)

    monkeypatch.setattr(ops, "launch", launch)
    return names


@pytest.mark.parametrize(
    "tiles", [Tiles(4, 8, 4, 2, tma=True), Tiles(8, 4, 2, 1, tma=True), Tiles(4, 256, 4, 2, tma=True)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_tensor_descriptors_read_and_write_the_same_products(tiles: Tiles, turned: bool, launched: list[str]) -> None:
    g = generator(12)
    turn = (lambda t: t.mT.contiguous().mT) if turned else (lambda t: t)
    primals, u = (turn(normal(g, 10, 6)), turn(normal(g, 6, 12)), normal(g, 12)), normal(g, 10, 12)
    for save in SAVES:
        mine = everything(lambda *p: fused(*p, tiles=tiles, save=save), primals, primals, u)  # noqa: B023
        assert agree(mine, everything(plain, primals, primals, u))
    # Forward, dx and dw, and the forward of jvp, of either; the slope where z was not kept.
    assert launched.count("persistent_kernel") == 2 * 4 + 1
    assert (launched.count("slope_kernel"), launched.count("tangent_kernel")) == (1, 2)


@pytest.mark.parametrize("shape", [(6,), (2, 5, 6)], ids=str)
def test_descriptors_take_a_vector_and_leading_axes(shape: tuple[int, ...], launched: list[str]) -> None:
    g = generator(14)
    primals, u = (normal(g, *shape), normal(g, 6, 8), normal(g, 8)), normal(g, *shape[:-1], 8)
    mine = everything(partial(fused, tiles=Tiles(4, 4, 4, 2, tma=True)), primals, primals, u)
    assert agree(mine, everything(plain, primals, primals, u))
    assert set(launched) == {"persistent_kernel", "tangent_kernel"}


def test_what_has_no_descriptor_goes_by_pointers(launched: list[str]) -> None:
    g = generator(13)
    odd, even = (normal(g, 5, 3), normal(g, 3, 4)), (normal(g, 4, 12)[:, ::2], normal(g, 6, 4))
    for primals in (odd, even, (normal(g, 1, 6).expand(4, 6), normal(g, 6, 4))):
        assert agree([fused(*primals, tiles=Tiles(4, 4, 4, tma=True))], [plain(*primals)])
    assert set(launched) == {"forward_kernel"}


def within_nan(t: Tensor) -> Tensor:
    """The same numbers inside of a larger tensor of NaN, every second of its elements."""
    room = torch.full([2 * n + 3 for n in t.shape], torch.nan, dtype=t.dtype)
    inside = room[tuple(slice(2, 2 * n + 1, 2) for n in t.shape)]
    return inside.copy_(t)


LAYOUTS = {
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "permuted": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "among NaN": within_nan,
    "expanded": lambda t: t[..., :1].expand(t.shape),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_where_its_strides_say(name: str) -> None:
    g = generator(3)
    primals = [LAYOUTS[name](normal(g, *s)) for s in ((2, 3, 5), (5, 6), (6,))]
    tangents = [LAYOUTS[name](normal(g, *p.shape)) for p in primals]
    u = LAYOUTS[name](normal(g, 2, 3, 6))
    for save in SAVES:
        leaves = [p.detach().requires_grad_() for p in primals]
        y = fused(*leaves, save=save)
        mine = (y.detach(), *torch.autograd.grad(y, leaves, u))
        _, tangent = torch.func.jvp(lambda *p: fused(*p, save=save), tuple(primals), tuple(tangents))  # noqa: B023
        assert agree((*mine, tangent), everything(plain, primals, tangents, u)), save


def test_offsets_of_64_bits_reach_the_same_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    g = generator(4)
    primals, u = (normal(g, 9, 7), normal(g, 7, 10), normal(g, 10)), normal(g, 9, 10)
    narrow = everything(fused, primals, primals, u)
    monkeypatch.setattr(ops, "_reach", lambda t: 2**31)
    assert all(torch.equal(a, b) for a, b in zip(everything(fused, primals, primals, u), narrow, strict=True))


def test_no_kernel_is_given_what_is_empty_and_has_no_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(kernel, grid, *args, **options) -> None:
        assert all(a.numel() for a in args if isinstance(a, Tensor))
        kernel[grid](*args, **options)

    monkeypatch.setattr(ops, "launch", launch)
    primals, u = (
        (torch.zeros(2, 0).double(), torch.zeros(0, 3).double(), normal(generator(), 3)),
        torch.ones(2, 3).double(),
    )
    theirs = everything(plain, primals, primals, u)
    assert agree(everything(fused, primals, primals, u), theirs)
    assert agree(everything(partial(fused, tiles=SMALL._replace(tma=True)), primals, primals, u), theirs)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2)], ids=str)
def test_only_some_gradients(needed: tuple[int, ...]) -> None:
    g = generator(5)
    primals, u = (normal(g, 5, 3), normal(g, 3, 6), normal(g, 6)), normal(g, 5, 6)
    for act in ("none", "silu"):
        leaves = [p.clone().requires_grad_(i in needed) for i, p in enumerate(primals)]
        mine = torch.autograd.grad(fused(*leaves, act=act), [leaves[i] for i in needed], u)
        theirs = torch.autograd.grad(plain(*leaves, act=act), [leaves[i] for i in needed], u)
        assert agree(mine, theirs)


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("act", ["relu", "gelu_tanh"])
def test_derivatives_of_second_order_are_right_in_every_order_of_modes(act: str, save: str) -> None:
    g = generator(6)
    primals = (normal(g, 2, 2), normal(g, 2, 3), normal(g, 3))
    v = normal(g, 2, 3)
    for outer, inner in itertools.product((torch.func.jacrev, torch.func.jacfwd), repeat=2):
        if outer is inner is torch.func.jacfwd:
            continue
        for k in range(3):
            mine = outer(inner(lambda *p: (fused(*p, act=act, save=save) * v).sum(), k), 0)(*primals)
            theirs = outer(inner(lambda *p: (plain(*p, act=act) * v).sum(), k), 0)(*primals)
            assert agree([mine], [theirs], 1e-13)


def test_gradgradcheck_accepts_it() -> None:
    g = generator(7)
    primals = [t.requires_grad_() for t in (normal(g, 2, 2), normal(g, 2, 2), normal(g, 2))]
    assert torch.autograd.gradgradcheck(lambda *p: fused(*p, act="silu"), primals, fast_mode=True)


@pytest.mark.parametrize("batched", [(0, None, None), (None, 0, None), (0, 0, 0), (1, None, 0)], ids=str)
def test_vmap_equals_a_loop(batched: tuple[int | None, ...]) -> None:
    g = generator(8)
    primals = [
        normal(g, *((3, *s) if d == 0 else (s[0], 3, *s[1:]) if d else s))
        for d, s in zip(batched, ((4, 2), (2, 5), (5,)), strict=True)
    ]

    def whole(f):
        def one(*p: Tensor) -> tuple[Tensor, ...]:
            y, pull = torch.func.vjp(f, *p)
            return y, torch.func.jvp(f, p, p)[1], *pull(y)

        return one

    mine = torch.func.vmap(whole(lambda *p: fused(*p, save="preactivation")), in_dims=batched)(*primals)
    samples = [[p if d is None else p.select(d, i) for p, d in zip(primals, batched, strict=True)] for i in range(3)]
    looped = map(torch.stack, zip(*(whole(plain)(*s) for s in samples), strict=True))
    assert agree(mine, looped)


def test_the_operators_are_registered_as_torch_wants_them() -> None:
    g = generator(9)
    x, w, b, u = normal(g, 3, 2), normal(g, 2, 3), normal(g, 3), normal(g, 3, 3)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    for arguments in ((*leaves, "gelu", True, SMALL), (*leaves, "relu", False, None)):
        torch.library.opcheck(ops.forward_op, arguments)
    torch.library.opcheck(ops.backward_op, (u, x, w, b, None, "silu", [True, False, True], None))
    torch.library.opcheck(ops.tangent_op, (x, w, b, None, x, None, b, "silu", None))


@pytest.mark.parametrize("save", SAVES)
def test_it_compiles_into_one_graph_with_the_same_bits(save: str) -> None:
    g = generator(10)
    leaves = [t.requires_grad_() for t in (normal(g, 3, 5), normal(g, 5, 4), normal(g, 4))]

    def step(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return fused(2 * x, w, b, act="silu", save=save).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    value, eager = compiled(*leaves), step(*leaves)
    assert torch.equal(value, eager)
    for mine, theirs in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(eager, leaves), strict=True):
        assert torch.equal(mine, theirs)


def test_forward_mode_inside_of_compile_is_right() -> None:
    """An operator has no forward mode, and torch gives no tangent in silence."""
    g = generator(10)
    x, t, w = normal(g, 3, 5), normal(g, 3, 5), normal(g, 5, 4)

    def tangent(x: Tensor, t: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: fused(x, w), (x,), (t,))[1]

    compiled = torch.compile(tangent, fullgraph=True, backend="aot_eager")
    assert agree([compiled(x, t)], [tangent(x, t)])


def test_the_kept_argument_of_the_activation_has_no_gradient() -> None:
    x, w = torch.ones(2, 3, requires_grad=True), torch.ones(3, 4)
    y, z = ops.forward_op(x, w, None, "gelu", True, None)
    assert y.requires_grad
    assert not z.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_narrow_dtypes_are_summed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    g = generator(11)
    low = [normal(g, *s).to(dtype) for s in ((9, 33), (33, 5), (5,))]
    u = normal(g, 9, 5).to(dtype)
    for save in SAVES:
        mine = everything(partial(fused, save=save, tiles=Tiles(8, 8, 8)), low, low, u)
        theirs = everything(plain, [t.double() for t in low], [t.double() for t in low], u.double())
        assert {t.dtype for t in mine} == {dtype}
        assert agree(mine, theirs, 2 * torch.finfo(dtype).eps)
        if dtype == torch.float16:
            assert error(mine[0], theirs[0]) <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_gelu_keeps_its_digits_where_it_is_small(dtype: torch.dtype, bound: float) -> None:
    z = torch.linspace(-12, 12, 1024).to(dtype)[:, None].requires_grad_()
    one = torch.ones(1, 1, dtype=dtype)
    wide = z.detach().double().requires_grad_()
    theirs = 0.5 * wide * torch.erfc(-wide / 2**0.5)
    mine = fused(z, one, tiles=Tiles(1024, 1, 1))
    slopes = torch.autograd.grad(mine.sum(), z)[0], torch.autograd.grad(theirs.sum(), wide)[0]
    for a, b in ((mine, theirs), slopes):
        assert bool(((a - b).abs() <= bound * b.abs()).all())


def test_extreme_arguments_of_activations_give_no_nan() -> None:
    x = torch.tensor([[1e200], [-1e200], [60.0], [-60.0], [0.0]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    for act in ACTIVATIONS:
        y = fused(x, one, act=act)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0][:3:2], one.expand(2, 1))
        assert not torch.autograd.grad(fused(x, one, act=act).sum(), x)[0].isnan().any()
    nan = torch.full((1, 1), torch.nan, dtype=torch.float64)
    assert all(fused(nan, one, act=act).isnan() for act in ACTIVATIONS)


def test_tiles_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"matmul: tiles.n must be a power of 2 and at least 1, got 3; 64 is usual"):
        fused(torch.ones(2, 2), torch.ones(2, 2), tiles=Tiles(4, 3, 4))
