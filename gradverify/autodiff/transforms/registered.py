"""torch.library's own checks of a registered op, in its own words."""

from __future__ import annotations

import textwrap
import warnings
from typing import Any

import torch

from gradverify.autodiff.calling import copies, handed, signature_of
from gradverify.autodiff.transforms.pure import first_line
from gradverify.records.case import Point
from gradverify.records.described import kind_of
from gradverify.records.spec import Spec

DETERMINISTIC = ("test_aot_dispatch_dynamic",)
"""Checks that compare two runs of the op."""

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", *DETERMINISTIC)

LONGEST = 240
"""Characters of what is said."""

NONE = "the op is not registered with torch.library"
"""Why opcheck has nothing to say of an op."""


def is_registered(op: Any) -> bool:
    """Whether an op is registered with torch.library: a custom_op, or an overload that torch.ops holds."""
    return kind_of(op) in ("custom_op", "registered op")


def opcheck(spec: Spec, point: Point) -> dict[str, str]:
    """Check -> what it says, in its first line; empty where it succeeds."""
    given = copies(point.primals)
    for name in point.differentiate:
        given[name].requires_grad_()  # type: ignore[union-attr]
    values = handed(spec, given, point.kwargs)
    _, by_position, by_name = signature_of(spec)
    wanted = tuple(c for c in CHECKS if not (spec.stochastic and c in DETERMINISTIC))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = torch.library.opcheck(
            spec.op,
            tuple(values[n] for n in by_position),
            {n: values[n] for n in by_name},
            test_utils=wanted,
            raise_exception=False,
        )
    return {check: _short(said) if isinstance(said, Exception) else "" for check, said in found.items()}


def _short(said: Exception) -> str:
    """Its first line, of which some fill a page."""
    return textwrap.shorten(first_line(said), LONGEST, placeholder=" ...")
