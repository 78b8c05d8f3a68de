"""The stable codes of findings and their one-line titles. A released code never changes its meaning."""

from __future__ import annotations

from types import MappingProxyType

TITLES = MappingProxyType(
    {
        "GV101": "wrong scale",
        "GV102": "wrong sign",
        "GV103": "missing gradient",
        "GV104": "dropped region",
        "GV105": "transposed gradient",
        "GV106": "gradients swapped between inputs",
        "GV107": "broadcast not reduced",
        "GV108": "cotangent ignored",
        "GV109": "gradient of the wrong shape, dtype or device",
        "GV110": "wrong only at edges",
        "GV111": "gradient not finite",
        "GV112": "straight-through without a contract",
        "GV199": "wrong gradient",
        "GV201": "backward is not linear in the cotangent",
        "GV202": "the op changes what it was given",
        "GV203": "result depends on the memory layout",
        "GV204": "not repeatable",
        "GV205": "wrong under partial differentiation",
        "GV206": "wrong at edge sizes",
        "GV207": "leaks or saves wrongly",
        "GV208": "forward differs from the reference",
        "GV209": "state kept between calls",
        "GV210": "saved-tensor hooks",
        "GV211": "memory never written",
        "GV212": "an in-place change goes unseen",
        "GV213": "value depends on a mode of torch",
        "GV214": "gradients do not add up in .grad",
        "GV215": "wrong at special values",
        "GV216": "wrong with complex numbers",
        "GV217": "refuses lazy conjugates",
        "GV301": "forward jumps",
        "GV302": "kink",
        "GV303": "finite differences are not reliable here",
        "GV401": "wrong forward-mode derivative",
        "GV402": "forward and reverse mode disagree",
        "GV501": "wrong double backward",
        "GV502": "wrong under vmap",
        "GV503": "wrong under torch.compile",
        "GV504": "opcheck fails",
        "GV505": "silently detached",
        "GV506": "wrong under a checkpoint",
        "GV507": "wrong under autocast",
        "GV508": "supports disagrees with what was found",
        "GV509": "torch.func disagrees with autograd",
        "GV510": "a copy of the op is another op",
        "GV511": "wrong in two threads at once",
        "GV601": "over the precision budget",
        "GV602": "imprecise",
        "GV603": "bias",
        "GV604": "lost on the way",
        "GV901": "cannot tell the shapes",
        "GV902": "the op raised",
        "GV903": "the op returned no tensor",
        "GV904": "the op refuses float64",
        "GV905": "the op refuses a size",
    }
)


def matches(code: str, pattern: str) -> bool:
    """Whether `code` is `pattern`, or belongs to the family that it names (`GV1xx`)."""
    return code == pattern or (pattern.endswith("xx") and code.startswith(pattern[:-2]))
