"""The claims, in the order in which they are tried and shown, and what each says when it holds."""

from __future__ import annotations

from types import MappingProxyType

CLAIMS = MappingProxyType(
    {
        "forward": "the forward equals the reference",
        "vjp": "backward returns the gradient of the contract",
        "linear": "backward is linear in the cotangent",
        "layout": "memory layouts of inputs and cotangents change nothing",
        "purity": "inputs, cotangents and saved tensors are left untouched",
        "repeat": "the same call gives the same bits",
        "edges": "sizes 0 and 1 and partial tails are right",
        "partial": "masks, None cotangents and unused outputs are right",
        "jvp": "forward mode returns the derivative of the contract",
        "adjoint": "forward and reverse mode are transposes of each other",
        "double_backward": "backward can be differentiated again, and rightly",
        "special": "right, or at least finite, at zeros, ties and extremes",
        "lifetime": "no call disturbs another, no change goes unseen",
        "memory": "what a call holds goes with its output, seen by torch",
        "complex": "both parts are right, also for lazy conjugates",
        "convention": "gradients have their inputs' shape, dtype and device",
        "precision": "values and gradients are as good as the dtype allows",
        "transforms.vmap": "a batch under vmap gives what a loop gives",
        "transforms.func": "torch.func gives the derivatives of plain autograd",
        "transforms.checkpoint": "under a checkpoint the gradients are the same",
        "transforms.hooks": "saved-tensor hooks may return copies",
        "transforms.autocast": "under autocast gradients keep the narrow dtype's accuracy",
        "transforms.threads": "two threads at once give what each gives alone",
        "transforms.pickle": "a copy of the module is the same op, and one of its own",
        "transforms.opcheck": "torch.library.opcheck finds nothing",
        "transforms.compile": "compiled, values and gradients are the same",
    }
)

FAMILIES = MappingProxyType({"transforms": "as in plain eager"})
"""What the children of a family say together, where all that is to be said of them is that they hold."""

NOT_YET: tuple[str, ...] = ()
"""What this version has no claim about; every list of what is not covered names them."""

WHY_NOT_YET = "gradverify has no such claim yet"


def family_of(claim: str) -> str:
    """`transforms` of `transforms.vmap`; a claim without a family is its own."""
    return claim.partition(".")[0]


def selected(claims: tuple[str, ...], skip: tuple[str, ...]) -> tuple[str, ...]:
    """The claims of CLAIMS that are asked for, in their order; a family name (`transforms`) stands for its children."""
    return tuple(c for c in CLAIMS if (not claims or _named(c, claims)) and not _named(c, skip))


def _named(claim: str, names: tuple[str, ...]) -> bool:
    return any(claim == name or claim.startswith(f"{name}.") for name in names)
