"""Arguments that cannot be meant are refused at once: the rule, the value, the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gradverify.catalogue.attention import Tiles as AttentionTiles
from gradverify.catalogue.attention import attention
from gradverify.catalogue.lsq_quant import lsq_quant
from gradverify.catalogue.matmul import Tiles as MatmulTiles
from gradverify.catalogue.matmul import matmul
from gradverify.catalogue.reweight_gradient import reweight_gradient
from gradverify.catalogue.reweighted_cross_entropy import class_balanced_weights, reweighted_cross_entropy
from gradverify.catalogue.sign_ste import sign_ste
from gradverify.catalogue.ste_quant import ste_quant

X, INTS, ONE = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int32), torch.ones(())
T = torch.tensor([0, 2])
Q = torch.ones(2, 4, 5, 3)
K = Q[:, :2]

REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ste_quant(INTS, 0.1), TypeError, r"x must be floating, but its dtype is torch.int32; convert"),
    (lambda: ste_quant(X, 0.1, qmin=7, qmax=7), ValueError, r"qmin must be below qmax, got qmin=7, qmax=7; swap"),
    (lambda: ste_quant(X, 0.0), ValueError, r"scale must be positive, got 0.0; pass"),
    (lambda: ste_quant(X, float("nan")), ValueError, r"scale must be positive, got nan; pass"),
    (
        lambda: ste_quant(X, 0.1, ONE),
        TypeError,
        r"zero_point must be an integer, but its dtype is torch.float32; round",
    ),
    (lambda: ste_quant(X, torch.ones(3)), ValueError, r"scale has shape \(3,\) but no axis is given; pass axis="),
    (lambda: ste_quant(X, torch.ones(3), axis=2), ValueError, r"axis=2 is outside x of shape \(2, 3\); pass -2...1"),
    (
        lambda: ste_quant(X, torch.ones(2), axis=1),
        ValueError,
        r"scale must be \[3\] for axis=1 .* got \(2,\); give one",
    ),
    (lambda: ste_quant(X, torch.ones(3), INTS[:, 0], axis=1), ValueError, r"zero_point must be \[3\] for axis=1"),
    (lambda: lsq_quant(INTS, ONE), TypeError, r"x must be floating, but its dtype is torch.int32; convert"),
    (lambda: lsq_quant(X, ONE.int()), TypeError, r"step must be floating, but its dtype is torch.int32; convert"),
    (lambda: lsq_quant(X, ONE, qmin=1), ValueError, r"levels must hold 0 and 1, got qmin=1, qmax=127; take"),
    (lambda: lsq_quant(X, ONE, qmax=0), ValueError, r"levels must hold 0 and 1, got qmin=-128, qmax=0; take"),
    (lambda: lsq_quant(X, torch.ones(3)), ValueError, r"step has shape \(3,\) but no axis is given; pass axis="),
    (lambda: lsq_quant(X, torch.ones(3), axis=-3), ValueError, r"axis=-3 is outside x of shape \(2, 3\); pass -2...1"),
    (lambda: lsq_quant(X, torch.ones(2, 3), axis=1), ValueError, r"step must be \[3\] .* got \(2, 3\); give one step"),
    (lambda: sign_ste(INTS), TypeError, r"x must be floating, but its dtype is torch.int32; convert"),
    (lambda: sign_ste(X, window=0), ValueError, r"window must be positive, got 0; 1.0 is"),
    (lambda: reweight_gradient(INTS, 1.0), TypeError, r"x must be floating, but its dtype is torch.int32; only"),
    (lambda: reweight_gradient(X, torch.ones(2)), ValueError, r"weight \(2,\) must broadcast to x \(2, 3\); add axes"),
    (lambda: reweight_gradient(X, torch.ones(1, 2, 3)), ValueError, r"weight \(1, 2, 3\) must broadcast to x \(2, 3\)"),
    (lambda: reweight_gradient(X, torch.ones(3) * 1j), TypeError, r"weight must be real, but .* torch.complex64; pass"),
    (lambda: reweighted_cross_entropy(INTS, T), TypeError, r"logits must be floating, but .* torch.int32; pass"),
    (
        lambda: reweighted_cross_entropy(X, T.int()),
        TypeError,
        r"target must be int64, but .* torch.int32; pass target.lo",
    ),
    (lambda: reweighted_cross_entropy(ONE, T), ValueError, r"logits must be \[..., c\] with c >= 1, got \(\); add"),
    (lambda: reweighted_cross_entropy(X[:, :0], T), ValueError, r"with c >= 1, got \(2, 0\); add a class axis"),
    (
        lambda: reweighted_cross_entropy(X.mT, T),
        ValueError,
        r"target must be \(3,\) for logits \(3, 2\), got \(2,\); cl",
    ),
    (
        lambda: reweighted_cross_entropy(X, T, torch.ones(3)),
        ValueError,
        r"row_weight must be \(2,\) .* got \(3,\); exp",
    ),
    (
        lambda: reweighted_cross_entropy(X, T, None, torch.ones(2)),
        ValueError,
        r"class_weight must be \(3,\) .* got \(2,",
    ),
    (
        lambda: reweighted_cross_entropy(X, T, T),
        TypeError,
        r"row_weight must be floating, but its dtype is torch.int64",
    ),
    (
        lambda: reweighted_cross_entropy(X, T, gamma=-1),
        ValueError,
        r"gamma must be finite and at least 0, got -1; 0 is",
    ),
    (lambda: reweighted_cross_entropy(X, T, reduction="avg"), ValueError, r"reduction must be .*, got 'avg'; choose"),
    (lambda: reweighted_cross_entropy(X, T, mean_by="rows"), ValueError, r"mean_by must be .*, got 'rows'; choose"),
    (
        lambda: reweighted_cross_entropy(X, T + 1),
        IndexError,
        r"targets must be 0 ... 2 or ignore_index, got 3; correct",
    ),
    (
        lambda: reweighted_cross_entropy(X, T - 1),
        IndexError,
        r"targets must be 0 ... 2 or ignore_index, got -1; correct",
    ),
    (
        lambda: matmul(INTS, X.mT),
        TypeError,
        r"x must be float64, .* but its dtype is torch.int32; convert .* x.float\(\)",
    ),
    (lambda: matmul(X * 1j, X.mT), TypeError, r"x must be float64, .* torch.complex64; convert it with x.real"),
    (lambda: matmul(ONE, X), ValueError, r"x must be \[..., k\], but its shape is \(\); give it an axis"),
    (lambda: matmul(X, X[0]), ValueError, r"w must be \[k, n\], but its shape is \(3,\); a batch"),
    (lambda: matmul(X, X), ValueError, r"last size of x \(2, 3\) must be the first of w \(2, 3\); .* weight.mT"),
    (lambda: matmul(X, X.mT, X[0]), ValueError, r"b must be \[2\] for w \(3, 2\), got \(3,\); give one"),
    (lambda: matmul(X, X.mT, X.mT), ValueError, r"b must be \[2\] for w \(3, 2\), got \(3, 2\); give one"),
    (lambda: matmul(X, X.mT.double()), TypeError, r"w must have x's dtype torch.float32, .* torch.float64; convert"),
    (
        lambda: matmul(X, X.mT, X[:, 0].half()),
        TypeError,
        r"b must have x's dtype torch.float32, .* torch.float16; conv",
    ),
    (
        lambda: matmul(X, X.mT.to("meta")),
        ValueError,
        r"w must be on x's device cpu, but it is on meta; .*w.to\('cpu'\)",
    ),
    (lambda: matmul(X, X.mT, act="tanh"), ValueError, r"act must be one of none, relu, .*, got 'tanh'; choose"),
    (lambda: matmul(X, X.mT, save="z"), ValueError, r"save must be one of input, preactivation, got 'z'; choose"),
    (lambda: matmul(X, X.mT, backend="cuda"), ValueError, r"backend must be one of auto, .*, got 'cuda'; choose"),
    (lambda: matmul(X.tolist(), X.mT), TypeError, r"x must be a tensor, got list; pass torch.as_tensor\(x\)"),
    (lambda: matmul(X, None), TypeError, r"w must be a tensor, got NoneType; pass"),
    (lambda: matmul(X, X.mT, 1.0), TypeError, r"b must be a tensor, got float; pass torch.as_tensor\(b\)"),
    (lambda: matmul(X, X.mT.to_sparse()), TypeError, r"w must be dense, but it is torch.sparse_coo; .* w.to_dense\(\)"),
    (lambda: matmul(X, X.mT, tiles=(16, 16, 16)), TypeError, r"tiles must be this file's Tiles, got \(16, 16, 16\); N"),
    *(
        (
            lambda t=t: matmul(X, X.mT, tiles=MatmulTiles(**{"m": 16, "n": 16, "k": 16, **t})),
            ValueError,
            r"tiles.\w+ must",
        )
        for t in ({"m": 16.0}, {"n": None}, {"k": 24}, {"group": 0}, {"warps": 3}, {"warps": 64}, {"stages": 0})
    ),
    (lambda: matmul(X, X.mT, tiles=MatmulTiles(16, 16, 16, tma="no")), TypeError, r"tiles.tma must be True or False"),
    (lambda: attention(Q.int(), K, K), TypeError, r"q must be float16, .* but its dtype is torch.int32; cast it"),
    (lambda: attention(Q, K * 1j, K), TypeError, r"k must be float16, .* torch.complex64; cast it"),
    (lambda: attention(Q, K, K.half()), TypeError, r"v must be torch.float32 as q, but is torch.float16; cast one"),
    (lambda: attention(Q, K.to("meta"), K), ValueError, r"k must be on cpu as q, but is on meta; move one"),
    (
        lambda: attention(Q, K[0], K),
        ValueError,
        r"k must be \[batch, heads, rows, features\], got \(2, 5, 3\); add axes",
    ),
    (
        lambda: attention(Q, K[..., :2], K),
        ValueError,
        r"same features, at least 1, got \(2, 4, 5, 3\) and \(2, 2, 5, 2\)",
    ),
    (lambda: attention(Q[..., :0], K[..., :0], K), ValueError, r"same features, at least 1, got \(2, 4, 5, 0\)"),
    (
        lambda: attention(Q, K, K[:, :, :4]),
        ValueError,
        r"must agree in b, hk and n, .* \(2, 2, 4, 3\); expand the batch",
    ),
    (lambda: attention(Q, K[:1], K[:1]), ValueError, r"must agree in b, hk and n, .* \(1, 2, 5, 3\); expand the batch"),
    (lambda: attention(Q[:, :3], K, K), ValueError, r"a multiple of those of k and v, got 3 and 2; each head of k"),
    (lambda: attention(Q, K, K, T), TypeError, r"mask must be bool, float32 .* torch.int64; pass mask.bool\(\)"),
    (lambda: attention(Q, K, K, Q.double()), TypeError, r"mask must be bool, float32 .* torch.float64; pass"),
    (lambda: attention(Q, K, K, X > 0), ValueError, r"mask \(2, 3\) must broadcast to the scores \(2, 4, 5, 5\); for"),
    (lambda: attention(Q, K, K, (Q > 0).to("meta")), ValueError, r"mask must be on cpu as q, but is on meta; move"),
    (lambda: attention(Q, K, K, align="left"), ValueError, r"align must be lower_right or upper_left, got 'left'; cho"),
    (lambda: attention(Q, K, K, window=-1), ValueError, r"window must count keys from 0 on, got \(-1, -1\); None is"),
    (
        lambda: attention(Q, K, K, causal=True, window=(3, 2)),
        ValueError,
        r"causal shows no key right of the diagonal, but window is \(3, 2\); pass window=\(3, 0\), or causal=False",
    ),
    *(
        (lambda w=w: attention(Q, K, K, window=w), ValueError, r"window must count keys from 0 on, got \(.*; None is")
        for w in (True, 1.5, "a", (1,), (1, 2, 3), (0.5, 0), (None, -2), torch.tensor(2))
    ),
    (lambda: attention(Q, K, K, causal="no"), TypeError, r"causal must be True or False, got 'no'; choose"),
    (lambda: attention(Q, K, K, deterministic=0), TypeError, r"deterministic must be True or False, got 0; choose"),
    *(
        (lambda s=s: attention(Q, K, K, scale=s), ValueError, r"scale must be a finite number, got .*; None is 1 / sq")
        for s in (True, "a", ONE, 10**400, float("inf"))
    ),
    (lambda: attention(Q.tolist(), K, K), TypeError, r"q must be a tensor, got list; pass torch.as_tensor\(q\)"),
    (lambda: attention(Q, None, K), TypeError, r"k must be a tensor, got NoneType; pass"),
    (lambda: attention(Q, K, K, [[True]]), TypeError, r"mask must be a tensor, got list; pass torch.as_tensor\(mask\)"),
    (
        lambda: attention(Q, K.to_sparse(), K),
        TypeError,
        r"k must be dense, but it is torch.sparse_coo; .* k.to_dense\(",
    ),
    (
        lambda: attention(Q, K, K, Q.to_sparse()),
        TypeError,
        r"mask must be dense, .* torch.sparse_coo; .* mask.to_dense",
    ),
    (lambda: attention(Q, K, K, tiles=(64, 64)), TypeError, r"tiles must be this file's Tiles, got \(64, 64\); None"),
    *(
        (
            lambda t=t: attention(Q, K, K, tiles=replace(AttentionTiles.same(16, 16), forward=t)),
            ValueError,
            r"tiles.forward must",
        )
        for t in (None, [16, 16, 4, 1], (16, 16, 4), (16.0, 16, 4, 1), (16, 24, 4, 1), (16, 16, 64, 1), (16, 16, 4, 0))
    ),
    (lambda: attention(Q, K, K, scale=float("nan")), ValueError, r"scale must be a finite number, got nan; None is"),
    (lambda: attention(Q, K, K, backend="cuda"), ValueError, r"backend must be auto, torch, .*, got 'cuda'; choose"),
    (lambda: class_balanced_weights([3, 0]), ValueError, r"every class needs a count of at least 1, got 0; leave"),
    (lambda: class_balanced_weights([3], beta=1.0), ValueError, r"beta must be in \[0, 1\), got 1.0; 0.9"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_the_message_names_the_op_the_rule_the_value_and_the_remedy(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    ops = (
        "ste_quant",
        "lsq_quant",
        "sign_ste",
        "reweight_gradient",
        "reweighted_cross_entropy",
        "class_balanced_weights",
        "matmul",
        "attention",
    )
    assert str(caught.value).startswith(tuple(f"{name}: " for name in ops))
