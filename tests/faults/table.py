"""All faults: wrong backwards on purpose, by class, each with its correct twin.

A check is not done until a fault here shows that it can fail. Every wrong op must FAIL under its primary claim and
every claim in `must_fail`; its twin, under the same spec, must neither FAIL nor be an ERROR under any claim. The ops
are our own, modelled on the public issue that `source` names; where it is empty, on the class. One file, one class.
"""

from __future__ import annotations

from tests.faults import (
    autocast,
    cancellation,
    compiled,
    complex_values,
    convention,
    copies,
    double_backward,
    formula,
    forward,
    forward_mode,
    indexing,
    kwargs,
    layout,
    lifetime,
    linear,
    memory,
    modules,
    multi_output,
    narrow,
    normalisation,
    partial_grad,
    precision,
    randomness,
    registered,
    shape,
    special_values,
    state_alias,
    surrogate,
    threads,
    transforms,
    uninitialised,
)

FAULTS = tuple(
    fault
    for module in (
        formula,
        normalisation,
        shape,
        uninitialised,
        layout,
        special_values,
        indexing,
        precision,
        narrow,
        cancellation,
        state_alias,
        randomness,
        multi_output,
        partial_grad,
        kwargs,
        surrogate,
        linear,
        forward,
        forward_mode,
        double_backward,
        lifetime,
        memory,
        modules,
        convention,
        complex_values,
        transforms,
        autocast,
        threads,
        copies,
        registered,
        compiled,
    )
    for fault in module.FAULTS
)

IMPRECISE = precision.IMPRECISE
