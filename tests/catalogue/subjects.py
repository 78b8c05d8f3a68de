"""The catalogue as one table: every op beside the surrogate whose derivative its backward must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from gradverify.catalogue.lsq_quant import lsq_quant
from gradverify.catalogue.matmul import matmul
from gradverify.catalogue.reweight_gradient import reweight_gradient
from gradverify.catalogue.reweighted_cross_entropy import reweighted_cross_entropy
from gradverify.catalogue.sign_ste import sign_ste
from gradverify.catalogue.ste_quant import ste_quant

Primals = tuple[Tensor, ...]
SIZES = ((3, 4), (1, 1), (0, 4), (3, 1), (7, 5))


@dataclass(frozen=True)
class Subject:
    """`op(*differentiable, *frozen)`; `surrogate` the same in plain torch, with `detach` for what is frozen.

    `holds_constant`: something that depends on the differentiable arguments, so that differences see it move.
    """

    name: str
    op: Callable[..., Tensor]
    surrogate: Callable[..., Tensor]
    draw: Callable[[torch.Generator, int, int], tuple[Primals, Primals]]
    holds_constant: bool = False

    def point(self, seed: int, sizes: tuple[int, int] = (3, 4)) -> tuple[Primals, Primals]:
        """Differentiable and frozen arguments in float64."""
        return self.draw(torch.Generator().manual_seed(seed), *sizes)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def positive(g: torch.Generator, *shape: int) -> Tensor:
    return 0.1 + torch.rand(shape, generator=g, dtype=torch.float64)


def with_bounds(x: Tensor, *bounds: Tensor | float) -> Tensor:
    """x, with its first entries moved onto the bounds and next to them: where masks are decided."""
    flat = x.flatten()
    points = torch.cat([torch.as_tensor(b, dtype=x.dtype).flatten()[:1] for b in bounds])
    points = torch.cat([points, points * (1 + 1e-9), points * (1 - 1e-9)])[: flat.numel()]
    return torch.cat([points, flat[points.numel() :]]).reshape(x.shape)


def ste_surrogate(x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int) -> Tensor:
    if scale.ndim:
        scale, zero_point = scale.unsqueeze(-1), zero_point.unsqueeze(-1)
    return torch.clamp(x, ((qmin - zero_point) * scale).expand_as(x), ((qmax - zero_point) * scale).expand_as(x))


def lsq_surrogate(x: Tensor, step: Tensor, *, qmin: int, qmax: int, grad_scale: float | None) -> Tensor:
    k = grad_scale or (max(x.numel() // max(step.numel(), 1), 1) * qmax) ** -0.5
    s = step.unsqueeze(-1) if step.ndim else step
    s = s.detach() + k * (s - s.detach())
    c = (x / s).clamp(qmin, qmax)
    return s * (c + (c.round() - c).detach())


def loss_surrogate(
    logits: Tensor,
    target: Tensor,
    rows: Tensor,
    classes: Tensor,
    *,
    gamma: float,
    ignore_index: int,
    reduction: str,
    mean_by: str,
) -> Tensor:
    valid = target != ignore_index
    log_p = (logits - logits.logsumexp(-1, keepdim=True)).gather(-1, target.where(valid, 0).unsqueeze(-1)).squeeze(-1)
    weight = (rows * classes[target.where(valid, 0)] * (1 - log_p.exp()) ** gamma * valid).detach()
    losses = -weight * log_p
    if reduction == "none":
        return losses
    total = {"sum": 1, "weight": weight.sum(), "count": valid.sum()}["sum" if reduction == "sum" else mean_by]
    return losses.sum() / total if total else losses.sum() * 0


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "relu": lambda z: z.clamp(min=0),
    "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
    "gelu_tanh": lambda z: z * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3))) / 2,
    "silu": lambda z: z / (1 + torch.exp(-z)),
}


def draw_matmul(g: torch.Generator, n: int, c: int) -> tuple[Primals, Primals]:
    return (normal(g, 2, n, c), normal(g, c, 3), normal(g, 3)), ()


def draw_ste(g: torch.Generator, n: int, c: int, *, qmin: int, qmax: int, channel: bool) -> tuple[Primals, Primals]:
    scale = positive(g, n) if channel else positive(g)
    zero_point = torch.randint(-2, 3, scale.shape, generator=g)
    low, high = (qmin - zero_point) * scale, (qmax - zero_point) * scale
    return (with_bounds(3 * normal(g, n, c), low, high),), (scale, zero_point)


def draw_lsq(g: torch.Generator, n: int, c: int, *, qmin: int, qmax: int, channel: bool) -> tuple[Primals, Primals]:
    step = positive(g, n) if channel else positive(g)
    return (with_bounds(3 * normal(g, n, c), qmin * step, qmax * step), step), ()


def draw_loss(g: torch.Generator, n: int, c: int) -> tuple[Primals, Primals]:
    return (4 * normal(g, n, c),), (torch.randint(0, c, (n,), generator=g), positive(g, n), positive(g, c))


def all_scores(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    align: str = "lower_right",
    window: int | tuple[int | None, int | None] | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention as it is defined, with one boolean for every score."""
    m, n = q.shape[2], k.shape[2]
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    diagonal = n - m if align == "lower_right" else 0
    ahead = torch.arange(n) - torch.arange(m)[:, None] - diagonal
    left, right = window if isinstance(window, tuple) else (window, window)
    seen = torch.ones_like(ahead, dtype=torch.bool)
    for bound, inside in ((left, lambda w: ahead >= -w), (0 if causal else right, lambda w: ahead <= w)):
        seen = seen if bound is None else seen & inside(bound)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * q @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    scores = scores.masked_fill(~seen, -torch.inf)
    dead = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(dead, 0).softmax(-1).masked_fill(dead, 0) @ v


def ste_subjects() -> list[Subject]:
    found = []
    for (qmin, qmax), channel in product(((-8, 7), (0, 15), (-1, 1)), (False, True)):
        levels = {"qmin": qmin, "qmax": qmax}
        found.append(
            Subject(
                f"ste_quant-{qmin}-{qmax}" + "-channel" * channel,
                partial(ste_quant, **levels, axis=0 if channel else None),
                partial(ste_surrogate, **levels),
                partial(draw_ste, **levels, channel=channel),
            )
        )
    return found


def lsq_subjects() -> list[Subject]:
    found = []
    for (qmin, qmax), channel, k in product(((-8, 7), (0, 15)), (False, True), (None, 0.25)):
        levels = {"qmin": qmin, "qmax": qmax}
        found.append(
            Subject(
                f"lsq_quant-{qmin}-{qmax}-{k}" + "-channel" * channel,
                partial(lsq_quant, **levels, grad_scale=k, axis=0 if channel else None),
                partial(lsq_surrogate, **levels, grad_scale=k),
                partial(draw_lsq, **levels, channel=channel),
                holds_constant=True,
            )
        )
    return found


def loss_subjects() -> list[Subject]:
    found = []
    reductions = (("none", "weight"), ("sum", "weight"), ("mean", "weight"), ("mean", "count"))
    for (reduction, mean_by), gamma, ignore in product(reductions, (0.0, 1.5), (-100, 0)):
        options = {"gamma": gamma, "ignore_index": ignore, "reduction": reduction, "mean_by": mean_by}
        found.append(
            Subject(
                f"reweighted_cross_entropy-{reduction}-{mean_by}-{gamma}-{ignore}",
                partial(reweighted_cross_entropy, **options),
                partial(loss_surrogate, **options),
                draw_loss,
                holds_constant=gamma > 0,
            )
        )
    return found


SUBJECTS = [
    *ste_subjects(),
    *lsq_subjects(),
    *loss_subjects(),
    *[
        Subject(
            f"matmul-{act}-{save}",
            partial(matmul, act=act, save=save),
            lambda x, w, b, a=a: a(torch.einsum("bnc,cd->bnd", x, w) + b),
            draw_matmul,
        )
        for (act, a), save in product(ACTIVATIONS.items(), ("input", "preactivation"))
    ],
    *[
        Subject(
            f"sign_ste-{w}",
            partial(sign_ste, window=w),
            lambda x, w=w: x.clamp(-w, w),
            lambda g, n, c, w=w: ((with_bounds(2 * normal(g, n, c), -w, w, 0.0),), ()),
        )
        for w in (1.0, 0.25)
    ],
    *[
        Subject(
            f"reweight_gradient-{what}",
            reweight_gradient,
            lambda x, w: x * w.detach(),
            lambda g, n, c, shape=shape: ((normal(g, n, c),), (normal(g, *shape(n, c)),)),
        )
        for what, shape in (
            ("scalar", lambda n, c: ()),
            ("row", lambda n, c: (n, 1)),
            ("column", lambda n, c: (c,)),
            ("full", lambda n, c: (n, c)),
        )
    ],
]
