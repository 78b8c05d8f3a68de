"""The attention of the catalogue: its kernels in a process of their own, its backends, and copies of its file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

from gradverify.catalogue import attention as ops
from gradverify.catalogue.attention import Tiles, attention
from tests.catalogue.apart import load, python
from tests.catalogue.subjects import all_scores, normal
from tests.versions import NO_LOOPS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
HERE = Path(__file__).parent
G = torch.Generator().manual_seed(0)
Q, K, V = normal(G, 2, 4, 5, 3), normal(G, 2, 2, 7, 3), normal(G, 2, 2, 7, 6)
needs_triton = pytest.mark.skipif(ops.triton is None, reason="triton is not installed: pip install gradverify[triton]")


@needs_triton
@pytest.mark.skipif(NO_LOOPS, reason="the interpreter of triton 3.6 needs numpy < 2.4")
def test_the_kernels_are_right_in_the_interpreter() -> None:
    suite = str(HERE / "attention_interpreted.py")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", suite, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from gradverify.catalogue import attention as ops

class Absent:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)

triton.runtime.driver.set_active(Absent())

def launch(kernel, grid, *args, **options):
    made = kernel.warmup(*args, grid=grid, **options)
    print(kernel.fn.__name__, grid, "wgmma.mma_async" in made.asm["ptx"], made.metadata.shared <= 232448)

ops.launch = launch
shapes = ((2, 512, 4, 64), (2, 384, 2, 64), (2, 384, 2, 64))
q, k, v = (torch.empty(s, dtype=torch.bfloat16, device="meta").transpose(1, 2).requires_grad_() for s in shapes)
for deterministic in (True, False):
    y = ops.attention(q, k, v, causal=True, deterministic=deterministic, backend="triton")
    torch.autograd.grad(y, (q, k, v), torch.empty_like(y))
"""


@needs_triton
def test_every_launch_goes_through_launch_and_compiles_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    done = python("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.splitlines() == [
        "_forward_kernel (32,) True True",
        "_delta_kernel (32,) False True",
        "_dkdv_kernel (12,) True True",
        "_dq_kernel (32,) True True",
        "_forward_kernel (32,) True True",
        "_delta_kernel (32,) False True",
        "_dkdv_kernel (12,) True True",
    ], done.stderr[-2000:]


MASKED = (
    COMPILE.split("shapes =")[0]
    + """
q, k, v = (torch.empty(1, 2, 33, 24, dtype=torch.float64, device="meta").requires_grad_() for _ in range(3))
mask = torch.empty(33, 33, dtype=torch.bool, device="meta")
for arch in (80, 90):
    Absent.get_current_target = staticmethod(lambda: GPUTarget("cuda", arch, 32))
    y = ops.attention(q, k, v, mask, backend="triton")
    torch.autograd.grad(y, (q, k, v), torch.empty_like(y))
"""
)


@needs_triton
def test_a_boolean_mask_compiles_for_float64_too(tmp_path: Path) -> None:
    done = python("-c", MASKED, TRITON_CACHE_DIR=str(tmp_path))
    assert len(done.stdout.splitlines()) == 8, done.stderr[-2000:]


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch
from gradverify.catalogue import attention as ops
x = torch.ones(1, 1, 2, 3, requires_grad=True)
ops.attention(x, x, x).sum().backward()
print(ops.triton, tuple(x.grad.shape))
try:
    ops.attention(x, x, x, backend="interpret")
except RuntimeError as error:
    print(error)
"""


def test_without_triton_plain_pytorch_remains_and_the_rest_says_what_to_install() -> None:
    done = python("-c", WITHOUT)
    assert done.stdout.splitlines() == [
        "None (1, 1, 2, 3)",
        "attention: backend 'interpret' needs triton, which is not installed; `pip install triton`, or pass "
        "backend='torch', which keeps all scores in memory.",
    ], done.stderr[-2000:]


@needs_triton
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "interpret"}, RuntimeError, r"imported without TRITON_INTERPRET=1; set it before Python starts"),
        ({"backend": "triton"}, RuntimeError, r"needs a CUDA device, but q is on cpu; move q, k and v there"),
    ],
)
def test_a_backend_that_is_not_to_be_had_is_refused(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"attention: backend '\w+'.* {message}"):
        attention(Q, K, V, **options)


class Kernel:
    """A kernel that says how it was called."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *_, **__: self.called.append("launched")

    def warmup(self, *_: object, **__: object) -> None:
        self.called.append("compiled")


@pytest.mark.parametrize(("device", "what"), [("meta", "compiled"), ("cpu", "launched")])
def test_a_kernel_is_never_launched_on_meta_tensors(device: str, what: str) -> None:
    """Their address is 0, which a GPU would read at."""
    kernel = Kernel()
    ops.launch(kernel, (2,), torch.empty(3, device=device))
    ops.launch(kernel, (2, 0), torch.empty(0, device=device))
    assert kernel.called == [what]


@needs_triton
def test_meta_tensors_are_compiled_only_where_a_gpu_is_named() -> None:
    q = torch.empty(1, 1, 4, 16, device="meta")
    with pytest.raises(RuntimeError, match=r"attention: .* no GPU to compile for; name one by .* backend='auto' for"):
        attention(q, q, q, backend="triton")


@needs_triton
def test_what_does_not_fit_into_shared_memory_is_refused_before_any_launch() -> None:
    q = torch.empty(1, 1, 4, 320, device="meta", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"head_dim up to 256, .* but q is \(1, 1, 4, 320\); pass backend='torch'"):
        attention(q, q, q, backend="triton")
    q, odd = q[..., :64], Tiles.same(48, 16)
    with pytest.raises(ValueError, match=r"tiles.forward must be .* powers of 2 and tiles from 16 on, got \(48, 16"):
        attention(q, q, q, backend="triton", tiles=odd)
    with pytest.raises(
        ValueError, match=r"forward with tiles \(256, 256, 8, 8\) needs 557056 bytes .* has 232448; pass"
    ):
        attention(q, q, q, backend="triton", tiles=Tiles.same(256, 256, 8, 8))


@needs_triton
@pytest.mark.parametrize("capacity", [232448, 166912, 101376, 65536])
@pytest.mark.parametrize(("size", "d"), [(2, 64), (2, 128), (2, 256), (4, 64), (4, 128), (8, 64)])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_table_is_made_to_fit_into_shared_memory(old: bool, masked: bool, size: int, d: int, capacity: int) -> None:
    for name, tile in vars(ops._default(size, d, d, capacity, from_registers=old, masked=masked)).items():
        smallest = name == "fused" and tile == (16, 16, 8, 1)  # 64 KiB are too few for large heads: refused
        assert ops._shared(name, tile, size, d, d) <= capacity or (smallest and capacity == 65536)
        assert min(tile[:2]) >= 16


@needs_triton
@pytest.mark.usefixtures("launched")
def test_the_fused_backward_must_fit_only_where_it_may_run() -> None:
    q = torch.empty(1, 1, 64, 128, device="meta", dtype=torch.bfloat16)
    tiles = replace(Tiles.same(32, 32), fused=(256, 128, 8, 2))
    assert attention(q, q, q, backend="triton", tiles=tiles).shape == q.shape
    with pytest.raises(ValueError, match=r"fused with tiles .* pass smaller tiles, deterministic=True, or backend='t"):
        attention(q, q, q, deterministic=False, backend="triton", tiles=tiles)


@needs_triton
def test_features_that_are_masked_have_tiles_that_leave_registers_free() -> None:
    whole, masked = (ops._default(2, 128, 128, 232448, from_registers=False, masked=m) for m in (False, True))
    assert (masked.forward, masked.dq, masked.jvp) == (whole.forward, whole.dq, whole.jvp)
    assert (masked.dkdv, masked.fused) == ((32, 64, 8, 1), (16, 64, 8, 1))


@pytest.mark.parametrize("align", ["lower_right", "upper_left"])
def test_plain_pytorch_is_all_scores_too(align: str) -> None:
    f, g = (partial(op, causal=True, align=align, window=4) for op in (attention, all_scores))
    leaves = [t.clone().requires_grad_() for t in (Q, K, V)]
    u = normal(torch.Generator().manual_seed(1), 2, 4, 5, 6)
    found, wanted = (torch.autograd.grad(op(*leaves), leaves, u) for op in (f, g))
    assert max((a - b).abs().max() for a, b in zip(found, wanted, strict=True)) < 1e-14


def test_upper_left_is_the_causality_of_torch() -> None:
    theirs = torch.nn.functional.scaled_dot_product_attention(Q, K, V, is_causal=True, enable_gqa=True)
    assert (attention(Q, K, V, causal=True, align="upper_left") - theirs).abs().max() < 1e-15


def test_the_last_row_sees_all_keys_by_default() -> None:
    whole = attention(Q, K, V)
    causal = attention(Q, K, V, causal=True)
    assert (causal[:, :, -1] - whole[:, :, -1]).abs().max() < 1e-15
    assert (causal[:, :, -2] - whole[:, :, -2]).abs().max() > 1e-3


def test_nothing_of_the_size_of_the_scores_is_kept() -> None:
    saved = []
    q, k, v = (torch.ones(1, 1, 300, 2).requires_grad_() for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        attention(q, k, v)
    assert sorted(t.numel() for t in saved) == [300, 600, 600, 600, 600]


def test_forward_mode_over_forward_mode_is_refused() -> None:
    def f(q: torch.Tensor) -> torch.Tensor:
        return attention(q, K, V)

    with pytest.raises(NotImplementedError, match=r"forward mode over forward mode is not implemented; take one"):
        torch.func.jvp(lambda q: torch.func.jvp(f, (q,), (q,))[1], (Q,), (Q,))


def test_meta_tensors_give_shapes_and_dtypes() -> None:
    q, k, v = (t.to("meta", torch.bfloat16).requires_grad_() for t in (Q, K, V))
    y = attention(q, k, v, causal=True)
    assert (y.shape, y.dtype, y.device.type) == ((2, 4, 5, 6), torch.bfloat16, "meta")
    assert [g.shape for g in torch.autograd.grad(y, (q, k, v), torch.empty_like(y))] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("deterministic", [True, False])
def test_one_graph_under_compile_with_the_same_gradients(deterministic: bool) -> None:
    fused = partial(attention, causal=True, deterministic=deterministic)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    leaves = [t.clone().requires_grad_() for t in (Q, K, V)]
    u = normal(torch.Generator().manual_seed(2), 2, 4, 5, 6)
    found, wanted = (torch.autograd.grad(f(*leaves), leaves, u) for f in (compiled, fused))
    assert all(map(torch.equal, found, wanted))


def test_forward_mode_inside_of_compile_is_right() -> None:
    """A registered op has no forward mode, and torch gives no tangent in silence."""

    def tangent(q: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(lambda q: attention(q, K, V, causal=True), (q,), (t,))[1]

    compiled = torch.compile(tangent, fullgraph=True, backend="aot_eager")
    wanted = tangent(Q, Q)
    assert (compiled(Q, Q) - wanted).abs().max() < 1e-14
    f = torch.compile(partial(attention, causal=True), fullgraph=True, backend="aot_eager")
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(f(forward_ad.make_dual(Q, Q), K, V)).tangent
        assert (found - wanted).abs().max() < 1e-14


def test_sizes_options_and_head_dim_may_be_symbols_under_compile() -> None:
    f = torch.compile(attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (4, 6, 9):
        q = normal(G, 2, 2, n, n)
        for options in ({}, {"window": n // 2, "scale": 0.1 * n}):
            assert torch.equal(f(q, q, q, **options), attention(q, q, q, **options))


def test_bounds_of_64_bits_are_no_bounds() -> None:
    whole = attention(Q, K, V)
    for far in (2**31 - 1, sys.maxsize, 10**30):
        assert torch.equal(attention(Q, K, V, window=far), whole)
        assert torch.equal(attention(Q, K, V, window=(far, 0)), attention(Q, K, V, causal=True))


def test_second_derivatives_are_batched_in_the_old_way_too() -> None:
    q = Q[:1, :, :2].clone().requires_grad_()

    def f(q: torch.Tensor) -> torch.Tensor:
        return attention(q, K[:1], V[:1]).pow(3).sum()

    found, wanted = (torch.autograd.functional.hessian(f, q, vectorize=v) for v in (True, False))
    assert (found - wanted).abs().max() < 1e-12


def test_the_registered_operators_pass_torchs_own_checks() -> None:
    call = (3**-0.5, None, 2, "torch", [], False)
    o, lse = ops._forward(Q, K, V, None, *call)
    torch.library.opcheck(ops._forward, (Q.clone().requires_grad_(), K, V, None, *call))
    torch.library.opcheck(ops._backward, (o, Q, K, V, None, o, lse, *call, 7))
    torch.library.opcheck(ops._jvp, (Q, K, V, None, o, lse, Q, K, V, None, *call))


def test_the_saved_lse_has_no_gradient() -> None:
    o, lse = ops._forward(Q.clone().requires_grad_(), K, V, None, 1.0, None, None, "torch", [], True)
    assert o.requires_grad
    assert not lse.requires_grad


def test_autocast_casts_all_three() -> None:
    q = Q.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = attention(q, K.float(), V.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.autograd.grad(y.sum(), q)[0].dtype == torch.float32


def test_plain_pytorch_adds_in_one_order_whatever_is_asked_for() -> None:
    leaves = [t.clone().requires_grad_() for t in (Q, K, V)]
    found, wanted = (
        torch.autograd.grad(attention(*leaves, causal=True, deterministic=d).sum(), leaves) for d in (False, True)
    )
    assert all(map(torch.equal, found, wanted))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict]]]:
    """What would be launched: kernels by name, with their compile-time arguments."""
    found: list[tuple[str, dict]] = []
    monkeypatch.setattr(ops, "launch", lambda kernel, _, *args, **meta: found.append((kernel.__name__, meta)))
    yield found
    torch.use_deterministic_algorithms(False)


def backward_of_kernels(*, deterministic: bool, wanted: str = "qkv") -> None:
    """On meta tensors, so that kernels would be launched if there were a GPU."""
    leaves = {
        n: t.to("meta", torch.bfloat16).requires_grad_(n in wanted) for n, t in zip("qkv", (Q, K, V), strict=True)
    }
    y = attention(**leaves, deterministic=deterministic, backend="triton", tiles=Tiles.same(16, 16))
    torch.autograd.grad(y, [t for t in leaves.values() if t.requires_grad], torch.empty_like(y))


@needs_triton
def test_dq_is_made_beside_dk_and_dv_where_no_order_is_asked_for(launched: list) -> None:
    backward_of_kernels(deterministic=False)
    assert [n for n, _ in launched] == ["_forward_kernel", "_delta_kernel", "_dkdv_kernel"]
    assert launched[-1][1]["ADD_DQ"]
    launched.clear()
    backward_of_kernels(deterministic=True)
    assert [n for n, _ in launched] == ["_forward_kernel", "_delta_kernel", "_dkdv_kernel", "_dq_kernel"]
    assert not launched[2][1]["ADD_DQ"]


@needs_triton
def test_additions_in_any_order_are_refused_where_torch_is_to_be_deterministic(launched: list) -> None:
    torch.use_deterministic_algorithms(True)
    with pytest.raises(
        RuntimeError,
        match=r"^attention: the backward of deterministic=False does not have a deterministic implementation, but torch"
        r"\.use_deterministic_algorithms\(True\) is set; pass deterministic=True, whose backward adds in one order\.$",
    ):
        backward_of_kernels(deterministic=False)
    assert [n for n, _ in launched] == ["_forward_kernel"]
    backward_of_kernels(deterministic=True)
    backward_of_kernels(deterministic=False, wanted="q")
    backward_of_kernels(deterministic=False, wanted="kv")
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match=r"deterministic implementation, but .* is set with warn_only\."):
        backward_of_kernels(deterministic=False)


def test_heads_lie_in_memory_as_those_of_q() -> None:
    q, k = (torch.ones(2, 5, 4, 3).transpose(1, 2) for _ in range(2))
    assert attention(q, k, k).transpose(1, 2).is_contiguous()
    assert attention(Q, K, V).is_contiguous()


@pytest.mark.usefixtures("modules_kept")
def test_a_copy_registers_operators_of_its_own_and_loading_twice_does_no_harm(tmp_path: Path) -> None:
    path = Path(shutil.copy(ops.__file__, tmp_path / "fused.py"))
    first, again = load(path, "their.fused"), load(path, "their.fused")
    assert [str(m._forward._qualname) for m in (ops, first, again)] == [
        "gradverify_catalogue::attention_forward",
        "gradverify_catalogue::attention_forward_their_fused",
        "gradverify_catalogue::attention_forward_their_fused_2",
    ]
    for module in (ops, first, again):
        assert torch.equal(module.attention(Q, K, V), attention(Q, K, V))
