"""What the ops of the catalogue return, beside torch's own where it has one, and at the edges of their definition."""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import gradverify.catalogue
from gradverify.catalogue.lsq_quant import lsq_quant
from gradverify.catalogue.reweight_gradient import reweight_gradient
from gradverify.catalogue.reweighted_cross_entropy import class_balanced_weights, reweighted_cross_entropy
from gradverify.catalogue.sign_ste import sign_ste
from gradverify.catalogue.ste_quant import ste_quant
from tests.catalogue.subjects import SUBJECTS, Subject, normal

FILES = sorted(Path(gradverify.catalogue.__file__).parent.glob("[!_]*.py"))
NAN = float("nan")


def draw(seed: int, *shape: int) -> Tensor:
    return normal(torch.Generator().manual_seed(seed), *shape)


def gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y.sum(), x)[0]


def close(mine: Tensor, theirs: Tensor) -> bool:
    return mine.shape == theirs.shape and bool(((mine - theirs).abs() <= 1e-12 * theirs.abs().clamp(min=1)).all())


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_file_imports_torch_triton_and_the_standard_library_only(file: Path) -> None:
    nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in nodes}
    assert {m.split(".")[0] for m in modules if m} <= {"torch", "triton", *sys.stdlib_module_names}


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_an_undefined_cotangent_is_a_zero_gradient(subject: Subject) -> None:
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, u):
            return None

    primals, frozen = subject.point(0)
    leaves = [p.requires_grad_() for p in primals]
    y = Nothing.apply(subject.op(*leaves, *frozen))
    found = torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)
    assert all(g is None or not g.any() for g in found)


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if not s.holds_constant], ids=lambda s: s.name)
def test_gradgradcheck_agrees_where_nothing_that_depends_on_x_is_held_constant(subject: Subject) -> None:
    primals, frozen = subject.point(4)
    primals = [(x + 0.01).requires_grad_() for x in primals]  # off the bounds, where the masks jump
    assert torch.autograd.gradgradcheck(lambda *x: subject.op(*x, *frozen), primals)


@pytest.mark.parametrize("scale", [0.25, 2.0])
@pytest.mark.parametrize(("qmin", "qmax", "zero_point"), [(-128, 127, 0), (0, 255, 3), (-8, 7, -2)])
def test_quantised_values_are_those_of_torch(scale: float, qmin: int, qmax: int, zero_point: int) -> None:
    x = (30 * draw(1, 7, 5)).float()
    assert torch.equal(
        ste_quant(x, scale, zero_point, qmin=qmin, qmax=qmax),
        torch.fake_quantize_per_tensor_affine(x, scale, zero_point, qmin, qmax),
    )


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_a_channel_is_quantised_as_if_it_were_alone(axis: int) -> None:
    x, n = draw(2, 4, 4, 3), 4 if axis != -1 else 3
    scale, zero = torch.linspace(0.1, 0.5, n), torch.arange(n)
    for i, (mine, slice_) in enumerate(
        zip(ste_quant(x, scale, zero, qmin=-8, qmax=7, axis=axis).unbind(axis), x.unbind(axis), strict=True)
    ):
        assert torch.equal(mine, ste_quant(slice_, scale[i], zero[i], qmin=-8, qmax=7))
    for i, mine in enumerate(lsq_quant(x, scale, qmin=-8, qmax=7, axis=axis).unbind(axis)):
        assert torch.equal(mine, lsq_quant(x.select(axis, i), scale[i], qmin=-8, qmax=7))


def test_the_outermost_levels_receive_gradient_and_the_next_number_beyond_does_not() -> None:
    scale = torch.tensor(0.3, dtype=torch.float64)
    bottom, top, beyond = -8 * scale, 7 * scale, torch.tensor(math.inf, dtype=torch.float64)
    x = torch.stack([bottom, top, bottom.nextafter(-beyond), top.nextafter(beyond)]).requires_grad_()
    assert gradient(ste_quant(x, scale, qmin=-8, qmax=7), x).tolist() == [1, 1, 0, 0]


def test_a_quantiser_keeps_one_boolean_per_element_and_lets_go_of_x() -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ste_quant(draw(0, 5).requires_grad_(), 0.1)
        sign_ste(draw(0, 5).requires_grad_())
    assert [t.dtype for t in kept] == [torch.bool, torch.bool]


def test_the_papers_gradient_scale_is_one_over_the_root_of_n_times_qmax() -> None:
    x, step = draw(3, 6, 2), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    plain = gradient(lsq_quant(x, step, qmin=-8, qmax=7), step)
    assert close(gradient(lsq_quant(x, step, qmin=-8, qmax=7, grad_scale=None), step), plain / math.sqrt(12 * 7))


def test_a_binary_sign_is_never_zero_and_keeps_nan() -> None:
    y = sign_ste(torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30, NAN]))
    assert y[:5].tolist() == [-1, 1, 1, 1, -1]
    assert y[5].isnan()


def test_gradients_do_not_leave_the_window_even_when_the_cotangent_is_infinite() -> None:
    x = torch.tensor([0.5, 3.0], requires_grad=True)
    for y in (sign_ste(x), ste_quant(x, 0.1, qmin=-8, qmax=7), lsq_quant(x, torch.tensor(0.1), qmin=-8, qmax=7)):
        assert torch.autograd.grad(y, x, torch.full_like(y, math.inf))[0][1] == 0


def test_a_weight_of_minus_one_reverses_and_zero_stops() -> None:
    x = draw(1, 3).requires_grad_()
    assert torch.equal(reweight_gradient(x, -1.0), x)
    assert torch.equal(gradient(reweight_gradient(x, -1), x), -torch.ones(3, dtype=torch.float64))
    assert not gradient(reweight_gradient(x, torch.zeros(3)), x).any()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("ignore_index", [-100, 0, 2])
def test_without_focal_and_row_weights_the_loss_is_torchs_cross_entropy(reduction: str, ignore_index: int) -> None:
    z, t, w = draw(1, 9, 4), torch.arange(9) % 4, torch.rand(4, dtype=torch.float64)
    options = {"ignore_index": ignore_index, "reduction": reduction}
    assert close(
        reweighted_cross_entropy(z, t, class_weight=w, **options), functional.cross_entropy(z, t, w, **options)
    )


def test_batch_axes_are_rows_like_any_other() -> None:
    z, t, w = draw(1, 2, 3, 4), torch.arange(6).reshape(2, 3) % 4, draw(2, 2, 3).abs()
    whole = reweighted_cross_entropy(z, t, w, gamma=2.0)
    assert close(whole, reweighted_cross_entropy(z.reshape(6, 4), t.reshape(6), w.reshape(6), gamma=2.0))


@pytest.mark.parametrize("mean_by", ["weight", "count"])
def test_the_mean_divides_by_what_it_says(mean_by: str) -> None:
    z, t, w = draw(1, 5, 3), torch.tensor([0, 1, -100, 2, 1]), draw(2, 5).abs()
    losses = reweighted_cross_entropy(z, t, w, reduction="none")
    total = w[t != -100].sum() if mean_by == "weight" else 4
    assert close(reweighted_cross_entropy(z, t, w, mean_by=mean_by), losses.sum() / total)


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("mean_by", ["weight", "count"])
def test_a_mean_over_no_row_is_zero_with_zero_gradient_whatever_the_logits(rows: int, mean_by: str) -> None:
    z = torch.full((rows, 4), NAN, requires_grad=True)
    loss = reweighted_cross_entropy(z, torch.full((rows,), -100), gamma=2.0, mean_by=mean_by)
    assert loss.item() == 0
    assert not gradient(loss, z).any()


def test_rows_that_do_not_count_cannot_spoil_the_others() -> None:
    z, t, w = draw(1, 4, 3), torch.tensor([0, -100, 2, 1]), torch.tensor([1.0, 1.0, 0.0, 2.0])
    spoilt = z.clone()
    spoilt[1], spoilt[2] = NAN, math.inf
    found = []
    for logits in (z, spoilt):
        x = logits.clone().requires_grad_()
        loss = reweighted_cross_entropy(x, t, w, gamma=1.0)
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        found.append((loss.detach(), first.detach(), gradient(first.square(), x)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_logits_give_the_loss_and_the_gradient_in_the_limit(dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, -1e4], [1e4, -1e4]], dtype=dtype, requires_grad=True)
    losses = reweighted_cross_entropy(z, torch.tensor([0, 1]), gamma=2.0, reduction="none")
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    assert losses.tolist() == [0, pytest.approx(2e4, rel=1e-2)]
    assert gradient(losses, z).tolist() == [[0, 0], [1, -1]]


def test_masked_classes_and_small_margins_keep_their_digits() -> None:
    z = torch.tensor([[40.0, 0.0, -math.inf]], dtype=torch.float64)
    missing = math.exp(-40) / (1 + math.exp(-40))  # 1 - p of class 0, far below the rounding of p
    loss = reweighted_cross_entropy(z, torch.tensor([0]), gamma=1.0, reduction="sum")
    assert loss.item() == pytest.approx(missing * math.log1p(math.exp(-40)), rel=1e-12)


def test_class_balance_goes_from_equal_weights_to_inverse_counts() -> None:
    counts = torch.tensor([1, 10, 1000])
    inverse = 1 / counts.double()
    assert class_balanced_weights(counts, beta=0).tolist() == [1, 1, 1]
    assert class_balanced_weights([1, 10, 1000], beta=1 - 1e-12).tolist() == pytest.approx(
        (inverse / inverse.mean()).tolist(), rel=1e-6
    )
    effective = (1 - 0.9 ** counts.double()) / (1 - 0.9)
    assert class_balanced_weights(counts, beta=0.9).tolist() == pytest.approx(
        (1 / effective / (1 / effective).mean()).tolist(), rel=1e-6
    )
