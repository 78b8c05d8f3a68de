"""Strides of inputs and of incoming gradients, as kernels that take a bare pointer ignore them."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, Rule, arg, pair

fault = partial(pair, cls="layout", primary="layout")


def memory(t, *, start):
    """The t.numel() elements from `start` of the storage in row-major order; zeros past its end."""
    size = t.untyped_storage().nbytes() // t.element_size()
    flat = t.as_strided((size,), (1,), 0)[start : start + t.numel()]
    return torch.cat((flat, flat.new_zeros(t.numel() - len(flat)))).view(t.shape)


def raw(t):
    """What a kernel reads that is handed `t.data_ptr()` and believes it row-major."""
    return memory(t, start=t.storage_offset())


def log_mean(x):
    """log of the mean of exp along rows: [b n] -> [b]."""
    return torch.logsumexp(x, -1) - torch.log(torch.tensor(float(x.shape[-1]), dtype=x.dtype))


class LogMean(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return log_mean(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g[:, None] * torch.softmax(x, -1)


class LogMeanRaw(LogMean):
    """Assumes a contiguous cotangent; `.sum().backward()` hands it one of stride 0."""

    @staticmethod
    def backward(ctx, g):
        return LogMean.backward(ctx, raw(g))


def silu(x):
    return x * torch.sigmoid(x)


class Silu(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return silu(x)

    @staticmethod
    def backward(ctx, g):
        return _silu_backward(ctx, g)


class SiluCotangentRaw(Silu):
    """Reads a transposed cotangent row by row."""

    @staticmethod
    def backward(ctx, g):
        return _silu_backward(ctx, raw(g))


class SiluOffset(Silu):
    """Reads the cotangent from the start of its storage: a slice's offset is lost."""

    @staticmethod
    def backward(ctx, g):
        return _silu_backward(ctx, g.as_strided(g.shape, g.stride(), 0))


class SiluInputStrides(Silu):
    """Reads the cotangent with the strides of x."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        flat = torch.cat((raw(g).flatten(), g.new_zeros(max(reach, 1))))
        return _silu_backward(ctx, flat.as_strided(x.shape, x.stride()))


class SiluNone(Silu):
    """An input that is not contiguous is copied, and the gradient goes to nobody."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return _silu_backward(ctx, g) if x.is_contiguous() else None


class SiluImages(Silu):
    """A path of its own for images in channels-last order reads x in that order and the cotangent in the other."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        images = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return _silu_backward(ctx, g.permute(0, 3, 1, 2).reshape(g.shape) if images else g)


def _silu_backward(ctx, g):
    (x,) = ctx.saved_tensors
    p = torch.sigmoid(x)
    return g * (p + x * p * (1 - p))


def local_contrast(x):
    """Product of neighbours along the last axis: [h w] -> [h w-1]."""
    return x[:, 1:] * x[:, :-1]


class LocalContrast(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return local_contrast(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return _contrast_backward(x, g)


class LocalContrastRaw(LocalContrast):
    """The forward copies a permuted image, the backward reads its memory."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return _contrast_backward(raw(x), g)


def _contrast_backward(x, g):
    gx = torch.zeros_like(x, memory_format=torch.contiguous_format)
    gx[:, 1:] += g * x[:, :-1]
    gx[:, :-1] += g * x[:, 1:]
    return gx


def cubes(x):
    return x**3 / 3


class Cubes(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return cubes(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x * x


class CubesLikeInput(Cubes):
    """Writes the gradient into memory with the strides of x: with stride 0 all entries share one place."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        where = torch.zeros(x.shape, dtype=torch.int64)
        for axis, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
            where = where + (torch.arange(size) * stride).view(-1, *[1] * (x.dim() - axis - 1))
        place = g.new_zeros(int(where.max()) + 1 if where.numel() else 0)
        place[where.flatten()] = (g * x * x).flatten()
        return place[where]


FAULTS = (
    fault(
        "row_cotangent_stride_0",
        wrong=LogMeanRaw,
        right=LogMean,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=log_mean,
        source="torch/nn#345, pytorch/vision#592",
        note="an expanded or strided cotangent",
    ),
    fault(
        "cotangent_read_raw",
        wrong=SiluCotangentRaw,
        right=Silu,
        args=[arg("x", "b n")],
        reference=silu,
        source="pytorch/vision#592",
        note="a transposed, strided or expanded cotangent",
    ),
    fault(
        "cotangent_offset_lost",
        wrong=SiluOffset,
        right=Silu,
        args=[arg("x", "*b")],
        reference=silu,
        note="a cotangent that is a slice with an offset",
    ),
    fault(
        "cotangent_with_strides_of_x",
        wrong=SiluInputStrides,
        right=Silu,
        args=[arg("x", "b n")],
        reference=silu,
        source="pytorch/pytorch#194719",
        note="x and cotangent of different strides",
    ),
    fault(
        "permuted_image_read_raw",
        wrong=LocalContrastRaw,
        right=LocalContrast,
        args=[arg("x", "h w")],
        dims={"w": NONEMPTY},
        reference=local_contrast,
        source="MrNeRF/optimized-fused-ssim#1",
        note="a transposed, strided or expanded input",
    ),
    fault(
        "expanded_input_shares_memory",
        wrong=CubesLikeInput,
        right=Cubes,
        args=[arg("x", "b n")],
        reference=cubes,
        source="pytorch/pytorch#30303",
        note="an expanded input",
    ),
    fault(
        "images_in_channels_last_order",
        wrong=SiluImages,
        right=Silu,
        args=[arg("x", "*b")],
        reference=silu,
        source="pytorch/pytorch#67434",
        note="an input of four axes in channels-last order",
    ),
    fault(
        "strided_input_gets_none",
        wrong=SiluNone,
        right=Silu,
        args=[arg("x", "b n")],
        reference=silu,
        source="cornellius-gp/gpytorch#1543",
        note="an input that is not contiguous",
    ),
)
