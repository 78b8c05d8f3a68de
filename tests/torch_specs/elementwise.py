"""Elementwise functions: special functions on their natural domains, arithmetic with broadcasting, activations."""

from __future__ import annotations

import torch
from torch.nn import functional

from gradverify.records.spec import Domain
from tests.torch_specs.words import integers, mask, off, positive, real, spec, within

ANY = "*b n"

ON_THE_REALS = (
    torch.sin,
    torch.cos,
    torch.tan,
    torch.atan,
    torch.sinh,
    torch.cosh,
    torch.tanh,
    torch.asinh,
    torch.exp,
    torch.exp2,
    torch.expm1,
    torch.erf,
    torch.erfc,
    torch.sigmoid,
    torch.square,
    torch.abs,
    torch.neg,
    torch.sinc,
    torch.deg2rad,
    torch.rad2deg,
    torch.nan_to_num,
    torch.special.erfcx,
    torch.special.i0,
    torch.special.i0e,
    torch.special.i1,
    torch.special.i1e,
    torch.special.ndtr,
)
ON_POSITIVE = (
    torch.log,
    torch.log2,
    torch.log10,
    torch.sqrt,
    torch.rsqrt,
    torch.special.entr,
)
INSIDE = (
    (torch.asin, -1.0, 1.0),
    (torch.acos, -1.0, 1.0),
    (torch.atanh, -1.0, 1.0),
    (torch.erfinv, -1.0, 1.0),
    (torch.logit, 0.0, 1.0),
    (torch.special.ndtri, 0.0, 1.0),
)
ACTIVATIONS = (
    functional.relu,
    functional.relu6,
    functional.selu,
    functional.silu,
    functional.mish,
    functional.softsign,
    functional.tanhshrink,
    functional.hardswish,
    functional.hardtanh,
    functional.logsigmoid,
)
# Broadcasting: one axis of the second argument is 1 or that of the first.
TWO = (torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, torch.fmax, torch.fmin)
TWO_MORE = (torch.logaddexp, torch.logaddexp2, torch.atan2, torch.copysign)

# torch 2.13.0: trigamma is good to nine digits in float64: 4.934802202074 at 1/2, where it is pi^2/2 = 4.934802200545.
TRIGAMMA = {"GV602": "torch's trigamma has nine digits"}
# torch 2.13.0: with other = -3 the forward is x / 8, and backward returns 0: its 2^other is an integer.
LDEXP = dict.fromkeys(("GV1xx", "GV206", "GV401", "GV215"), "torch's ldexp takes 2^other for an integer")
# torch 2.13.0: derivatives whose terms cancel. sinc at 8e-8: 2.6178e-7 for 2.6130e-7, the same at all points around;
# erfcx at 6.7e5: -1.250333e-12 for -1.250318e-12; i1e at 1e6: nine digits.
CANCELS = {
    "sinc": dict.fromkeys(("GV1xx", "GV401", "GV602"), "torch's derivative of sinc loses its digits near 0"),
    "erfcx": dict.fromkeys(("GV1xx", "GV401", "GV602"), "torch's derivative of erfcx loses its digits far out"),
    "i1e": {"GV602": "torch's derivative of i1e loses digits far out"},
}


def name_of(function) -> str:
    return function.__name__.removeprefix("special_")


def zeta(q):
    return torch.special.zeta(2.5, q)


def clamp_between(x, low, high):
    return torch.clamp(x, low, high)


def power(base, exponent):
    return torch.pow(base, exponent)


def glu(x):
    return functional.glu(x, -1)


def rrelu(x):
    return functional.rrelu(x, 0.1, 0.3, training=False)


ELEMENTWISE = (
    *(spec(name_of(f), f, real("input", ANY), xfail=CANCELS.get(name_of(f), {})) for f in ON_THE_REALS),
    *(spec(name_of(f), f, positive("input", ANY)) for f in ON_POSITIVE),
    *(spec(name_of(f), f, within("input", ANY, lo, hi, closed=False)) for f, lo, hi in INSIDE),
    *(spec(f.__name__, f, real("input", ANY)) for f in ACTIVATIONS),
    *(spec(f.__name__, f, real("input", "*b n"), real("other", "#n")) for f in (*TWO, *TWO_MORE)),
    spec("lgamma", torch.lgamma, positive("input", ANY), xfail=TRIGAMMA),
    spec("digamma", torch.digamma, positive("input", ANY), xfail=TRIGAMMA),
    # torch 2.13.0: far to the left the forward, -x^2/2, is right and its slope, about -x, is not: 1000109.02 at -1e6,
    # 100.009998001020 for 100.009998000000 at -100.
    spec(
        "log_ndtr",
        torch.special.log_ndtr,
        real("input", ANY),
        xfail={
            **dict.fromkeys(("GV1xx", "GV401"), "torch's log_ndtr has a derivative that is wrong far to the left"),
            "GV111": "which is nan at -1e30",
            "GV602": "it loses digits before",
        },
    ),
    # torch 2.13.0: the gradient is a tensor that is zero by its type; a second one cannot be added to it ("ZeroTensors
    # are immutable"). Differences see no slope at any step, and a gradient of zero has no size to be right to.
    spec(
        "sgn",
        torch.sgn,
        real("input", ANY),
        xfail={"GV214": "torch leaves a ZeroTensor in .grad"}
        | dict.fromkeys(("vjp", "edges", "jvp"), "it stands still"),
    ),
    # torch 2.13.0: the slope 1/6 is rounded to float32: 0.1666666716.
    spec("hardsigmoid", functional.hardsigmoid, real("input", ANY), xfail={"GV602": "torch keeps 1/6 in float32"}),
    # torch 2.13.0: nan at the origin, where torch.linalg.norm of the pair has the subgradient 0.
    spec("hypot", torch.hypot, real("input", "*b n"), real("other", "#n"), xfail={"GV111": "torch divides 0 by 0"}),
    spec("reciprocal", torch.reciprocal, off("input", ANY, 0.0)),
    spec("acosh", torch.acosh, real("input", ANY, Domain(lo=1.0, avoid=(1.0,)))),
    spec("log1p", torch.log1p, real("input", ANY, Domain(lo=-1.0, avoid=(-1.0,)))),
    spec(
        "mvlgamma",
        torch.mvlgamma,
        real("input", ANY, Domain(lo=1.0, avoid=(1.0,))),
        kwargs={"p": (1, 2, 3)},
        xfail=TRIGAMMA,
    ),
    spec(
        "polygamma",
        torch.special.polygamma,
        positive("input", ANY),
        kwargs={"n": (1, 0, 2)},
        order=("n", "input"),
        xfail=TRIGAMMA,
    ),
    spec("zeta", zeta, real("q", ANY, Domain(lo=0.1))),
    spec("div", torch.div, real("input", "*b n"), off("other", "#n", 0.0)),
    spec("true_divide", torch.true_divide, real("input", "n"), off("other", "*b n", 0.0)),
    spec("fmod", torch.fmod, real("input", "*b n"), off("other", "n", 0.0)),
    spec("remainder", torch.remainder, real("input", "*b n"), off("other", "n", 0.0)),
    spec("frac", torch.frac, real("input", ANY)),
    spec("pow", power, positive("base", "*b n"), real("exponent", "#n")),
    spec("float_power", torch.float_power, positive("input", "*b n"), real("exponent", "n")),
    spec("pow_scalar", torch.pow, real("input", ANY), kwargs={"exponent": (2, 3, 0, 1)}),
    spec("xlogy", torch.xlogy, real("input", "*b n"), positive("other", "n")),
    spec("xlog1py", torch.special.xlog1py, real("input", "*b n"), real("other", "n", Domain(lo=-1.0, avoid=(-1.0,)))),
    spec("ldexp", torch.ldexp, real("input", "*b n"), integers("other", "n", -3, 3), xfail=LDEXP),
    spec("lerp", torch.lerp, real("input", "*b n"), real("end", "*b n"), real("weight", "n")),
    spec(
        "addcmul",
        torch.addcmul,
        *(real(n, "*b n") for n in ("input", "tensor1")),
        real("tensor2", "n"),
        kwargs={"value": (1.0, -0.5)},
    ),
    spec(
        "addcdiv",
        torch.addcdiv,
        *(real(n, "*b n") for n in ("input", "tensor1")),
        off("tensor2", "n", 0.0),
        kwargs={"value": (1.0, -0.5)},
    ),
    spec("where", torch.where, mask("condition", "*b n"), real("input", "*b n"), real("other", "n")),
    spec("clamp", torch.clamp, real("input", ANY), kwargs={"min": (-0.7, None), "max": (0.8,)}),
    # torch 2.13.0, batch in `low` alone: RuntimeError: output with shape [1, 1] doesn't match the broadcast shape
    # [3, 1, 1].
    spec(
        "clamp_between",
        clamp_between,
        real("x", "*b n"),
        real("low", "n"),
        real("high", "n"),
        xfail={
            "GV502": "torch cannot batch clamp where a bound alone is batched",
            **dict.fromkeys(("GV1xx", "GV206", "GV215", "GV401"), "torch gives neither of equal bounds a gradient"),
        },
    ),
    spec("clamp_min", torch.clamp_min, real("input", ANY), kwargs={"min": (0.3,)}),
    spec("leaky_relu", functional.leaky_relu, real("input", ANY), kwargs={"negative_slope": (0.01, 0.3)}),
    spec("elu", functional.elu, real("input", ANY), kwargs={"alpha": (1.0, 0.3)}),
    # torch 2.13.0: 1/alpha is rounded to float32: 0.09697197300 at -0.7 with alpha = 0.3, where it is 0.09697196786.
    spec(
        "celu",
        functional.celu,
        real("input", ANY),
        kwargs={"alpha": (1.0, 0.3)},
        xfail={"GV602": "torch keeps 1/alpha in float32"},
    ),
    spec("gelu", functional.gelu, real("input", ANY), kwargs={"approximate": ("none", "tanh")}),
    spec("softplus", functional.softplus, real("input", ANY), kwargs={"beta": (1.0, 2.0)}),
    spec("hardshrink", functional.hardshrink, real("input", ANY), kwargs={"lambd": (0.5, 0.1)}),
    spec("softshrink", functional.softshrink, real("input", ANY), kwargs={"lambd": (0.5, 0.1)}),
    spec("threshold", functional.threshold, real("input", ANY), kwargs={"threshold": (0.1,), "value": (20.0,)}),
    spec("prelu", functional.prelu, real("input", "b c n"), real("weight", "c"), c=1),
    spec("rrelu", rrelu, real("x", ANY)),
    spec("glu", glu, real("x", "*b 2*n")),
)
