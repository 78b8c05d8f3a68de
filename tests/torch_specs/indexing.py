"""Indexing, scattering, joining, splitting and rearranging: most repeat indices, which add up in backward."""

from __future__ import annotations

import torch
from torch.nn import functional

from gradverify.records.spec import Dim
from tests.torch_specs.words import index, mask, real, spec


def gather(x, i):
    return torch.gather(x, 1, i)


def take_along_dim(x, i):
    return torch.take_along_dim(x, i, 1)


def index_select(x, i):
    return torch.index_select(x, 0, i)


def index_add(x, i, source, alpha=1.0):
    return torch.index_add(x, 0, i, source, alpha=alpha)


def index_copy(x, source):
    return torch.index_copy(x, 0, torch.arange(source.shape[0]), source)


def index_fill(x, i, value=0.5):
    return torch.index_fill(x, 0, i, value)


def index_put(x, i, source):
    return torch.index_put(x, (i,), source, accumulate=True)


def index_reduce(x, i, source, reduce="mean"):
    return torch.index_reduce(x, 0, i, source, reduce)


def scatter(x, source):
    return torch.scatter(x, 0, torch.arange(source.shape[0])[:, None].expand(source.shape), source)


def scatter_add(x, i, source):
    return torch.scatter_add(x, 0, i, source)


def scatter_reduce(x, i, source, reduce="sum", include_self=True):
    return torch.scatter_reduce(x, 0, i, source, reduce, include_self=include_self)


def getitem(x, i):
    return x[i, :, None]


def masked_scatter(x, m, source):
    return torch.masked_scatter(x, m, source)


def put(x, i, source):
    return torch.put(x, i, source, accumulate=True)


def cat(x, y):
    return torch.cat([x, y, x], 0)


def stack(x, y):
    return torch.stack([x, y], 1)


def hstack(x, y):
    return torch.hstack([x, y])


def dstack(x, y):
    return torch.dstack([x, y])


def block_diag(x, y):
    return torch.block_diag(x, y)


def cartesian_prod(x, y):
    return torch.cartesian_prod(x, y)


def meshgrid(x, y):
    return torch.meshgrid(x, y, indexing="ij")


def split(x):
    return torch.split(x, 2, 0)


def chunk(x):
    return torch.chunk(x, 3, -1)


def unbind(x):
    return torch.unbind(x, 1)


def narrow(x):
    return torch.narrow(x, 0, 1, 2)


def select(x):
    return torch.select(x, 1, -1)


def roll(x):
    return torch.roll(x, (1, -2), (0, 1))


def flip(x):
    return torch.flip(x, (0, 1))


def rot90(x, k=1):
    return torch.rot90(x, k, (0, 1))


def tile(x):
    return torch.tile(x, (2, 3))


def expand(x):
    return x.expand(3, -1, -1)


def permute(x):
    return torch.permute(x, (2, 0, 1))


def reshape(x):
    return torch.reshape(x.mT, (-1,))


def movedim(x):
    return torch.movedim(x, 0, -1)


def squeeze(x):
    return torch.squeeze(x, 1)


def strides(x):
    return x[::2, 1:]


def unfold(x):
    return x.unfold(-1, 3, 2)


def diagonal_scatter(x, source):
    return torch.diagonal_scatter(x, source)


def select_scatter(x, source):
    return torch.select_scatter(x, source, 1, 0)


def slice_scatter(x, source):
    return torch.slice_scatter(x, source, 0, 0, source.shape[0])


def pad(x, mode="constant"):
    return functional.pad(x, (2, 1), mode=mode)


def pad2d(x, mode="reflect"):
    return functional.pad(x, (1, 2, 0, 1), mode=mode)


def repeat_interleave(x):
    return torch.repeat_interleave(x, 3, 0)


def as_strided(x):
    return torch.as_strided(x.contiguous(), (3, 2), (1, 1))


def embedding_bag(i, weight, mode="mean"):
    return functional.embedding_bag(i, weight, mode=mode)


REDUCE = ("sum", "mean", "amax", "amin", "prod")

INDEXING = (
    spec("gather", gather, real("x", "b n"), index("i", "b m", "n"), n=1),
    spec("take_along_dim", take_along_dim, real("x", "b n"), index("i", "b m", "n"), n=1),
    spec("take", torch.take, real("input", "n"), index("index", "*b m", "n"), n=1),
    spec("index_select", index_select, real("x", "n d"), index("i", "m", "n"), n=1),
    spec(
        "index_add",
        index_add,
        real("x", "n d"),
        index("i", "m", "n"),
        real("source", "m d"),
        kwargs={"alpha": (1.0, -2.0)},
        n=1,
    ),
    spec("index_copy", index_copy, real("x", "m+2 d"), real("source", "m d")),
    spec("index_fill", index_fill, real("x", "n d"), index("i", "m", "n"), kwargs={"value": (0.5,)}, n=1),
    spec("index_put", index_put, real("x", "n d"), index("i", "m", "n"), real("source", "m d"), n=1),
    spec(
        "index_reduce",
        index_reduce,
        real("x", "n d"),
        index("i", "m", "n"),
        real("source", "m d"),
        kwargs={"reduce": ("mean", "amax", "amin", "prod")},
        n=1,
    ),
    spec("scatter", scatter, real("x", "m+2 d"), real("source", "m d")),
    spec("scatter_add", scatter_add, real("x", "n d"), index("i", "m d", "n"), real("source", "m d"), n=1),
    # torch 2.13.0: of duals the product returns a plain tensor, without an error: a tangent of zero.
    spec(
        "scatter_reduce",
        scatter_reduce,
        real("x", "n d"),
        index("i", "m d", "n"),
        real("source", "m d"),
        kwargs={"reduce": REDUCE, "include_self": (True, False)},
        n=1,
        xfail=dict.fromkeys(("GV401", "GV402"), "torch's forward mode of the product returns no tangent"),
    ),
    spec("getitem", getitem, real("x", "n d"), index("i", "m", "n"), n=1),
    spec("masked_fill", torch.masked_fill, real("input", "*b n"), mask("mask", "n"), kwargs={"value": (0.0, -2.5)}),
    spec("masked_select", torch.masked_select, real("input", "*b n"), mask("mask", "n")),
    spec("masked_scatter", masked_scatter, real("x", "b n"), mask("m", "b n"), real("source", "b n")),
    spec("put", put, real("x", "n"), index("i", "m", "n"), real("source", "m"), n=1),
    spec("embedding", functional.embedding, index("input", "*b m", "v"), real("weight", "v d"), v=1),
    spec(
        "embedding_bag",
        embedding_bag,
        index("i", "b m", "v"),
        real("weight", "v d"),
        kwargs={"mode": ("mean", "sum", "max")},
        v=1,
        m=1,
    ),
    spec("cat", cat, real("x", "m d"), real("y", "n d")),
    spec("stack", stack, real("x", "m d"), real("y", "m d")),
    spec("hstack", hstack, real("x", "b m"), real("y", "b n")),
    spec("dstack", dstack, real("x", "m d"), real("y", "m d")),
    spec("block_diag", block_diag, real("x", "m n"), real("y", "p q")),
    spec("cartesian_prod", cartesian_prod, real("x", "m"), real("y", "n")),
    spec("combinations", torch.combinations, real("input", "n"), kwargs={"r": (2, 3)}, dims={"n": Dim(hi=33)}),
    spec("meshgrid", meshgrid, real("x", "m"), real("y", "n")),
    spec("split", split, real("x", "n d"), n=1),
    spec("chunk", chunk, real("x", "b n"), n=1),
    spec("unbind", unbind, real("x", "b 3 n")),
    spec("narrow", narrow, real("x", "n d"), n=3),
    spec("select", select, real("x", "b n"), n=1),
    spec("roll", roll, real("x", "m n")),
    spec("flip", flip, real("x", "m n")),
    spec("rot90", rot90, real("x", "m n"), kwargs={"k": (1, 2, 3)}),
    spec("tile", tile, real("x", "m n")),
    spec("expand", expand, real("x", "1 m n")),
    spec("permute", permute, real("x", "a b c")),
    spec("reshape", reshape, real("x", "m n")),
    spec("movedim", movedim, real("x", "a b c")),
    spec("squeeze", squeeze, real("x", "a 1 c")),
    spec("strides", strides, real("x", "m n"), n=1),
    spec("tensor_unfold", unfold, real("x", "*b n"), n=3),
    spec("tril", torch.tril, real("input", "b m n"), kwargs={"diagonal": (0, 1, -1)}),
    spec("triu", torch.triu, real("input", "b m n"), kwargs={"diagonal": (0, 1, -1)}),
    spec("diag", torch.diag, real("input", "m n"), kwargs={"diagonal": (0, 1)}, n=1),
    spec(
        "diagonal", torch.diagonal, real("input", "b m n"), kwargs={"offset": (0, 1, -1), "dim1": (-2,), "dim2": (-1,)}
    ),
    spec("diag_embed", torch.diag_embed, real("input", "*b n"), kwargs={"offset": (0, 1)}, dims={"n": Dim(hi=65)}),
    spec("diagonal_scatter", diagonal_scatter, real("x", "n n"), real("source", "n")),
    # torch 2.13.0: under vmap over both, the gradient of source at m = 1 is twice the cotangent: -1.0142 for -0.5071.
    spec(
        "select_scatter",
        select_scatter,
        real("x", "m n"),
        real("source", "m"),
        n=1,
        xfail={"GV502": "torch's batched backward of select_scatter doubles"},
    ),
    spec("slice_scatter", slice_scatter, real("x", "m+2 n"), real("source", "m n")),
    spec("repeat_interleave", repeat_interleave, real("x", "m n")),
    spec("as_strided", as_strided, real("x", "2 n"), n=2),
    spec(
        "pad", pad, real("x", "b c n"), kwargs={"mode": ("constant", "reflect", "replicate", "circular")}, n=3, b=1, c=1
    ),
    spec(
        "pad2d", pad2d, real("x", "b c h w"), kwargs={"mode": ("reflect", "replicate", "circular")}, h=3, w=3, b=1, c=1
    ),
)
