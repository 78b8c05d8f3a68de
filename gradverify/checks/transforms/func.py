"""TRANSFORMS.FUNC: torch.func's derivatives of the op are those of its recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import functional
from gradverify.autodiff.transforms.pure import Gradients, TransformError
from gradverify.cases import materialise
from gradverify.checks.subject import Subject, at, order_bar
from gradverify.checks.transforms import beside
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

ROWS = 32
"""A whole Jacobian is taken of so many outputs, or inputs, at most: it costs one call each."""

BLOCK = 12
"""A Hessian, of so many inputs at most."""

Used = Sequence[Tensor | None]
Named = Mapping[str, Tensor | None]


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """The vjp and grad; then, where torch can do them for this op: jacrev, jvp, jacfwd grad of grad, hessian."""
    subject = at(spec, case)
    beside.unless_declared(subject, "func")
    tape = subject.record()
    beside.unless_writing(tape)
    us = beside.cotangents(subject, tape)
    want = tape.vjp(us)
    if spec.stochastic:
        _unless_other_draws(subject, tape, us)
    for how, transform in (("torch.func.vjp", functional.vjp), ("torch.func.grad", functional.grad)):
        try:
            got = _run(subject, transform, us)
        except TransformError as error:
            if error.refused:
                raise NotApplicableError(str(error)) from error
            yield beside.raised(subject, error, how)
            return
        yield from beside.gradients(subject, got, want, us, tape.leaves, how)
    yield from _reverse(subject, us)
    yield from _forward(subject, us)
    yield from _second(subject, us)


def _unless_other_draws(subject: Subject, tape: Tape, us: Used) -> None:
    """Raise NotApplicableError where the op draws other numbers under torch.func, and is another function there.

    Torch fills a mask in the order of its memory, which is another one there for a tensor that is not contiguous.
    """
    try:
        subject.reseed()
        found = functional.values(subject.spec, subject.point, us)
    except TransformError:
        return  # what is refused is said below
    own = [y.detach() for y, u in zip(tape.outputs, us, strict=True) if u is not None]
    pairs = zip(beside.numbered(found).items(), own, strict=True)
    if beside.off([beside.one(subject, n, n, a, b, order_bar(subject, b), "torch.func") for (n, a), b in pairs]):
        raise NotApplicableError("the op draws other random numbers under torch.func than in plain eager")


def _run(subject: Subject, transform: Callable[..., Gradients], us: Used) -> Gradients:
    subject.reseed()
    return transform(subject.spec, subject.point, us)


def _reverse(subject: Subject, us: Used) -> Iterator[Evidence]:
    if _few([u for u in us if u is not None], ROWS):
        yield from _pair(
            subject,
            lambda s: functional.jacobian(s.spec, s.point, us, mode="jacrev"),
            lambda s: functional.eager_jacobian(s.spec, s.point, us),
            "torch.func.jacrev",
        )


def _forward(subject: Subject, us: Used) -> Iterator[Evidence]:
    """Forward mode: against torch's own dual numbers, along a direction, then along each input element."""
    vs = _directions(subject)
    try:
        subject.reseed()
        functional.eager_jvp(subject.spec, subject.point, us, vs)
    except TransformError:
        return
    yield from _pair(
        subject,
        lambda s: functional.jvp(s.spec, s.point, us, vs),
        lambda s: functional.eager_jvp(s.spec, s.point, us, vs),
        "torch.func.jvp",
    )
    if _few(vs, ROWS):
        yield from _pair(
            subject,
            lambda s: functional.jacobian(s.spec, s.point, us, mode="jacfwd"),
            lambda s: functional.eager_columns(s.spec, s.point, us),
            "torch.func.jacfwd",
        )


def _second(subject: Subject, us: Used) -> Iterator[Evidence]:
    """Where the recorded graph of the backward has a derivative."""
    vs = _directions(subject)

    def eager(s: Subject) -> Named:
        return functional.eager_second(s.spec, s.point, us, vs) or {}

    subject.reseed()
    wanted = eager(subject)
    if all(g is None for g in wanted.values()):
        return
    yield from _pair(subject, lambda s: functional.second(s.spec, s.point, us, vs), eager, "torch.func.grad of grad")
    if _few(vs, BLOCK):
        yield from _hessian(subject, us)


def _hessian(subject: Subject, us: Used) -> Iterator[Evidence]:
    """Where the backward takes dual numbers, too."""
    try:
        subject.reseed()
        functional.eager_hessian(subject.spec, subject.point, us)
    except TransformError:
        return
    yield from _pair(
        subject,
        lambda s: functional.hessian(s.spec, s.point, us),
        lambda s: functional.eager_hessian(s.spec, s.point, us),
        "torch.func.hessian",
    )


def _pair(
    subject: Subject, transform: Callable[[Subject], Named], eager: Callable[[Subject], Named], how: str
) -> Iterator[Evidence]:
    """The same by torch.func and by the graph; nothing where torch refuses it."""

    def again(primals: Mapping[str, Tensor | None]) -> Named:
        subject.reseed()
        return eager(replace(subject, point=replace(subject.point, primals=primals)))

    try:
        subject.reseed()
        got = transform(subject)
    except TransformError as error:
        if not error.refused:
            yield beside.raised(subject, error, how)
        return
    yield from beside.measured(subject, got, again(subject.point.primals), again, how)


def _few(tensors: Sequence[Tensor], most: int) -> bool:
    """Whether they have at most so many elements together, and none is empty."""
    sizes = [t.numel() for t in tensors]
    return min(sizes) > 0 and sum(sizes) <= most


def _directions(subject: Subject) -> tuple[Tensor, ...]:
    out = []
    for name in subject.point.differentiate:
        like = subject.point.primals[name]
        assert like is not None
        g = materialise.generator(subject.case, "direction", name)
        out.append(materialise.normal(like, generator=g))
    return tuple(out)
