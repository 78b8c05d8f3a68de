"""Complex inputs and outputs: a conj too few, a part that is dropped, conjugates that nobody has computed yet.

Torch's gradient of a real L by z is dL/dRe z + i dL/dIm z; for y = F(z) it is u conj(dF/dz) + conj(u) dF/dz*.
"""

from __future__ import annotations

from functools import partial

import torch

from gradverify.records.spec import Arg, Dim, Domain
from tests.faults.record import NONEMPTY, SMALL, Rule, arg, pair

fault = partial(pair, cls="complex", must_fail=("vjp", "complex"))


def number(name, shape, domain=SMALL):
    """A complex argument."""
    return Arg(name=name, shape=shape, domain=domain, complex=True)


class Product(Rule):
    """z w, summed back to the shape of either: [b n], [n] -> [b n]."""

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), (g * z.conj()).sum(0)


class ProductUnconjugated(Product):
    """The rule of real numbers, for one factor of the two."""

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), (g * z).sum(0)


class Power(Rule):
    """|z|^2, which is real and has both Wirtinger parts."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.real.square() + z.imag.square()

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return 2 * g * z


class PowerOfRealPart(Power):
    """2 Re z: right for every real z."""

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return (2 * g * z.real).to(z.dtype)


class PowerWirtinger(Power):
    """d|z|^2/dz* = z, as a textbook has it: half of what torch calls the gradient."""

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g * z


class Modulus(Rule):
    """|z| over rows: sqrt(sum |z|^2), [b n] -> [b]; at 0 the subgradient 0."""

    @staticmethod
    def forward(ctx, z):
        y = torch.linalg.vector_norm(z, dim=-1)
        ctx.save_for_backward(z, y)
        return y

    @staticmethod
    def backward(ctx, g):
        z, y = ctx.saved_tensors
        return torch.where(y == 0, 0, g / y)[..., None] * z


class ModulusConjugated(Modulus):
    """z*/|z|: the slope dF/dz, where the gradient is the other one."""

    @staticmethod
    def backward(ctx, g):
        return Modulus.backward(ctx, g).conj()


class Scaled(Rule):
    """s z with a real scale for each row: [b], [b n] -> [b n]."""

    @staticmethod
    def forward(ctx, s, z):
        ctx.save_for_backward(s, z)
        return s[:, None] * z

    @staticmethod
    def backward(ctx, g):
        s, z = ctx.saved_tensors
        return (g * z.conj()).real.sum(-1), g * s[:, None]


class ScaledUnconjugated(Scaled):
    """Re(g z) for Re(g z*): a real gradient, and a wrong one."""

    @staticmethod
    def backward(ctx, g):
        s, z = ctx.saved_tensors
        return (g * z).real.sum(-1), g * s[:, None]


class Scan(Rule):
    """h_t = a_t h_(t-1) + x_t along the last axis: a linear recurrence, as in a state-space model."""

    @staticmethod
    def forward(ctx, a, x):
        h = torch.empty_like(x)
        last = torch.zeros_like(x[..., 0])
        for t in range(x.shape[-1]):
            last = a[..., t] * last + x[..., t]
            h[..., t] = last
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, g):
        a, h = ctx.saved_tensors
        gx = Scan.reversed(a.conj(), g)
        before = torch.cat([torch.zeros_like(h[..., :1]), h[..., :-1]], -1)
        return gx * before.conj(), gx

    @staticmethod
    def reversed(a, g):
        """p_t = g_t + a_(t+1) p_(t+1)."""
        p = g.clone()
        for t in range(g.shape[-1] - 2, -1, -1):
            p[..., t] += a[..., t + 1] * p[..., t + 1]
        return p


class ScanUnconjugated(Scan):
    """The recurrence runs back with a for a*."""

    @staticmethod
    def backward(ctx, g):
        a, h = ctx.saved_tensors
        gx = Scan.reversed(a, g)
        before = torch.cat([torch.zeros_like(h[..., :1]), h[..., :-1]], -1)
        return gx * before.conj(), gx


class Spectrum(Rule):
    """The half spectrum of real numbers; backward pads it with zeros, and takes the real part."""

    @staticmethod
    def forward(ctx, x):
        ctx.n = x.shape[-1]
        return torch.fft.rfft(x)

    @staticmethod
    def backward(ctx, g):
        return torch.fft.ifft(g, ctx.n, norm="forward").real


class SpectrumMirrored(Spectrum):
    """The inverse transform instead of the transpose: it mirrors the spectrum, and counts its middle twice."""

    @staticmethod
    def backward(ctx, g):
        return torch.fft.irfft(g, ctx.n, norm="forward")


class Rotated(Rule):
    """z exp(i t), by a real angle."""

    @staticmethod
    def forward(ctx, z, t):
        turn = torch.polar(torch.ones_like(t), t)
        ctx.save_for_backward(z, turn)
        return z * turn

    @staticmethod
    def backward(ctx, g):
        z, turn = ctx.saved_tensors
        return g * turn.conj(), (g * (z * turn).conj()).imag


class RotatedForwards(Rotated):
    """Turns the gradient of z the way that z went."""

    @staticmethod
    def backward(ctx, g):
        z, turn = ctx.saved_tensors
        return g * turn, (g * (z * turn).conj()).imag


class Mirrored(Rule):
    """z* w: the cotangent of z comes back conjugated."""

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return z.conj() * w

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g.conj() * w, g * z


class MirroredHolomorphic(Mirrored):
    """conj(dF/dz*) u, as if F were holomorphic in z."""

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), g * z


def read(t):
    """What a kernel that is handed the address of t sees: the memory, and neither of the bits that torch keeps."""
    raw = torch.empty(0, dtype=t.dtype)
    return raw.set_(t.untyped_storage(), t.storage_offset(), t.size(), t.stride())


class Kernel(Rule):
    """tanh of complex numbers by a kernel, which is handed tensors that hold what they say."""

    @staticmethod
    def forward(ctx, z):
        y = torch.tanh(read(z.resolve_conj()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return read(g.resolve_conj()) * (1 - y * y).conj()


class KernelForward(Kernel):
    """The kernel of the forward reads conjugates as they lie in memory."""

    @staticmethod
    def forward(ctx, z):
        y = torch.tanh(read(z))
        ctx.save_for_backward(y)
        return y


class KernelBackward(Kernel):
    """The kernel of the backward does."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return read(g) * (1 - y * y).conj()


class Imaginary(Rule):
    """Im(z w), whose cotangent is real, and may be a view of negatives."""

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return (z * w).imag.clone()

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        g = torch.complex(torch.zeros_like(g), read(g.resolve_neg()))
        return g * w.conj(), g * z.conj()


class ImaginaryUnresolved(Imaginary):
    """Reads negatives as they lie in memory."""

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        g = torch.complex(torch.zeros_like(g), read(g))
        return g * w.conj(), g * z.conj()


AWAY = Domain(lo=-3.0, hi=3.0, avoid=(0.0,))
ONE_NUMBER = (number("z", "*s"),)
TWO = (number("z", "*s"), number("w", "*s"))
STEPS = {"t": Dim(lo=2, hi=12), "b": NONEMPTY}

FAULTS = (
    fault(
        "product_without_conj",
        wrong=ProductUnconjugated,
        right=Product,
        args=(number("z", "b n"), number("w", "n")),
        note="right wherever z is real",
    ),
    fault("power_of_the_real_part", wrong=PowerOfRealPart, right=Power, args=ONE_NUMBER),
    fault("power_by_wirtinger", wrong=PowerWirtinger, right=Power, args=ONE_NUMBER),
    fault(
        "modulus_conjugated",
        wrong=ModulusConjugated,
        right=Modulus,
        args=(number("z", "b n", AWAY),),
        dims={"n": NONEMPTY},
    ),
    fault(
        "real_scale_without_conj",
        wrong=ScaledUnconjugated,
        right=Scaled,
        args=(arg("s", "b", SMALL), number("z", "b n")),
    ),
    fault(
        "scan_without_conj",
        wrong=ScanUnconjugated,
        right=Scan,
        args=(number("a", "b t"), number("x", "b t")),
        dims=STEPS,
        source="alxndrTL/mamba.py#65",
    ),
    fault(
        "spectrum_mirrored",
        wrong=SpectrumMirrored,
        right=Spectrum,
        args=(arg("x", "b n", SMALL),),
        dims={"b": NONEMPTY, "n": NONEMPTY},
        note="right up to two samples, and at the ends of the spectrum",
    ),
    fault(
        "rotated_forwards",
        wrong=RotatedForwards,
        right=Rotated,
        args=(number("z", "*s"), arg("t", "*s", SMALL)),
    ),
    fault(
        "mirrored_as_if_holomorphic",
        wrong=MirroredHolomorphic,
        right=Mirrored,
        args=TWO,
    ),
    fault(
        "kernel_ignores_the_conj_bit",
        wrong=KernelForward,
        right=Kernel,
        args=ONE_NUMBER,
        primary="complex",
        must_fail=("complex",),
        note="only an input that is a view of conjugates shows it",
    ),
    fault(
        "kernel_ignores_the_conj_bit_of_the_cotangent",
        wrong=KernelBackward,
        right=Kernel,
        args=ONE_NUMBER,
        primary="complex",
        must_fail=("complex",),
        note="as where the loss conjugates the output",
    ),
    fault(
        "kernel_ignores_the_negative_bit_of_the_cotangent",
        wrong=ImaginaryUnresolved,
        right=Imaginary,
        args=TWO,
        primary="complex",
        must_fail=("complex",),
        note="as where the output becomes the imaginary part of a conjugate",
    ),
)
