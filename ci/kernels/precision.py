"""How much a kernel loses in a narrow dtype, beside plain PyTorch in the same dtype on the same numbers.

Truth is the reference in float64 at the narrow inputs. The relative errors of outputs and gradients are pooled over
cases, so that the ratio of the two hardly depends on the luck of a rounding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.calling import Called
from gradverify.cases.materialise import cotangents, materialise
from gradverify.cases.strategies import allowed, cases
from gradverify.records.case import Case, Point
from gradverify.records.spec import Spec

NARROW = ("bfloat16", "float16", "float32")
MOST = 2.0
"""A kernel's error may be so many times that of plain PyTorch: the rule of flash-attention's own tests."""

UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """Pooled relative errors of one quantity: the kernel's, and plain PyTorch's."""

    kernel: float
    plain: float
    unit: float

    @property
    def ratio(self) -> float:
        """The kernel's error in units of the plain one, which cannot be less than the rounding of the result."""
        return self.kernel / max(self.plain, self.unit / 4)


def drawn(spec: Spec, dtype: str, *, count: int, start: int = 0, device: str = "cpu") -> list[Case]:
    """Cases with ordinary values and contiguous memory, most axes longer than one."""
    kept: list[Case] = []
    floats = {a.name for a in spec.args if a.role not in ("integer", "mask")}

    @seed(start)
    @settings(
        max_examples=24 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(spec, "vjp", dtype=dtype, device=device))
    def collect(case: Case) -> None:
        sizes = [n for _, size in case.dims for n in (size if isinstance(size, tuple) else (size,))]
        full = 0 not in sizes and 2 * sum(n > 1 for n in sizes) >= len(sizes)
        if full and {v for n, v in case.values if n in floats} <= {"normal"} and allowed(spec, case):
            kept.append(case)

    collect()
    return list({c.id: c for c in kept}.values())[:count]


def losses(spec: Spec, drawn: Iterable[Case]) -> dict[str, Loss]:
    """Quantity -> pooled errors. Quantities are outputs and gradients."""
    assert spec.reference is not None
    op, reference = calling.op_of(spec), calling.companion(spec, spec.reference)
    kernel, plain, units = defaultdict(list), defaultdict(list), []
    for case in drawn:
        point = materialise(spec, case)
        exact = computed(spec, reference, widened(point), case)
        for call, errors in ((op, kernel), (reference, plain)):
            for name, value in computed(spec, call, point, case).items():
                # An exact zero, as of a softmax over one key, has no size to be relative to.
                if exact[name].any() or not value.isfinite().all():
                    errors[name].append(relative(value, exact[name]))
        units.append(UNIT[case.dtype])
    return {n: Loss(pooled(kernel[n]), pooled(plain[n]), max(units)) for n in kernel}


def computed(spec: Spec, call: Called, point: Point, case: Case) -> dict[str, Tensor]:
    """Outputs and gradients of a call; the cotangents are the same narrow numbers for all."""
    tape = products.record(spec, call, point)
    narrow = [y.detach().to(getattr(torch, case.dtype)) for y in tape.outputs]
    us = [u if u is None else u.to(y.dtype) for u, y in zip(cotangents(case, narrow), tape.outputs, strict=True)]
    grads = tape.vjp(us)
    values = {f"y{k}" if len(tape.outputs) > 1 else "y": y.detach() for k, y in enumerate(tape.outputs)}
    return values | {f"d{n}": g for n, g in grads.items() if g is not None}


def widened(point: Point) -> Point:
    """The same numbers in float64."""
    primals = {n: t.double() if t is not None and t.is_floating_point() else t for n, t in point.primals.items()}
    return replace(point, primals=primals)


def relative(value: Tensor, exact: Tensor) -> float:
    """||value - exact|| / ||exact||; NaN where either is not finite, 0 where both vanish."""
    gap = torch.linalg.vector_norm(value.double() - exact.double())
    size = torch.linalg.vector_norm(exact.double())
    return float(gap / size) if float(size) > 0 else (0.0 if float(gap) == 0 else float("nan"))


def pooled(errors: Sequence[float]) -> float:
    """The median: one case whose gradient nearly cancels would be all of a mean. NaN where any is not finite."""
    if not all(map(math.isfinite, errors)):
        return math.nan
    return median(errors) if errors else 0.0


def words(found: Mapping[str, Loss]) -> str:
    """The ratios of all quantities."""
    return ", ".join(f"{n} {loss.ratio:.2f}" for n, loss in found.items())


def too_large(found: Mapping[str, Loss], most: float = MOST) -> list[str]:
    """The quantities whose error is too large, in words."""
    return [
        f"{n} errs by {loss.kernel:.1e}, plain PyTorch by {loss.plain:.1e}: {loss.ratio:.2f} times, {most} is allowed"
        for n, loss in found.items()
        if not loss.ratio <= most
    ]
