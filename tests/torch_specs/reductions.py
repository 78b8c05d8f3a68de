"""Reductions, scans and orders: sums, moments, norms, extremes, quantiles, cumulative sums, sorts."""

from __future__ import annotations

import torch

from tests.torch_specs.words import SQUARE, distinct, positive, real, spec
from tests.versions import OLD_TORCH

ROWS = "b n"
EITHER = {"dim": (1, 0)}
LAST = {"dim": (-1,)}


# torch 2.13.0: of torch.randn(1, 1, dtype=torch.float64).expand(1, 3) the median is 4.7e-310, and of a copy of it
# the entry: it reads memory that no one wrote, and at times finds what was there before (GV303).
MEDIAN = dict.fromkeys(("GV203", "GV303"), "torch's median of an expanded row reads unwritten memory")


def std_mean(x):
    return torch.std_mean(x, -1)


def var_mean(x):
    return torch.var_mean(x, -1)


def trapezoid(y, x):
    return torch.trapezoid(y, x)


def cumulative_trapezoid(y, x):
    return torch.cumulative_trapezoid(y, x)


def quantile(x):
    return torch.quantile(x, torch.tensor([0.1, 0.5, 0.77], dtype=x.dtype), -1)


def nanquantile(x):
    return torch.nanquantile(x, torch.tensor([0.25, 0.6], dtype=x.dtype), -1)


def topk(x):
    return torch.topk(x, 2, -1)


def kthvalue(x):
    return torch.kthvalue(x, 2, -1)


def renorm(x):
    return torch.renorm(x, 2, 0, 1.0)


REDUCTIONS = (
    spec("sum", torch.sum, real("input", ROWS), kwargs=EITHER | {"keepdim": (False, True)}),
    spec("sum_all", torch.sum, real("input", "*b n")),
    spec("nansum", torch.nansum, real("input", ROWS), kwargs=EITHER),
    spec("mean", torch.mean, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    spec("nanmean", torch.nanmean, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    spec("prod", torch.prod, real("input", ROWS), kwargs=EITHER),
    spec("var", torch.var, real("input", ROWS), kwargs=LAST | {"correction": (1, 0)}, n=2),
    spec("std", torch.std, real("input", ROWS), kwargs=LAST | {"correction": (1, 0)}, n=2),
    spec("var_mean", var_mean, real("x", ROWS), n=2),
    spec("std_mean", std_mean, real("x", ROWS), n=2),
    spec("logsumexp", torch.logsumexp, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    # torch 2.13.0: forward mode scales by the largest of all inputs: along (1, 1, 1) at (-1e6, 1e6, 5) the first
    # tangent is 0 and should be 1. Nearer by it loses digits.
    spec(
        "logcumsumexp",
        torch.logcumsumexp,
        real("input", ROWS),
        kwargs=EITHER,
        xfail=dict.fromkeys(("GV401", "GV402", "GV602"), "torch's forward mode underflows"),
    ),
    spec("cumsum", torch.cumsum, real("input", ROWS), kwargs=EITHER),
    spec("cumprod", torch.cumprod, real("input", ROWS), kwargs=EITHER),
    spec("cummax", torch.cummax, real("input", ROWS), kwargs=EITHER),
    spec("cummin", torch.cummin, real("input", ROWS), kwargs=EITHER),
    spec("amax", torch.amax, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    spec("amin", torch.amin, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    # torch 2.11.0 has no derivative of it.
    *(() if OLD_TORCH else (spec("aminmax", torch.aminmax, real("input", ROWS), kwargs=LAST, n=1),)),
    spec("max", torch.max, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    spec("min", torch.min, real("input", ROWS), kwargs=EITHER, b=1, n=1),
    spec("median", torch.median, real("input", ROWS), kwargs=LAST, n=1, xfail=MEDIAN),
    spec("nanmedian", torch.nanmedian, real("input", ROWS), kwargs=LAST, n=1, xfail=MEDIAN),
    spec("mode", torch.mode, distinct("input", ROWS), kwargs=LAST, n=1),
    spec("kthvalue", kthvalue, real("x", ROWS), n=2),
    spec("topk", topk, real("x", ROWS), n=2),
    spec("sort", torch.sort, real("input", ROWS), kwargs=LAST | {"descending": (False, True)}),
    spec("msort", torch.msort, real("input", ROWS)),
    spec("quantile", quantile, real("x", ROWS), b=1, n=1),
    spec("nanquantile", nanquantile, real("x", ROWS), b=1, n=1),
    spec("norm", torch.linalg.norm, real("x", "*b n"), b=1, n=1),
    spec(
        "vector_norm",
        torch.linalg.vector_norm,
        real("x", ROWS),
        kwargs={"ord": (2.0, 1.0, 3.0, 0.5, float("inf"), float("-inf")), "dim": (-1,)},
        n=1,
    ),
    spec("dist", torch.dist, real("input", "*b n"), real("other", "*b n"), kwargs={"p": (2.0, 1.0, 3.0)}),
    spec("renorm", renorm, real("x", "b n")),
    spec("diff", torch.diff, real("input", ROWS), kwargs={"n": (1, 2)}, n=3),
    spec("trapezoid", trapezoid, real("y", ROWS), real("x", "n")),
    spec("cumulative_trapezoid", cumulative_trapezoid, real("y", ROWS), real("x", "n")),
    spec("cov", torch.cov, real("input", ROWS), kwargs={"correction": (1, 0)}, n=2, dims={"b": SQUARE}),
    spec("corrcoef", torch.corrcoef, real("input", ROWS), n=3, dims={"b": SQUARE}),
    spec("geometric_mean", lambda x: torch.exp(torch.mean(torch.log(x), -1)), positive("x", ROWS), n=1),
)
