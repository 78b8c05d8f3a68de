"""Losses, each over the domain of its target."""

from __future__ import annotations

import torch
from torch.nn import functional

import gradverify as gv
from gradverify.records.spec import Arg
from tests.torch_specs.words import fixed, index, mask, positive, real, spec, within

MEANS = ("mean", "sum", "none")


def signs(flags):
    """True is +1, False is -1."""
    return torch.where(flags, 1.0, -1.0)


def cosine_embedding_loss(x, y, same, margin=0.2):
    return functional.cosine_embedding_loss(x, y, signs(same), margin=margin)


def margin_ranking_loss(x, y, first, margin=0.3):
    return functional.margin_ranking_loss(x, y, signs(first), margin=margin)


def hinge_embedding_loss(x, same, margin=1.0):
    return functional.hinge_embedding_loss(x, signs(same), margin=margin)


def soft_margin_loss(x, same):
    return functional.soft_margin_loss(x, signs(same))


def multilabel_margin_loss(x, target):
    return functional.multilabel_margin_loss(x, target)


def multilabel_soft_margin_loss(x, labels, weight):
    return functional.multilabel_soft_margin_loss(x, labels.to(x.dtype), weight)


def cross_entropy(x, target, label_smoothing=0.0):
    return functional.cross_entropy(x, target, label_smoothing=label_smoothing)


def nll_loss(x, target, reduction="mean"):
    return functional.nll_loss(x, target, reduction=reduction)


def weighted_nll_loss(x, target, weight):
    return functional.nll_loss(x, target, weight)


def kl_div(x, target, log_target=False):
    return functional.kl_div(x, target, reduction="batchmean", log_target=log_target)


def ctc_loss(x, targets):
    t, b, classes = x.shape
    logs, lengths = functional.log_softmax(x, -1), torch.full((b,), targets.shape[1])
    return functional.ctc_loss(logs, targets, torch.full((b,), t), lengths, blank=classes - 1)


def prob(name: str, shape: str, of: str) -> Arg:
    return Arg(name=name, shape=shape, domain=gv.prob(of))


LOSSES = (
    spec(
        "mse_loss", functional.mse_loss, real("input", "*b n"), real("target", "*b n"), kwargs={"reduction": MEANS}, n=1
    ),
    spec(
        "l1_loss", functional.l1_loss, real("input", "*b n"), real("target", "*b n"), kwargs={"reduction": MEANS}, n=1
    ),
    spec(
        "smooth_l1_loss",
        functional.smooth_l1_loss,
        real("input", "*b n"),
        real("target", "*b n"),
        kwargs={"reduction": MEANS, "beta": (1.0, 0.3)},
        n=1,
    ),
    spec(
        "huber_loss",
        functional.huber_loss,
        real("input", "*b n"),
        real("target", "*b n"),
        kwargs={"reduction": MEANS, "delta": (1.0, 0.5)},
        n=1,
    ),
    spec(
        "binary_cross_entropy",
        functional.binary_cross_entropy,
        within("input", "*b n", 0.0, 1.0, closed=False),
        within("target", "*b n", 0.0, 1.0),
        n=1,
    ),
    spec(
        "binary_cross_entropy_with_logits",
        functional.binary_cross_entropy_with_logits,
        real("input", "*b n"),
        within("target", "*b n", 0.0, 1.0),
        fixed("weight", "n", gv.positive),
        n=1,
    ),
    spec("nll_loss", nll_loss, real("x", "b c"), index("target", "b", "c"), kwargs={"reduction": MEANS}, b=1, c=1),
    spec(
        "weighted_nll_loss",
        weighted_nll_loss,
        real("x", "b c"),
        index("target", "b", "c"),
        fixed("weight", "c", gv.positive),
        b=1,
        c=1,
    ),
    spec(
        "cross_entropy",
        cross_entropy,
        real("x", "b c"),
        index("target", "b", "c"),
        kwargs={"label_smoothing": (0.0, 0.1)},
        b=1,
        c=1,
    ),
    spec(
        "cross_entropy_of_distributions",
        cross_entropy,
        real("x", "b c"),
        prob("target", "b c", "c"),
        kwargs={"label_smoothing": (0.0, 0.1)},
        b=1,
        c=1,
    ),
    spec("kl_div", kl_div, real("x", "b c"), positive("target", "b c"), b=1, c=1),
    spec("kl_div_of_logs", kl_div, real("x", "b c"), real("target", "b c"), kwargs={"log_target": (True,)}, b=1, c=1),
    spec(
        "poisson_nll_loss",
        functional.poisson_nll_loss,
        positive("input", "*b n"),
        positive("target", "*b n"),
        kwargs={"log_input": (True, False)},
        n=1,
    ),
    # torch 2.13.0: a variance below eps = 1e-6 is clamped without a gradient's knowing: 249999 where the slope is 0.
    spec(
        "gaussian_nll_loss",
        functional.gaussian_nll_loss,
        real("input", "*b n"),
        real("target", "*b n"),
        positive("var", "*b n"),
        kwargs={"full": (False, True)},
        xfail=dict.fromkeys(("GV1xx", "GV206", "GV215", "GV401"), "torch's variance is clamped and keeps its gradient"),
        n=1,
    ),
    spec(
        "cosine_embedding_loss",
        cosine_embedding_loss,
        real("x", "b d"),
        real("y", "b d"),
        mask("same", "b"),
        kwargs={"margin": (0.2,)},
        b=1,
        d=1,
    ),
    spec(
        "margin_ranking_loss",
        margin_ranking_loss,
        real("x", "b"),
        real("y", "b"),
        mask("first", "b"),
        kwargs={"margin": (0.3,)},
        b=1,
    ),
    spec(
        "hinge_embedding_loss",
        hinge_embedding_loss,
        real("x", "*b n"),
        mask("same", "*b n"),
        kwargs={"margin": (1.0, 0.4)},
        n=1,
    ),
    spec("soft_margin_loss", soft_margin_loss, real("x", "*b n"), mask("same", "*b n"), n=1),
    spec(
        "multi_margin_loss",
        functional.multi_margin_loss,
        real("input", "b c"),
        index("target", "b", "c"),
        kwargs={"p": (1, 2), "margin": (1.0, 0.5)},
        b=1,
        c=2,
    ),
    spec("multilabel_margin_loss", multilabel_margin_loss, real("x", "b c"), index("target", "b c", "c"), b=1, c=1),
    spec(
        "multilabel_soft_margin_loss",
        multilabel_soft_margin_loss,
        real("x", "b c"),
        mask("labels", "b c"),
        positive("weight", "c"),
        b=1,
        c=1,
    ),
    spec(
        "triplet_margin_loss",
        functional.triplet_margin_loss,
        *(real(n, "b d") for n in ("anchor", "positive", "negative")),
        kwargs={"margin": (1.0, 5.0), "p": (2.0, 3.0), "swap": (False, True)},
        b=1,
        d=1,
    ),
    # torch 2.13.0: with logits of 1e30 the loss is finite, its slope -1/6, and its gradient nan.
    spec(
        "ctc_loss",
        ctc_loss,
        real("x", "5 b c+1"),
        index("targets", "b 2", "c"),
        xfail={"GV111": "torch's ctc_loss has a gradient of nan at logits of 1e30"},
        b=1,
        c=1,
    ),
)
