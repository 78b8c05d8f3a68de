"""The table of claims: name -> check. A check takes a spec and a case and yields evidence; it holds no opinion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from gradverify.checks import (
    adjoint,
    complex_,
    convention,
    double_backward,
    edges,
    forward,
    jvp,
    layout,
    lifetime,
    linear,
    memory,
    partial,
    precision,
    purity,
    repeat,
    special,
    vjp,
)
from gradverify.checks.transforms import autocast, checkpoint, compiled, copies, func, hooks, opcheck, threads, vmap
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

Check = Callable[[Spec, Case], Iterator[Evidence]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "forward": forward.check,
        "vjp": vjp.check,
        "linear": linear.check,
        "layout": layout.check,
        "purity": purity.check,
        "repeat": repeat.check,
        "edges": edges.check,
        "partial": partial.check,
        "jvp": jvp.check,
        "adjoint": adjoint.check,
        "double_backward": double_backward.check,
        "special": special.check,
        "lifetime": lifetime.check,
        "memory": memory.check,
        "complex": complex_.check,
        "convention": convention.check,
        "precision": precision.check,
        "transforms.vmap": vmap.check,
        "transforms.func": func.check,
        "transforms.checkpoint": checkpoint.check,
        "transforms.hooks": hooks.check,
        "transforms.autocast": autocast.check,
        "transforms.threads": threads.check,
        "transforms.pickle": copies.check,
        "transforms.opcheck": opcheck.check,
        "transforms.compile": compiled.check,
    }
)
