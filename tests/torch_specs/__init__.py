"""Right functions of `torch` and `torch.nn.functional` as specs: no claim may raise an alarm over any of them.

`xfail` marks what torch itself gets wrong; the numbers stand beside it.
"""

from __future__ import annotations

from gradverify.records.spec import Spec
from tests.torch_specs.convolution import CONVOLUTION
from tests.torch_specs.elementwise import ELEMENTWISE
from tests.torch_specs.indexing import INDEXING
from tests.torch_specs.linalg import LINALG
from tests.torch_specs.losses import LOSSES
from tests.torch_specs.normalisation import NORMALISATION
from tests.torch_specs.reductions import REDUCTIONS

FAMILIES: dict[str, tuple[Spec, ...]] = {
    "elementwise": ELEMENTWISE,
    "reductions": REDUCTIONS,
    "linalg": LINALG,
    "indexing": INDEXING,
    "normalisation": NORMALISATION,
    "losses": LOSSES,
    "convolution": CONVOLUTION,
}
TORCH_FUNCTIONS: tuple[Spec, ...] = tuple(s for family in FAMILIES.values() for s in family)
