"""Products, factorisations and solvers. What needs a regular matrix is given a positive definite or a dominant one."""

from __future__ import annotations

import torch
from torch.nn import functional

from tests.torch_specs.words import SQUARE, off, real, spd, spec
from tests.versions import OLD_TORCH

# torch 2.11.0: of m > n + 1 rows, the gradient of the trace wraps round: for [3, 1] it is [1, 0, 1].
TRACE = dict.fromkeys(("GV199", "GV206", "GV402", "GV215"), "torch's gradient of a tall matrix wraps round")


def symmetric(a):
    return (a + a.mT) / 2


def cholesky(a):
    return torch.linalg.cholesky(symmetric(a))


def eigvalsh(a):
    return torch.linalg.eigvalsh(symmetric(a))


def cholesky_solve(b, a):
    return torch.cholesky_solve(b, cholesky(a))


def cholesky_inverse(a):
    return torch.cholesky_inverse(cholesky(a))


def solve_triangular(a, b):
    return torch.linalg.solve_triangular(a, b, upper=False)


def lu_solve(a, b):
    return torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b)


def lstsq(a, b):
    return torch.linalg.lstsq(a, b).solution


def multi_dot(a, b, c):
    return torch.linalg.multi_dot([a, b, c])


def einsum(a, b):
    return torch.einsum("bij,bjk->ik", a, b)


def tensordot(a, b):
    return torch.tensordot(a, b, dims=2)


def cross(a, b):
    return torch.linalg.cross(a, b)


def qr(a):
    """The one QR decomposition whose R has a positive diagonal: torch's own jumps where a column is done already."""
    q, r = torch.linalg.qr(a)
    signs = torch.sgn(r.diagonal(dim1=-2, dim2=-1)).detach()
    return q * signs[..., None, :], r * signs[..., :, None]


def householder_product(a):
    """Reflections only: of other factors tau torch's backward asks that they can be inverted."""
    square = torch.tril(a, -1).square().sum(-2)
    return torch.linalg.householder_product(a, 2 / (1 + square))


def matrix_power(a, n):
    return torch.linalg.matrix_power(a, n)


def weighted_add(x, mat1, mat2):
    return torch.addmm(x, mat1, mat2, beta=0.5, alpha=-2.0)


# torch 2.13.0: reverse over forward of det at [[2, 0.3], [0.1, 1.5]], along (1.54, -0.29, -2.18, 0.57) and with the
# cotangent -1.08, gives -2.263 for the first entry; differences of backward and reverse over reverse say -0.616. Of
# slogdet and logdet the tangent has no history at all.
OVER_FORWARD = {"GV501": "torch's reverse over forward takes the factors of A for constants"}
# torch 2.13.0: of [[1, 1], [1, 1]] the gradient is 0, where it is [[1, -1], [-1, 1]]; in forward mode also of [[0]].
SINGULAR = dict.fromkeys(("GV1xx", "GV206", "GV215", "GV401", "GV402"), "torch's det has no gradient where singular")

LINALG = (
    spec("matmul", torch.matmul, real("input", "*b m k"), real("other", "k n")),
    spec("mm", torch.mm, real("input", "m k"), real("mat2", "k n")),
    spec("bmm", torch.bmm, real("input", "b m k"), real("mat2", "b k n")),
    spec("mv", torch.mv, real("input", "m k"), real("vec", "k")),
    spec("dot", torch.dot, real("input", "k"), real("tensor", "k")),
    spec("vdot", torch.vdot, real("input", "k"), real("other", "k")),
    spec("inner", torch.inner, real("input", "m k"), real("other", "n k")),
    spec("outer", torch.outer, real("input", "m"), real("vec2", "n")),
    spec("vecdot", torch.linalg.vecdot, real("x", "*b k"), real("y", "k")),
    spec("addmm", weighted_add, real("x", "n"), real("mat1", "m k"), real("mat2", "k n")),
    spec("addmv", torch.addmv, real("input", "m"), real("mat", "m k"), real("vec", "k")),
    spec("addr", torch.addr, real("input", "m n"), real("vec1", "m"), real("vec2", "n")),
    spec("addbmm", torch.addbmm, real("input", "m n"), real("batch1", "b m k"), real("batch2", "b k n")),
    spec("baddbmm", torch.baddbmm, real("input", "b m n"), real("batch1", "b m k"), real("batch2", "b k n")),
    spec("linear", functional.linear, real("input", "*b k"), real("weight", "n k"), real("bias", "n")),
    spec(
        "bilinear",
        functional.bilinear,
        real("input1", "b i"),
        real("input2", "b j"),
        real("weight", "o i j"),
        real("bias", "o"),
        i=1,
        j=1,
        o=1,
    ),
    spec("multi_dot", multi_dot, real("a", "m k"), real("b", "k n"), real("c", "n p")),
    spec("einsum", einsum, real("a", "b i j"), real("b", "b j k")),
    spec("tensordot", tensordot, real("a", "m i j"), real("b", "i j n")),
    # torch 2.13.0 refuses a transposed argument ("view size is not compatible"). It saves views that do not know of a
    # change: with b set from 3 to 7 between the call and backward, the gradient of a is 7 and no error.
    spec(
        "kron",
        torch.kron,
        real("input", "m n"),
        real("other", "p q"),
        xfail={"GV203": "torch refuses a transposed argument", "GV212": "torch uses what was changed in place"},
    ),
    spec("cross", cross, real("a", "*b 3"), real("b", "*b 3")),
    spec("trace", torch.trace, real("input", "m n"), xfail=TRACE if OLD_TORCH else {}),
    spec("matrix_power", matrix_power, real("a", "m m"), kwargs={"n": (2, 3, 0, 1)}),
    spec("matrix_exp", torch.linalg.matrix_exp, spd("input", "b n n")),
    spec(
        "matrix_norm", torch.linalg.matrix_norm, real("A", "b m n"), kwargs={"ord": ("fro", 1, float("inf"))}, m=1, n=1
    ),
    spec("nuclear_norm", torch.linalg.matrix_norm, real("A", "m n"), kwargs={"ord": ("nuc", 2)}, m=1, n=1),
    spec("vander", torch.linalg.vander, real("x", "n"), dims={"n": SQUARE}),
    spec("cdist", torch.cdist, real("x1", "m d"), real("x2", "n d"), kwargs={"p": (2.0, 1.0, 3.0)}),
    spec("det", torch.linalg.det, real("A", "b n n"), xfail=OVER_FORWARD | SINGULAR),
    spec("slogdet", torch.linalg.slogdet, spd("A", "b n n"), xfail=OVER_FORWARD),
    spec("logdet", torch.logdet, spd("input", "n n"), xfail=OVER_FORWARD),
    spec("inv", torch.linalg.inv, spd("A", "b n n")),
    spec("pinv", torch.linalg.pinv, spd("A", "n n")),
    # torch 2.13.0: a backward without a graph takes the LU factors for constants, so reverse over forward loses their
    # terms: at A = 1.7, B = 0.6 it is half of the derivative.
    spec(
        "solve",
        torch.linalg.solve,
        spd("A", "b n n"),
        real("B", "b n k"),
        xfail=OVER_FORWARD,
    ),
    spec("solve_triangular", solve_triangular, spd("a", "n n"), real("b", "n k")),
    spec("lu_solve", lu_solve, spd("a", "n n"), real("b", "n k")),
    # torch 2.13.0: the last digits hang on where LAPACK's copies come to lie.
    spec("lstsq", lstsq, spd("a", "n n"), real("b", "n k"), xfail={"GV204": "LAPACK's last digits differ"}),
    spec("cholesky", cholesky, spd("a", "b n n")),
    spec("cholesky_solve", cholesky_solve, real("b", "n k"), spd("a", "n n")),
    # torch 2.13.0: with L = cholesky([[2, 0.3], [0.3, 1.5]]) and the tangent [[1, 0], [0.3, 0.2]] the first entry is
    # -0.7124; differences and backward say -0.6904.
    spec(
        "cholesky_inverse",
        cholesky_inverse,
        spd("a", "n n"),
        xfail=dict.fromkeys(("GV401", "GV402"), "torch's forward mode of cholesky_inverse is wrong"),
    ),
    spec("eigvalsh", eigvalsh, spd("a", "n n")),
    spec("svdvals", torch.linalg.svdvals, real("A", "m n")),
    spec("qr", qr, spd("a", "b n n")),
    # torch 2.13.0: at [[0.3], [0.7]] reverse over forward gives -0.8296; differences of backward and reverse over
    # reverse say -0.7177.
    spec(
        "householder_product",
        householder_product,
        real("a", "m m"),
        xfail={"GV501": "torch's reverse over forward of householder_product is wrong"},
    ),
    spec("cosine_similarity", functional.cosine_similarity, off("x1", "b d", 0.0), off("x2", "b d", 0.0), d=1),
    spec(
        "pairwise_distance",
        functional.pairwise_distance,
        real("x1", "b d"),
        real("x2", "b d"),
        kwargs={"p": (2.0, 3.0)},
        d=1,
    ),
    spec("pdist", functional.pdist, real("input", "b d"), kwargs={"p": (2.0, 1.0, 3.0)}, d=1, dims={"b": SQUARE}),
)
