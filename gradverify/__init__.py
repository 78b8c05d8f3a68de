"""gradverify: whether a custom backward pass in PyTorch is right, how sure that is, and what is wrong with it.

Importing this package imports neither torch nor Hypothesis; each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "GradcheckError": "errors",
    "GradverifyError": "errors",
    "SpecError": "errors",
    "UsageError": "errors",
    "ALL": "records.vocabulary",
    "avoid": "records.vocabulary",
    "avoid_ties": "records.vocabulary",
    "additive_mask": "records.vocabulary",
    "boolean": "records.vocabulary",
    "complex": "records.vocabulary",
    "dim": "records.vocabulary",
    "domain": "records.vocabulary",
    "example": "records.vocabulary",
    "index": "records.vocabulary",
    "integers": "records.vocabulary",
    "no_grad": "records.vocabulary",
    "one_of": "records.vocabulary",
    "positive": "records.vocabulary",
    "prob": "records.vocabulary",
    "replay_rng": "records.vocabulary",
    "spd": "records.vocabulary",
    "times": "records.vocabulary",
    "tol": "records.vocabulary",
    "Arg": "records.spec",
    "Contract": "records.spec",
    "Spec": "records.spec",
    "Plan": "records.policy",
    "Policy": "records.policy",
    "Outcome": "records.verdict",
    "Result": "records.verdict",
    "Run": "records.run",
    "from_data": "cases.signatures",
    "spec": "cases.signatures",
    "frozen": "autodiff.frozen",
    "check": "api",
    "parametrize": "pytest_plugin.properties",
    "gradcheck": "drop_in",
    "gradgradcheck": "drop_in",
    "verify": "api",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 (the keys of the mapping above)


_LATER = {
    "expectation": "contracts of unbiased estimators are not judged yet; declare backward_of= or vjp=, "
    "or stochastic=gradverify.replay_rng() for an op that draws the same numbers from the same seed",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        raise AttributeError(f"gradverify.{name}: {_LATER[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'gradverify' has no attribute {name!r}")
    value = getattr(import_module(f"gradverify.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
