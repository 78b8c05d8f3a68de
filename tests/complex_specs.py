"""Right functions of torch with complex inputs or outputs as specs: name, callable, shapes, domain."""

from __future__ import annotations

from typing import Any

import torch

from gradverify.records.spec import Arg, Dim, Domain, Spec

NONEMPTY = Dim(lo=1)
AWAY = Domain(avoid=(0.0,))
SMALL = Domain(lo=-3.0, hi=3.0)


def quotient(z, w):
    return z / w


def solved(m, b):
    """Solves a system that is well conditioned: 4 on the diagonal of a matrix of entries below 1."""
    return torch.linalg.solve(4 * m.shape[-1] * torch.eye(m.shape[-1], dtype=m.dtype) + m, b)


def rfft(x):
    return torch.fft.rfft(x)


def irfft(z):
    return torch.fft.irfft(z, 2 * z.shape[-1] - 1)


def as_complex(pairs):
    return torch.view_as_complex(pairs)


def as_real(z):
    return torch.view_as_real(z)


def real_part(z):
    return z.real


def imaginary_part(z):
    return z.imag


def conjugate(z):
    return z.conj()


def real_times_complex(s, z):
    return torch.exp(1j * s) * z


def spec(name: str, op: Any, *args: Arg, **fields: Any) -> Spec:
    """A spec whose letters all start at size 1."""
    letters = {w.strip("*") for a in args for w in a.shape.split() if w.strip("*").isalpha()}
    dims = dict.fromkeys(letters, NONEMPTY) | fields.pop("dims", {})
    return Spec(name=name, op=op, args=args, dims=dims, **fields)


def z(shape: str, name: str = "z", domain: Domain = Domain()) -> Arg:  # noqa: B008 (frozen)
    """A complex argument."""
    return Arg(name=name, shape=shape, domain=domain, complex=True)


def x(shape: str, name: str = "x", domain: Domain = Domain()) -> Arg:  # noqa: B008 (frozen)
    """A real argument."""
    return Arg(name=name, shape=shape, domain=domain)


COMPLEX = (
    spec("mul", torch.mul, z("*b n", "input"), z("n", "other")),
    spec("quotient", quotient, z("*s"), z("*s", "w", AWAY)),
    spec("abs", torch.abs, z("*s", "input", AWAY)),
    spec("angle", torch.angle, z("*s", "input", AWAY)),
    spec("exp", torch.exp, z("*s", "input", SMALL)),
    spec("tanh", torch.tanh, z("*s", "input", Domain(lo=-1.0, hi=1.0))),
    spec("log", torch.log, z("*s", "input", Domain(kind="positive"))),
    spec("fft", torch.fft.fft, z("b n", "input")),
    spec("rfft", rfft, x("b n")),
    spec("irfft", irfft, z("b n")),
    spec("matmul", torch.matmul, z("b n k", "input"), z("b k m", "other")),
    # torch 2.13.0, real or complex: reverse over forward loses terms of the matrix. At 1 x 1 it gives -0.0041 where
    # d2(b / m) by hand is 0.0119; reverse over reverse and forward over reverse are right.
    spec(
        "solve",
        solved,
        z("n n", "m", Domain(lo=-1.0, hi=1.0)),
        z("n k", "b"),
        xfail={"GV501": "torch's reverse over forward loses terms of the matrix"},
    ),
    # torch 2.13.0: backward views the cotangent as complex where it lies, and refuses it at an odd offset.
    spec(
        "view_as_real",
        as_real,
        z("*s"),
        xfail={"GV203": "torch's backward refuses a cotangent at an odd offset"},
    ),
    spec("view_as_complex", as_complex, x("*s 2", "pairs"), layouts=("contiguous",)),
    spec("conj", conjugate, z("*s")),
    spec("real", real_part, z("*s")),
    spec("imag", imaginary_part, z("*s")),
    spec("polar", torch.polar, x("*s", "abs", Domain(lo=0.1, hi=4.0)), x("*s", "angle", SMALL)),
    spec("complex", torch.complex, x("*s", "real"), x("*s", "imag")),
    spec("real_times_complex", real_times_complex, x("*s", "s", SMALL), z("*s")),
)
