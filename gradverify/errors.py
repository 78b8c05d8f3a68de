"""What gradverify raises. Each docstring says what the user should do."""

from __future__ import annotations


class GradverifyError(Exception):
    """Base of all of gradverify's errors. Read the message: it names the rule, the value and the remedy."""


class UsageError(GradverifyError):
    """A target, option or configuration is unusable (exit 2). Correct the value that the message names."""


class SpecError(UsageError):
    """A spec contradicts itself or its op. Correct the argument, shape or contract that the message names."""


class OpError(GradverifyError):
    """The op under test raised, or returned what no op may return. Mend the op, or narrow the spec's domain.

    Attributes:
        code: GV9xx or the contract code that the failure belongs to.
        stage: `forward`, `backward`, `jvp` or `reference`.
    """

    def __init__(self, message: str, *, code: str, stage: str) -> None:
        super().__init__(message)
        self.code = code
        self.stage = stage


class CannotJudgeError(GradverifyError):
    """The claim cannot be judged at this point, with the reason; not a statement about the op. Narrow the domain."""


class NotApplicableError(GradverifyError):
    """The claim says nothing about this op (it has no jvp, say), with the reason. Skipped; nothing needs to be done."""


class GradcheckError(GradverifyError, RuntimeError):
    """`gradverify.gradcheck` found a wrong gradient, or could not judge one. The message is the whole finding."""
