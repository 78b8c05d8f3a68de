"""The small ops of the judge's table, by class, each with the faults that are planted in its backward."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ci.bench.op import Bug, Fn, Op, Tamper, generator

KINDS = ("smooth", "scaled", "stiff", "noisy", "near kink", "on kink")


def normal(name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Normal numbers that depend on the name alone."""
    return torch.randn(*shape, generator=generator(name), dtype=torch.float64) * scale + shift


def logspace(name: str, lo: float, hi: float, count: int) -> Tensor:
    """10^lo .. 10^hi in equal ratios, in shuffled order."""
    order = torch.randperm(count, generator=generator(name))
    return torch.logspace(lo, hi, count, dtype=torch.float64)[order]


def values(*numbers: float) -> Tensor:
    """A float64 vector."""
    return torch.tensor(numbers, dtype=torch.float64)


# Faults, each a way in which a backward goes wrong after its formula was right.
def _on(argument: int, change: Fn) -> Tamper:
    def tamper(grads: list[Tensor], inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> list[Tensor]:
        return [change(g) if i == argument else g for i, g in enumerate(grads)]

    return tamper


def _put(g: Tensor, entry: int, factor: float) -> Tensor:
    out = g.clone().reshape(-1)
    out[entry] *= factor
    return out.reshape(g.shape)


def scaled(factor: float, argument: int = 0) -> Bug:
    """All entries times `factor`."""
    return Bug(name=f"times {factor:.8g}", tamper=_on(argument, lambda g: g * factor))


def entry(index: int, factor: float = 0.0, argument: int = 0) -> Bug:
    """One entry times `factor`."""
    return Bug(name=f"entry {index} times {factor:.8g}", tamper=_on(argument, lambda g: _put(g, index, factor)))


def moved(name: str, change: Fn, argument: int = 0) -> Bug:
    """The gradient of one argument rearranged or replaced."""
    return Bug(name=name, tamper=_on(argument, change))


def instead(name: str, fn: Fn) -> Bug:
    """The gradient of another function: a term dropped, a constant forgotten."""
    return Bug(name=name, instead=fn)


def where_small(limit: float, factor: float) -> Bug:
    """Entries of small inputs times `factor`."""

    def tamper(grads: list[Tensor], inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> list[Tensor]:
        return [torch.where(x.abs() < limit, g * factor, g) for g, x in zip(grads, inputs, strict=True)]

    return Bug(name=f"|x| < {limit:g} times {factor:g}", tamper=tamper)


def fixed(name: str, slopes: Tensor) -> Bug:
    """An elementwise op that claims these slopes."""
    return Bug(name=name, tamper=lambda grads, inputs, cotangents: [cotangents[0] * slopes])


# The ops. Formulas are written out, so that most of them take complex numbers too (see `complex_step_gap`).
def softmax(x: Tensor) -> Tensor:
    """exp(x) over its sum along the last axis."""
    e = torch.exp(x - x.detach().real.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def layer_norm(x: Tensor, w: Tensor, b: Tensor, eps: float = 1e-2) -> Tensor:
    """Normalise the last axis; `eps` is large so that leaving it out shows."""
    c = x - x.mean(-1, keepdim=True)
    return c / torch.sqrt((c * c).mean(-1, keepdim=True) + eps) * w + b


def rms_norm(x: Tensor) -> Tensor:
    """x over its root mean square along the last axis."""
    return x / torch.sqrt((x * x).mean(-1, keepdim=True))


def _rms_norm_frozen(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True)).detach()


def _norm_frozen_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    c = x - x.mean(-1, keepdim=True).detach()
    return c / torch.sqrt((c * c).mean(-1, keepdim=True) + 1e-2) * w + b


def _softmax_frozen(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True).detach()


LABELS = torch.tensor([1, 0, 3, 2])


def smoothed_loss(x: Tensor, smoothing: float = 0.1, count: int = 4) -> Tensor:
    """Cross entropy of [4, 5] logits with label smoothing, mean over the rows."""
    logp = torch.log(softmax(x))
    picked = logp[torch.arange(4), LABELS]
    return -((1 - smoothing) * picked + smoothing * logp.mean(-1)).sum() / count


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float = 0.5) -> Tensor:
    """Causal attention of [5, 4] queries, keys and values."""
    scores = (q @ k.mT * scale).masked_fill(torch.ones(5, 5).triu(1) > 0, -1e4)
    return softmax(scores) @ v


def recurrence(x: Tensor, w: Tensor, cut: int = 0) -> Tensor:
    """h <- tanh(w h + x_t), six steps; `cut` steps from the start carry no gradient."""
    h = torch.zeros_like(x[0])
    for t in range(6):
        h = torch.tanh(h @ w + x[t])
        h = h.detach() if t + 1 == cut else h
    return h


def soft_plus(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return torch.log(1 + torch.exp(x))


def convolve(x: Tensor, w: Tensor) -> Tensor:
    """Correlation of [8] with [3], no padding."""
    return x.unfold(0, 3, 1) @ w


def _gated(a: Tensor, b: Tensor) -> Tensor:
    return a * b / (1 + torch.exp(-1.7 * b))


def _double_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    return 1e6 * torch.sin(x), 1e-9 * torch.cos(x)


def _double_scale_second(x: Tensor) -> tuple[Tensor, Tensor]:
    return 1e6 * torch.sin(x), 2e-9 * torch.cos(x)


def _tiny_loss(x: Tensor) -> Tensor:
    return 1e-7 * smoothed_loss(x)


def _smooth() -> list[Op]:
    square, w4 = normal("square", 4, 4), normal("square w", 4, 4)
    normed = (normal("ln", 3, 6, scale=0.3), normal("ln w", 6), normal("ln b", 6))
    qkv = (normal("q", 5, 4), normal("k", 5, 4), normal("v", 5, 4))
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("gated product", _gated, (normal("ga", 2, 6), normal("gb", 2, 6)), (scaled(1 + 1e-4, 1), entry(3))),
        (
            "affine map",
            lambda x, w, b: x @ w + b,
            (square, w4, normal("bias", 4)),
            (moved("gradient of w transposed", lambda g: g.mT, 1), moved("mean, not sum", lambda g: g / 4, 2)),
        ),
        (
            "layer norm",
            layer_norm,
            normed,
            (
                instead("eps left out", lambda x, w, b: layer_norm(x, w, b, 0.0)),
                instead("mean term", _norm_frozen_mean),
            ),
        ),
        (
            "smoothed cross entropy",
            smoothed_loss,
            (normal("logits", 4, 5),),
            (
                instead("smoothing forgotten", lambda x: smoothed_loss(x, 0.0)),
                instead("divided by n - 1", lambda x: smoothed_loss(x, 0.1, 3)),
            ),
        ),
        (
            "causal attention",
            attention,
            qkv,
            (
                moved("last key dropped", lambda g: torch.cat([g[:-1], 0 * g[-1:]]), 1),
                instead("scale forgotten", lambda q, k, v: attention(q, k, v, 1.0)),
            ),
        ),
        ("softmax", softmax, (normal("sm", 3, 5),), (instead("sum term dropped", _softmax_frozen),)),
        ("softplus", soft_plus, (normal("sp", 12, scale=2),), (moved("shifted", lambda g: g.roll(1)),)),
        ("outputs 1e6 and 1e-9", _double_scale, (normal("ds", 6),), (instead("second doubled", _double_scale_second),)),
        ("loss times 1e-7", _tiny_loss, (normal("tl", 4, 5),), (scaled(0.0), scaled(2.0), scaled(-1.0))),
        (
            "saturated sigmoid",
            lambda x: 1 / (1 + torch.exp(-x)),
            (values(9.0, 12.0, -11.0, 14.0, -13.0, 10.0),),
            (scaled(0.0),),
        ),
        (
            "running product",
            lambda x: torch.cumprod(x, 0),
            (normal("rp", 8, scale=0.4, shift=1.5),),
            (moved("reversed", lambda g: g.flip(0)),),
        ),
        (
            "recurrence",
            recurrence,
            (normal("rx", 6, 3, scale=0.5), normal("rw", 3, 3)),
            (instead("truncated after two steps", lambda x, w: recurrence(x, w, 4)),),
        ),
        (
            "correlation",
            convolve,
            (normal("cx", 8), normal("cw", 3)),
            (moved("kernel gradient flipped", lambda g: g.flip(0), 1),),
        ),
        (
            "determinant",
            torch.linalg.det,
            (normal("det", 4, 4, scale=0.3) + torch.eye(4, dtype=torch.float64),),
            (moved("transposed", lambda g: g.mT),),
        ),
    ]
    return [Op(name=n, kind="smooth", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def _scaled() -> list[Op]:
    wide = logspace("wide", -6, 6, 9)
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("3 x at 2e9", lambda x: 3 * x, (normal("big", 6, scale=1e8, shift=2e9),), (entry(2), scaled(1.001))),
        ("cube, 1e-6 to 1e6", lambda x: x * x * x, (wide,), (where_small(1e-3, 0.0),)),
        ("log, 1e-9 to 1e9", torch.log, (logspace("log", -9, 9, 9),), (where_small(1e-6, 0.5),)),
        (
            "reciprocal square",
            lambda x: 1 / (x * x),
            (logspace("rs", -5, 5, 8),),
            (moved("reversed", lambda g: g.flip(0)),),
        ),
        ("rsqrt at 1e-10", lambda x: 1 / torch.sqrt(x), (normal("rq", 6).abs() * 1e-10 + 1e-10,), (scaled(1.0002),)),
        ("log at 1e13", torch.log, (normal("l13", 6).abs() * 1e13 + 1e13,), (scaled(1e4), scaled(0.0))),
        (
            "rms norm at 1e7",
            rms_norm,
            (normal("rms", 3, 4, scale=1e7),),
            (instead("mean term dropped", _rms_norm_frozen),),
        ),
        (
            "norm at 1e-9",
            lambda x: torch.sqrt((x * x).sum()),
            (normal("n9", 6, scale=1e-9),),
            (moved("reversed", lambda g: g.flip(0)),),
        ),
        ("cosine at 1e-9", torch.cos, (normal("c9", 6, scale=1e-9),), (scaled(0.0),)),
        (
            "Boltzmann factor",
            lambda e: torch.exp(-e / 4.11e-21),
            (normal("kt", 6).abs() * 4e-21 + 1e-21,),
            (scaled(0.999),),
        ),
    ]
    return [Op(name=n, kind="scaled", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def _stiff() -> list[Op]:
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("sin(3e5 x)", lambda x: torch.sin(3e5 * x), (normal("s5", 6),), (scaled(1.01), entry(4, -1.0))),
        ("exp(-x / 1e-7)", lambda x: torch.exp(-x / 1e-7), (normal("e7", 6).abs() * 1e-7,), (scaled(-1.0),)),
        ("tanh(5e5 x)", lambda x: torch.tanh(5e5 * x), (normal("t5", 6, scale=2e-6),), (scaled(0.99),)),
        ("2e9 + exp(x)", lambda x: 2e9 + torch.exp(x), (normal("off", 6),), (scaled(1.02),)),
        ("(sin x + 1e7) - 1e7", lambda x: (torch.sin(x) + 1e7) - 1e7, (normal("can", 6),), (scaled(0.0),)),
        (
            "narrow bump",
            lambda x: torch.exp(-(((x - 1) / 1e-4) ** 2)),
            (normal("bump", 6, scale=7e-5, shift=1.0),),
            (entry(0), scaled(1.001)),
        ),
        (
            "softmax at temperature 1e-4",
            lambda x: softmax(x / 1e-4),
            (normal("temp", 5, scale=1e-4, shift=0.3),),
            (instead("sum term dropped", lambda x: _softmax_frozen(x / 1e-4)),),
        ),
    ]
    return [Op(name=n, kind="stiff", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def _single(fn: Fn) -> Fn:
    """Compute in float32, as a kernel does that casts its inputs."""
    return lambda *x: fn(*(t.float() for t in x)).double()


class Root(torch.autograd.Function):
    """y with y^3 + y = x by halving an interval until it is shorter than 1e-8; gradient 1 / (3 y^2 + 1)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Halve [-|x| - 1, |x| + 1]; all entries are halved equally often."""
        lo, hi = -(x.abs() + 1), x.abs() + 1
        while float((hi - lo).max()) > 1e-8:
            mid = (lo + hi) / 2
            low = mid**3 + mid < x
            lo, hi = torch.where(low, mid, lo), torch.where(low, hi, mid)
        return (lo + hi) / 2

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the root."""
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        """The implicit function theorem."""
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return cotangent / (3 * y * y + 1)


_ATOMICS = generator("atomics")


def _reordered_sum(x: Tensor) -> Tensor:
    """Softplus with a relative error of 1e-12 that is another one in each call, as from atomic additions."""
    wobble = torch.randn(x.shape, generator=_ATOMICS, dtype=torch.float64)
    return soft_plus(x) * (1 + 1e-12 * wobble)


class Rounded(torch.autograd.Function):
    """sin to ten decimals; gradient cos."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Round to a grid of 1e-10."""
        return torch.round(torch.sin(x), decimals=10)

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep x."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        """The derivative of what was rounded."""
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return cotangent * torch.cos(x)


def _noisy() -> list[Op]:
    f32 = _single
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("exp in float32", f32(torch.exp), (normal("fe", 8),), (scaled(1.01), entry(5))),
        (
            "matmul in float32",
            f32(torch.matmul),
            (normal("fm", 4, 4), normal("fn", 4, 4)),
            (moved("transposed", lambda g: g.mT, 1),),
        ),
        (
            "rms norm in float32",
            f32(rms_norm),
            (normal("fr", 3, 5),),
            (instead("mean term dropped", f32(_rms_norm_frozen)),),
        ),
        ("softmax in float32", f32(softmax), (normal("fs", 3, 5),), (scaled(0.9),)),
        ("root by halving to 1e-8", Root.apply, (normal("root", 6, scale=2),), (scaled(-1.0),)),
        ("atomics at 1e-12", _reordered_sum, (normal("at", 8),), (scaled(1.001),)),
        ("sin to ten decimals", Rounded.apply, (normal("dec", 6),), (scaled(0.98),)),
    ]
    return [Op(name=n, kind="noisy", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def _near_kink() -> list[Op]:
    pair = normal("pair", 6)
    apart = values(3e-7, -4e-7, 2e-7, -5e-7, 6e-7, -1e-7)
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        (
            "leaky relu at 4e-7",
            lambda x: functional.leaky_relu(x, 0.1),
            (values(4e-7, -6e-7, 2e-7, -1.5, 0.7),),
            (fixed("slopes swapped", values(0.1, 1.0, 0.1, 1.0, 0.1)), scaled(1.01)),
        ),
        ("|x| at 3e-7", torch.abs, (apart,), (scaled(0.0), scaled(-1.0))),
        (
            "maximum, 3e-7 apart",
            torch.maximum,
            (pair, pair + apart),
            (Bug(name="arguments swapped", tamper=lambda grads, inputs, cotangents: grads[::-1]),),
        ),
        (
            "clamp, 2e-7 inside and outside",
            lambda x: torch.clamp(x, -1.0, 1.0),
            (values(1 - 2e-7, 1 + 2e-7, -1 + 3e-7, -1 - 3e-7, 0.3),),
            (scaled(0.0), fixed("straight through", values(1.0, 1.0, 1.0, 1.0, 1.0))),
        ),
        (
            "sort, 2e-7 apart",
            lambda x: torch.sort(x)[0],
            (values(0.5, 0.5 + 2e-7, -0.3, -0.3 - 2e-7, 1.1),),
            (moved("not undone", lambda g: g[torch.tensor([1, 0, 3, 2, 4])]),),
        ),
        (
            "fraction near a whole number",
            torch.frac,
            (values(2 + 3e-7, 4 - 3e-7, 1 + 5e-7, 0.4),),
            (scaled(0.0),),
        ),
        (
            "hinge loss at 1e-6",
            lambda x: torch.relu(1 - x).sum(),
            (values(1 - 1e-6, 1 + 1e-6, 0.2, 1.9),),
            (fixed("margin forgotten", values(-1.0, -1.0, -1.0, -1.0)),),
        ),
    ]
    return [Op(name=n, kind="near kink", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def _on_kink() -> list[Op]:
    tie = values(0.7, 0.7, -0.2, 0.1)
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("relu at 0", torch.relu, (values(0.0, 0.0, 1.3, -0.4),), (fixed("2 at 0", values(2.0, 2.0, 1.0, 0.0)),)),
        ("|x| at 0", torch.abs, (values(0.0, -0.8, 0.0, 1.1),), (fixed("-1.5 at 0", values(-1.5, -1.0, -1.5, 1.0)),)),
        (
            "amax, tied",
            torch.amax,
            (tie,),
            (moved("1 for both", lambda g: (g != 0) * g.sum()),),
        ),
        (
            "clamp at its bound",
            lambda x: torch.clamp(x, -1.0, 1.0),
            (values(1.0, -1.0, 0.3, 2.0),),
            (fixed("1.3 at the bound", values(1.3, 1.3, 1.0, 0.0)),),
        ),
        (
            "hinge at its margin",
            lambda x: torch.relu(1 - x).sum(),
            (values(1.0, 0.2, 1.0, 1.9),),
            (fixed("+1 at the margin", values(1.0, -1.0, 1.0, 0.0)),),
        ),
        ("maximum, tied", torch.maximum, (tie, tie.clone()), (scaled(3.0),)),
        (
            "norm at 0",
            torch.linalg.vector_norm,
            (torch.zeros(3, dtype=torch.float64),),
            (
                Bug(
                    name="2 everywhere",
                    tamper=lambda grads, inputs, cotangents: [torch.full_like(inputs[0], 2.0) * cotangents[0]],
                ),
            ),
        ),
    ]
    return [Op(name=n, kind="on kink", fn=f, inputs=x, bugs=b) for n, f, x, b in table]


def small_ops() -> list[Op]:
    """All of them, in the order of KINDS."""
    return [*_smooth(), *_scaled(), *_stiff(), *_noisy(), *_near_kink(), *_on_kink()]
