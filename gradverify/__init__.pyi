"""The public names, for type checkers: `__init__.py` loads each when it is first used."""

from gradverify.api import check as check
from gradverify.api import verify as verify
from gradverify.autodiff.frozen import frozen as frozen
from gradverify.cases.signatures import from_data as from_data
from gradverify.cases.signatures import spec as spec
from gradverify.drop_in import gradcheck as gradcheck
from gradverify.drop_in import gradgradcheck as gradgradcheck
from gradverify.errors import GradcheckError as GradcheckError
from gradverify.errors import GradverifyError as GradverifyError
from gradverify.errors import SpecError as SpecError
from gradverify.errors import UsageError as UsageError
from gradverify.pytest_plugin.properties import parametrize as parametrize
from gradverify.records.policy import Plan as Plan
from gradverify.records.policy import Policy as Policy
from gradverify.records.run import Run as Run
from gradverify.records.spec import Arg as Arg
from gradverify.records.spec import Contract as Contract
from gradverify.records.spec import Spec as Spec
from gradverify.records.verdict import Outcome as Outcome
from gradverify.records.verdict import Result as Result
from gradverify.records.vocabulary import ALL as ALL
from gradverify.records.vocabulary import additive_mask as additive_mask
from gradverify.records.vocabulary import avoid as avoid
from gradverify.records.vocabulary import avoid_ties as avoid_ties
from gradverify.records.vocabulary import boolean as boolean
from gradverify.records.vocabulary import complex as complex  # noqa: A004
from gradverify.records.vocabulary import dim as dim
from gradverify.records.vocabulary import domain as domain
from gradverify.records.vocabulary import example as example
from gradverify.records.vocabulary import index as index
from gradverify.records.vocabulary import integers as integers
from gradverify.records.vocabulary import no_grad as no_grad
from gradverify.records.vocabulary import one_of as one_of
from gradverify.records.vocabulary import positive as positive
from gradverify.records.vocabulary import prob as prob
from gradverify.records.vocabulary import replay_rng as replay_rng
from gradverify.records.vocabulary import spd as spd
from gradverify.records.vocabulary import times as times
from gradverify.records.vocabulary import tol as tol

__version__: str
