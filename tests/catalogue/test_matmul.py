"""The matmul of the catalogue: its kernels in a process of their own, its backends, and copies of its file."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from gradverify.catalogue import matmul as ops
from gradverify.catalogue.matmul import Tiles, matmul
from tests.catalogue.apart import load, python
from tests.versions import NO_LOOPS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
HERE = Path(__file__).parent
X, W, B = torch.ones(2, 3), torch.ones(3, 4), torch.ones(4)
needs_triton = pytest.mark.skipif(ops.triton is None, reason="triton is not installed: pip install gradverify[triton]")


@needs_triton
@pytest.mark.skipif(NO_LOOPS, reason="the interpreter of triton 3.6 needs numpy < 2.4")
def test_the_kernels_are_right_in_the_interpreter() -> None:
    suite = str(HERE / "matmul_interpreted.py")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", suite, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from gradverify.catalogue import matmul as ops

class Absent:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)

triton.runtime.driver.set_active(Absent())

def launch(kernel, grid, *args, **options):
    made = kernel.warmup(*args, grid=grid, **options)
    wgmma = made.asm["ptx"].count("wgmma.mma_async")
    print(kernel.fn.__name__, options["ACT"], grid, wgmma > 0, made.metadata.shared <= 232448)

ops.launch = launch
sizes = ((512, 256), (256, 384), (384,))
x, w, b = (torch.empty(*s, dtype=torch.bfloat16, device="meta").requires_grad_() for s in sizes)
y = ops.matmul(x, w, b, act="silu", backend="triton")
torch.autograd.grad(y, (x, w), torch.empty_like(y))
"""


@needs_triton
def test_every_launch_goes_through_launch_and_compiles_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    done = python("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.splitlines() == [
        "forward_kernel silu (12,) True True",
        "slope_kernel silu (12,) True True",
        "forward_kernel none (8,) True True",
        "forward_kernel none (6,) True True",
    ], done.stderr[-2000:]


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch
from gradverify.catalogue import matmul as ops
x = torch.ones(2, 3, requires_grad=True)
ops.matmul(x, torch.ones(3, 4), act="gelu").sum().backward()
print(ops.triton, tuple(x.grad.shape))
try:
    ops.matmul(x, torch.ones(3, 4), backend="interpret")
except RuntimeError as error:
    print(error)
"""


def test_without_triton_plain_pytorch_remains_and_the_rest_says_what_to_install() -> None:
    done = python("-c", WITHOUT)
    assert done.stdout.splitlines() == [
        "None (2, 3)",
        "matmul: backend='interpret' on cpu needs triton, which is not installed; pip install triton, or pass "
        "backend='torch'.",
    ], done.stderr[-2000:]


@needs_triton
def test_the_interpreter_is_asked_for_before_python_starts() -> None:
    message = r"backend='interpret' needs TRITON_INTERPRET=1, .* set it before Python starts: TRITON_INTERPRET=1 python"
    with pytest.raises(RuntimeError, match=message):
        matmul(X, W, backend="interpret")


@needs_triton
def test_kernels_are_refused_where_there_are_none() -> None:
    message = (
        r"matmul: backend='triton' has no kernels for tensors on cpu; move them with .cuda\(\), or pass backend='tor"
    )
    with pytest.raises(RuntimeError, match=message):
        matmul(X, W, backend="triton")


@needs_triton
def test_meta_tensors_are_compiled_only_where_a_gpu_is_named() -> None:
    x = torch.empty(16, 16, device="meta")
    with pytest.raises(RuntimeError, match=r"matmul: .* no GPU to compile for; name one by .* backend='auto' for shap"):
        matmul(x, x, backend="triton")


COPY = """
import sys, torch
from gradverify.catalogue import matmul as original
sys.path.insert(0, sys.argv[1])
import matmul as copied
names = [m.forward_op._qualname for m in (original, copied)]
x = torch.ones(4, 4)
for m in (original, copied):
    y = m.matmul(x.clone().requires_grad_(), x, act="gelu", backend="interpret", tiles=m.Tiles(4, 4, 4))
    y.sum().backward()
print(len(set(names)))
"""


@needs_triton
def test_a_copy_of_the_same_name_leaves_the_original_alone(tmp_path: Path) -> None:
    shutil.copy(ops.__file__, tmp_path / "matmul.py")
    done = python("-W", "error", "-c", COPY, str(tmp_path), TRITON_INTERPRET="1")
    assert done.stdout == "2\n", done.stderr[-2000:]


def test_one_graph_under_compile_with_the_same_derivatives() -> None:
    x, t, w = (torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3))
    f = partial(matmul, act="gelu")
    for g in (
        lambda x, t: torch.func.jvp(lambda x: f(x, w.mT), (x,), (t,))[1],
        lambda x, t: torch.func.vjp(lambda x: f(x, w.mT), x)[1](f(t, w.mT))[0],
    ):
        found = torch.compile(g, fullgraph=True, backend="aot_eager")(x, t)
        assert (found - g(x, t)).abs().max() < 1e-14


def test_second_derivatives_are_batched_in_the_old_way_too() -> None:
    x = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = x[0]

    def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return matmul(x, w.mT, act="silu").pow(3).sum()

    found, wanted = (torch.autograd.functional.hessian(f, (x, w), vectorize=v) for v in (True, False))
    pairs = zip(found, wanted, strict=True)
    assert all((a - b).abs().max() < 1e-12 for row, other in pairs for a, b in zip(row, other, strict=True))


@needs_triton
def test_tiles_below_the_least_of_tensor_cores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"matmul: tiles.k must be a power of 2 and at least 16, got 8; 64 is usual"):
        matmul(X, W, tiles=Tiles(16, 16, 8))


def test_meta_tensors_give_shapes_and_dtypes() -> None:
    x, w = (
        torch.empty(5, 2, 3, dtype=torch.bfloat16, device="meta"),
        torch.empty(3, 4, dtype=torch.bfloat16, device="meta"),
    )
    y = matmul(x.requires_grad_(), w, act="silu")
    assert (y.shape, y.dtype, y.device.type) == ((5, 2, 4), torch.bfloat16, "meta")
    assert torch.autograd.grad(y, x, torch.empty_like(y))[0].shape == x.shape


def test_autocast_casts_as_it_does_for_a_linear_layer() -> None:
    x = X.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = matmul(x, W, B.bfloat16(), act="relu")
        assert y.dtype == torch.nn.functional.linear(X, W.mT).dtype == torch.bfloat16
        inside = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(inside, torch.autograd.grad(y.sum(), x)[0])
    assert inside.dtype == torch.float32


@pytest.mark.usefixtures("modules_kept")
def test_a_copy_registers_operators_of_its_own_and_loading_twice_does_no_harm(tmp_path: Path) -> None:
    path = Path(shutil.copy(ops.__file__, tmp_path / "fused.py"))
    first, again = load(path, "their.fused"), load(path, "their.fused")
    assert [str(m.forward_op._qualname) for m in (ops, first, again)] == [
        "gradverify_catalogue::matmul_forward",
        "gradverify_catalogue::matmul_forward_their_fused",
        "gradverify_catalogue::matmul_forward_their_fused_2",
    ]
    for module in (ops, first, again):
        assert torch.equal(module.matmul(X, W, B), torch.full((2, 4), 4.0))
        meta = [t.to("meta") for t in (X, W)]
        assert module.forward_op(*meta, None, "gelu", True, None)[1].shape == (2, 4)
