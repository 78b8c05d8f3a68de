"""Which entries of the gradient of an op with many inputs are wrong: what is said of a failure, not a claim."""

from __future__ import annotations

import numpy as np

from gradverify.cases import materialise
from gradverify.checks.gradient import differentiated
from gradverify.checks.problem import problem_of
from gradverify.checks.subject import Subject
from gradverify.errors import GradverifyError
from gradverify.numerics.culprits import Culprits, culprits


def wrong_entries(subject: Subject) -> Culprits | None:
    """The wrong entries of an op whose truth is differences; None where it is another, or where it does not run."""
    if subject.spec.contract.kind == "vjp" or subject.spec.truth == "reference":
        return None
    try:
        tape = subject.record()
        if not tape.active or any(t.is_complex() for t in (*tape.leaves.values(), *tape.outputs)):
            return None
        problem = problem_of(subject, differentiated(subject), tape, claimed=subject.call)
        seed = materialise.generator(subject.case, "entries").initial_seed()
        return culprits(problem, np.random.default_rng(seed))
    except GradverifyError:
        return None
