"""Vector-Jacobian products of an op, through torch's own engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gradverify.autodiff.calling import Called, Clock, copies, is_inexact, output_names, raised
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Spec


class Passes:
    """Backward passes through the tapes of this process."""

    backwards = 0


class _Undefined(torch.autograd.Function):
    """The identity; its backward gives no gradient, as a part of a model does that the loss does not depend on."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:  # noqa: ARG004 (torch's signature)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:  # noqa: ARG004 (torch's signature)
        return None


def _undefined(y: Tensor) -> Tensor:
    return cast("Tensor", _Undefined.apply(y))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One recorded call of an op.

    Attributes:
        leaves: name -> the primal that requires grad.
        given: every tensor that the op was handed, by name.
        outputs: all output tensors.
        written: names of the primals that the op wrote to, by their versions.
    """

    spec: Spec
    leaves: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]
    written: frozenset[str] = frozenset()

    @property
    def active(self) -> tuple[int, ...]:
        """Positions of the outputs that carry a gradient: floating, neither declared `nondiff` nor marked by the op."""
        without = self.declared_nondiff | self.marked
        return tuple(i for i, y in enumerate(self.outputs) if i not in without and is_inexact(y))

    @property
    def marked(self) -> frozenset[int]:
        """Positions of the floating outputs that a Function marked as non-differentiable: not all, which says nothing.

        Nothing else takes the history of an output of a Function: in its forward none is recorded.
        """
        function = isinstance(self.spec.op, type) and issubclass(self.spec.op, torch.autograd.Function)
        if not function or not any(y.requires_grad for y in self.outputs):
            return frozenset()
        return frozenset(k for k, y in enumerate(self.outputs) if is_inexact(y) and not y.requires_grad)

    @property
    def declared_nondiff(self) -> frozenset[int]:
        """Positions of the outputs that `nondiff` names."""
        words = self.spec.nondiff
        if not words:
            return frozenset()
        return frozenset(k for k in range(len(self.outputs)) if any(_means(word, self.name(k)) for word in words))

    def name(self, k: int) -> str:
        """The name of an output: its position in a plain tuple, `y['loss']` in a nested value."""
        return output_names(self.outputs)[k]

    def unknown_nondiff(self) -> tuple[int | str, ...]:
        """The words of `nondiff` that name no output."""
        names = [self.name(k) for k in range(len(self.outputs))]
        return tuple(w for w in self.spec.nondiff if not any(_means(w, n) for n in names))

    def returned(self) -> tuple[str, ...]:
        """The given tensors that share memory with an output."""
        places = {y.untyped_storage().data_ptr() for y in self.outputs if y.numel()}
        return tuple(n for n, t in self.given.items() if t.numel() and t.untyped_storage().data_ptr() in places)

    def vjp(self, cotangents: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
        """Gradients of sum_j <u_j, y_j>, one a leaf; None where none came back. The graph is kept.

        An output whose cotangent is None is not used at all.
        """
        return self._pulled([(y, u) for y, u in zip(self.outputs, cotangents, strict=True) if u is not None])

    def vjp_of_undefined(self) -> dict[str, Tensor | None]:
        """Gradients where every output is used by what gives it no gradient: all cotangents are undefined."""
        with torch.enable_grad():
            cut = [_undefined(self.outputs[k]) for k in self.active if self.outputs[k].requires_grad]
        return self._pulled([(y, torch.ones_like(y)) for y in cut])

    def _pulled(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor | None]:
        used = [(y, u) for y, u in pairs if y.requires_grad]
        if not used or not self.leaves:
            return dict.fromkeys(self.leaves)
        leaves = list(self.leaves.values())
        try:
            grads = gradients([y for y, _ in used], leaves, [u for _, u in used])
        except (Exception, SystemExit) as error:
            raise _of_backward(self.spec, error) from error
        return dict(zip(self.leaves, grads, strict=True))

    def accumulate(self, cotangents: Sequence[Tensor | None]) -> None:
        """Add the gradients to `.grad` of the leaves, as `y.backward(u)` does. The graph is kept.

        The cotangents are copied: where a backward returns one, torch itself may accumulate into its memory.
        """
        used = [(y, u) for y, u in zip(self.outputs, cotangents, strict=True) if u is not None and y.requires_grad]
        if not used or not self.leaves:
            return
        Passes.backwards += 1
        try:
            torch.autograd.backward(
                [y for y, _ in used],
                [u.clone() for _, u in used],
                retain_graph=True,
                inputs=list(self.leaves.values()),
            )
        except (Exception, SystemExit) as error:
            raise _of_backward(self.spec, error) from error

    def nodes(self) -> Iterator[Any]:
        """The autograd nodes of this call, from the outputs to the leaves."""
        yield from nodes_of(self.outputs)

    def saved(self) -> tuple[Tensor, ...]:
        """The tensors that the op's own Functions saved for backward."""
        out: list[Tensor] = []
        for node in self.nodes():
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                out += list(filter(torch.is_tensor, node.saved_tensors))
        return tuple(out)


def _means(word: int | str, name: str) -> bool:
    """Whether a word of `nondiff` (1, `loss`, `aux.h`, `y['aux'].h`) is the name of an output, or of what holds it."""
    whole = _dotted(f"y[{name}]" if name.isdigit() else name)
    wanted = _dotted(str(word))
    return any(whole == w or whole.startswith(f"{w}.") for w in (wanted, f"y.{wanted.removeprefix('.')}"))


def _dotted(name: str) -> str:
    return re.sub(r"\['?([^\]']*)'?\]", r".\1", name)


def nodes_of(tensors: Sequence[Tensor]) -> Iterator[Any]:
    """The autograd nodes behind tensors, each once."""
    todo = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        todo += [n for n, _ in node.next_functions if n is not None]


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """One pass of torch's engine, counted and timed; the graph is kept. Raises what backward raises.

    Sparse gradients, as an embedding has them, come as dense ones.
    """
    Passes.backwards += 1
    began = time.perf_counter()
    try:
        found = torch.autograd.grad(
            outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
        return tuple(map(dense, found))
    finally:
        Clock.seconds += time.perf_counter() - began


def dense(gradient: Tensor | None) -> Tensor | None:
    """A gradient as a strided tensor."""
    return gradient if gradient is None or gradient.layout == torch.strided else gradient.to_dense()


def _of_backward(spec: Spec, error: BaseException) -> OpError:
    """Torch refuses gradients of the wrong number, shape or kind: say so by code, and in the user's words."""
    text = str(error)
    for pattern, words in _REFUSED.items():
        if found := re.search(pattern, text):
            return OpError(f"{spec.name}: {words(spec, *found.groups())}", code="GV109", stage="backward")
    return raised(spec, error, code="GV109" if "invalid gradient" in text else "GV902")


def _number(spec: Spec, owner: str, wanted: str, got: str) -> str:
    returned = f"{got} gradient{'' if got == '1' else 's'}{' (a list or None counts as one)' if got == '1' else ''}"
    taken = f"{wanted} input{'' if wanted == '1' else 's'}"
    named = f" ({', '.join(spec.order)})" if len(spec.order) == int(wanted) else ""
    remedy = "return one" if wanted == "1" else f"return a tuple of {wanted}, with None where there is none"
    return f"{_who(spec, owner)} returned {returned}, and forward() takes {taken}{named}; {remedy}."


def _shape(spec: Spec, owner: str, index: str, got: str, wanted: str) -> str:
    name, remedy = _input(spec, index), "they must be equal"
    return f"{_who(spec, owner)} returned a gradient of shape {got} for {name}, whose shape is {wanted}; {remedy}."


def _device(spec: Spec, owner: str, index: str, wanted: str, got: str) -> str:
    name = _input(spec, index)
    return f"{_who(spec, owner)} returned a gradient on {got} for {name}, which is on {wanted}; they must be equal."


def _input(spec: Spec, index: str) -> str:
    # Inside a plain function it is not known whose input that is.
    known = _is_function(spec) and int(index) < len(spec.order)
    return f"`{spec.order[int(index)]}`" if known else f"input {index}"


def _kind(_: Spec, got: str) -> str:
    hint = "; return a tuple, not a list" if got == "list" else ""
    return f"backward() returned a {got} where a gradient is a tensor or None{hint}."


def _integer(_: Spec) -> str:
    return "backward() returned a gradient of integers or bools; a gradient is floating, like its input."


def _who(spec: Spec, owner: str) -> str:
    return "backward()" if _is_function(spec) else f"backward() of {owner}"


def _is_function(spec: Spec) -> bool:
    return isinstance(spec.op, type) and issubclass(spec.op, torch.autograd.Function)


# What torch's engine says of gradients that it cannot take -> what we say.
_REFUSED: Mapping[str, Callable[..., str]] = {
    r"unction (\w+)Backward returned an incorrect number of gradients \(expected (\d+), got (\d+)\)": _number,
    r"unction (\w+)Backward returned an invalid gradient at index (\d+) - "
    r"got (\[.*?\]) but expected shape compatible with (\[.*?\])": _shape,
    r"unction (\w+)Backward returned an invalid gradient at index (\d+) - expected device (\S+) but got (\S+)": _device,
    r"expected Variable or None \(got ([\w.]+)\)": _kind,
    r"isFloatingType\(grad": _integer,
}


def record(
    spec: Spec,
    called: Called,
    point: Point,
    *,
    primals: Mapping[str, Tensor | None] | None = None,
    same: tuple[str, str] | None = None,
) -> Tape:
    """Call the op with gradients on, on exact copies of the primals (or on `primals` themselves).

    `same`: two arguments that are handed one tensor, the first's, which is a leaf once.
    Torch forbids an op to write to a leaf: one that does is called again, on copies that follow the leaves.
    """
    given = copies(point.primals) if primals is None else dict(primals)
    try:
        return _recorded(spec, called, point, given, same=same, follow=False)
    except OpError as error:
        if LEAF not in str(error.__cause__):
            raise
    return _recorded(spec, called, point, copies(point.primals), same=same, follow=True)


LEAF = "leaf Variable that requires grad"
"""What torch says of an op that writes to a leaf."""


def _recorded(
    spec: Spec,
    called: Called,
    point: Point,
    given: dict[str, Tensor | None],
    *,
    same: tuple[str, str] | None,
    follow: bool,
) -> Tape:
    names = [n for n in point.differentiate if same is None or n != same[1]]
    leaves = {n: given[n].detach().requires_grad_() for n in names}  # type: ignore[union-attr]
    with torch.enable_grad():
        given |= {n: leaf.clone() if follow else leaf for n, leaf in leaves.items()}
        if same is not None:
            given[same[1]] = given[same[0]]
        handed = {n: t for n, t in given.items() if t is not None}
        versions = {n: t._version for n, t in handed.items()}  # noqa: SLF001 (torch has no public name for it)
        outputs = called(given, point.kwargs)
    written = frozenset(n for n, t in handed.items() if t._version != versions[n])  # noqa: SLF001
    return Tape(spec=spec, leaves=leaves, given=handed, outputs=outputs, written=written)


def values(called: Called, primals: Mapping[str, Tensor | None], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The outputs without gradients."""
    with torch.no_grad():
        return called(primals, kwargs)
