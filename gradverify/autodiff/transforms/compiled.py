"""An op under torch.compile: its recorded call, what of it was compiled, and what torch could not compile."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.calling import flattened, handed, signature_of
from gradverify.autodiff.products import Tape, record
from gradverify.autodiff.transforms.pure import Gradients, TransformError, first_line, pulled
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Spec

BACKEND = "GRADVERIFY_COMPILE_BACKEND"
"""The environment variable that asks for another backend than aot_eager, which traces forward and backward ahead of
time and generates no code: inductor does, at ten times the price, and needs a C++ compiler or a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A recorded call of a compiled op.

    Attributes:
        tape: forward has run, backward is compiled when it first runs.
        graphs: how many were compiled.
        breaks: how often the graph broke.
        why: the first break, in torch's words.
    """

    tape: Tape
    graphs: int
    breaks: int
    why: str

    def vjp(self, us: Sequence[Tensor | None]) -> Gradients:
        """Gradients as a training step takes them: the graph is freed, whose memory a compiled backward may reuse."""
        leaves, pairs = self.tape.leaves, zip(self.tape.outputs, us, strict=False)
        used = [(y, u) for y, u in pairs if u is not None and y.requires_grad]
        if not used:
            return dict.fromkeys(leaves)
        grads = pulled([y for y, _ in used], list(leaves.values()), [u for _, u in used])
        return dict(zip(leaves, grads, strict=True))


def backend() -> str:
    """`aot_eager`, or what the environment asks for."""
    return os.environ.get(BACKEND) or "aot_eager"


@contextmanager
def compiling() -> Iterator[None]:
    """A compiler that knows of nothing before and keeps nothing afterwards, and that logs no hints.

    Raises TransformError, `refused` where torch's compiler gives up or fails of itself, with what it said.
    """
    # It takes seconds to import, and only this claim needs it.
    from torch._dynamo.exc import TorchDynamoException
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, OpError) and error.__cause__ is not None else error
        refused = isinstance(cause, TorchDynamoException) or _inside_compiler(cause)
        raise TransformError(_said(cause) if refused else first_line(cause), refused=refused) from error
    finally:
        logging.disable(before)
        torch.compiler.reset()


def called(spec: Spec, point: Point, *, dynamic: bool) -> Compiled:
    """One recorded call, compiled for it. To be called within `compiling`, the backward as well."""
    from torch._dynamo.utils import counters

    apply, positional, named = signature_of(spec)

    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(*args, **kwargs)

    compiled: Any = torch.compile(call, backend=backend(), dynamic=dynamic)

    def run(primals: Any, kwargs: Any) -> Any:
        values = handed(spec, primals, kwargs)
        out = compiled(*(values[n] for n in positional), **{n: values[n] for n in named})
        return flattened(spec, out)

    tape = record(spec, run, point)
    breaks = counters["graph_break"]
    return Compiled(
        tape=tape,
        graphs=counters["stats"]["unique_graphs"],
        breaks=sum(breaks.values()),
        why=next(iter(breaks), "").strip().splitlines()[0] if breaks else "",
    )


COMPILER = tuple(f"torch.{part}" for part in ("_dynamo", "_functorch", "_inductor", "_subclasses", "fx"))
"""Where torch's compiler fails of itself: with an assertion, say, and not with an exception of its own kind."""


def _inside_compiler(error: BaseException) -> bool:
    """Whether what raised it, the innermost Python frame, is the compiler's and not the op's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith(COMPILER)


def _said(error: BaseException) -> str:
    """The first two lines of what the compiler said: the first is often its own name only."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}".removesuffix(" from user code:")
