"""Convolutions, pooling, resampling and attention."""

from __future__ import annotations

import torch
from torch.nn import functional

from tests.torch_specs.words import positive, real, spec


def strided_conv2d(x, weight, bias):
    return functional.conv2d(x, weight, bias, stride=(2, 1), padding=1, dilation=(1, 2))


def grouped_conv2d(x, weight):
    return functional.conv2d(x, weight, groups=2)


def conv_transpose2d(x, weight, bias):
    return functional.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)


def avg_pool2d(x):
    return functional.avg_pool2d(x, 3, 2, 1)


def avg_pool1d(x):
    return functional.avg_pool1d(x, 2)


def avg_pool3d(x):
    return functional.avg_pool3d(x, 2)


def max_pool1d(x):
    return functional.max_pool1d(x, 2)


def max_pool2d(x):
    return functional.max_pool2d(x, 3, 2, 1)


def max_pool3d(x):
    return functional.max_pool3d(x, 2)


def lp_pool1d(x):
    return functional.lp_pool1d(x, 3.0, 2)


def lp_pool2d(x):
    return functional.lp_pool2d(x, 2.0, 2)


def adaptive_avg_pool1d(x):
    return functional.adaptive_avg_pool1d(x, 3)


def adaptive_avg_pool2d(x):
    return functional.adaptive_avg_pool2d(x, (2, 3))


def adaptive_max_pool1d(x):
    return functional.adaptive_max_pool1d(x, 3)


def adaptive_max_pool2d(x):
    return functional.adaptive_max_pool2d(x, (2, 3))


def nearest(x):
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def linear(x, align_corners=False):
    return functional.interpolate(x, size=7, mode="linear", align_corners=align_corners)


def interpolate2d(x, mode="bilinear", align_corners=False):
    return functional.interpolate(x, size=(5, 3), mode=mode, align_corners=align_corners)


def area(x):
    return functional.interpolate(x, size=(3, 2), mode="area")


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros"):
    return functional.grid_sample(x, grid, mode=mode, padding_mode=padding_mode, align_corners=False)


def affine_grid(theta):
    return functional.affine_grid(theta, (theta.shape[0], 1, 3, 4), align_corners=False)


def fold(x):
    return functional.fold(x, (4, 4), 2)


def unfold(x):
    return functional.unfold(x, 2, stride=2)


def attention(query, key, value, is_causal=False):
    return functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)


IMAGE = "b c h w"

CONVOLUTION = (
    spec(
        "conv1d",
        functional.conv1d,
        real("input", "b i n+2"),
        real("weight", "o i 3"),
        real("bias", "o"),
        b=1,
        i=1,
        n=1,
        o=1,
    ),
    spec(
        "conv2d",
        strided_conv2d,
        real("x", "b i 5 n+4"),
        real("weight", "o i 3 3"),
        real("bias", "o"),
        b=1,
        i=1,
        n=1,
        o=1,
    ),
    spec("grouped_conv2d", grouped_conv2d, real("x", "b 2*i h+1 3"), real("weight", "2*o i 2 2"), b=1, i=1, h=1, o=1),
    spec("conv3d", functional.conv3d, real("input", "b i 3 3 4"), real("weight", "o i 2 2 2"), b=1, i=1, o=1),
    spec(
        "conv_transpose1d",
        functional.conv_transpose1d,
        real("input", "b i n"),
        real("weight", "i o 3"),
        b=1,
        i=1,
        n=1,
        o=1,
    ),
    spec(
        "conv_transpose2d",
        conv_transpose2d,
        real("x", "b i h 3"),
        real("weight", "i o 3 3"),
        real("bias", "o"),
        b=1,
        i=1,
        h=1,
        o=1,
    ),
    spec(
        "conv_transpose3d",
        functional.conv_transpose3d,
        real("input", "b i 2 2 3"),
        real("weight", "i o 2 2 2"),
        b=1,
        i=1,
        o=1,
    ),
    # torch 2.13.0 refuses a transposed input: "view size is not compatible with input tensor's size and stride".
    spec(
        "conv_tbc",
        torch.conv_tbc,
        real("input", "n+2 b i"),
        real("weight", "3 i o"),
        real("bias", "o"),
        xfail={"GV203": "torch refuses a transposed input"},
        b=1,
        i=1,
        n=1,
        o=1,
    ),
    spec("avg_pool1d", avg_pool1d, real("x", "b c n"), b=1, c=1, n=2),
    spec("avg_pool2d", avg_pool2d, real("x", IMAGE), b=1, c=1, h=2, w=2),
    spec("avg_pool3d", avg_pool3d, real("x", "b c 3 h w"), b=1, c=1, h=2, w=2),
    spec("max_pool1d", max_pool1d, real("x", "b c n"), b=1, c=1, n=2),
    spec("max_pool2d", max_pool2d, real("x", IMAGE), b=1, c=1, h=2, w=2),
    spec("max_pool3d", max_pool3d, real("x", "b c 3 h w"), b=1, c=1, h=2, w=2),
    spec("lp_pool1d", lp_pool1d, positive("x", "b c n"), b=1, c=1, n=2),
    spec("lp_pool2d", lp_pool2d, positive("x", IMAGE), b=1, c=1, h=2, w=2),
    spec("adaptive_avg_pool1d", adaptive_avg_pool1d, real("x", "b c n"), b=1, c=1, n=1),
    spec("adaptive_avg_pool2d", adaptive_avg_pool2d, real("x", IMAGE), b=1, c=1, h=1, w=1),
    spec("adaptive_max_pool1d", adaptive_max_pool1d, real("x", "b c n"), b=1, c=1, n=1),
    spec("adaptive_max_pool2d", adaptive_max_pool2d, real("x", IMAGE), b=1, c=1, h=1, w=1),
    spec("interpolate_nearest", nearest, real("x", IMAGE), b=1, c=1, h=1, w=1),
    spec("interpolate_linear", linear, real("x", "b c n"), kwargs={"align_corners": (False, True)}, b=1, c=1, n=1),
    spec(
        "interpolate_2d",
        interpolate2d,
        real("x", IMAGE),
        kwargs={"mode": ("bilinear", "bicubic"), "align_corners": (False, True)},
        b=1,
        c=1,
        h=1,
        w=1,
    ),
    spec("interpolate_area", area, real("x", IMAGE), b=1, c=1, h=1, w=1),
    spec(
        "grid_sample",
        grid_sample,
        real("x", "b c 3 4"),
        real("grid", "b m n 2"),
        kwargs={"mode": ("bilinear", "bicubic"), "padding_mode": ("zeros", "border", "reflection")},
        b=1,
        c=1,
        m=1,
        n=1,
    ),
    spec("affine_grid", affine_grid, real("theta", "b 2 3"), b=1),
    spec("fold", fold, real("x", "b 8 9"), b=1),
    spec("unfold", unfold, real("x", IMAGE), b=1, c=1, h=2, w=2),
    spec(
        "pixel_shuffle",
        functional.pixel_shuffle,
        real("input", "b 4*c h w"),
        kwargs={"upscale_factor": (2,)},
        b=1,
        c=1,
        h=1,
        w=1,
    ),
    spec(
        "pixel_unshuffle",
        functional.pixel_unshuffle,
        real("input", "b c 2*h 2*w"),
        kwargs={"downscale_factor": (2,)},
        b=1,
        c=1,
        h=1,
        w=1,
    ),
    spec(
        "channel_shuffle",
        functional.channel_shuffle,
        real("input", "b 2*c h w"),
        kwargs={"groups": (2,)},
        b=1,
        c=1,
        h=1,
        w=1,
    ),
    spec(
        "attention",
        attention,
        real("query", "b n d"),
        real("key", "b m d"),
        real("value", "b m e"),
        kwargs={"is_causal": (False, True)},
        b=1,
        n=1,
        m=1,
        d=1,
        e=1,
    ),
)
