from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

import gradverify as gv
from gradverify.cases.signatures import from_data, load, resolved, spec_from_op
from gradverify.errors import SpecError

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


class Combined(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k n"], eps: float = 1e-5
    ) -> Tensor:
        return x @ w

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple:
        return u, u, None


class Split(Function):
    @staticmethod
    def forward(x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k n"], eps: float = 1e-5) -> Tensor:
        return x @ w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass


class Bare(Function):
    @staticmethod
    def forward(ctx, x, w, bias=None, causal=False, eps=1e-5, flags=()):
        return x


class Scaled(nn.Module):
    def forward(self, x: Annotated[Tensor, "k"], *, twice: bool = True) -> Tensor:
        return x


@gv.spec(
    Bare,
    dims={"n": gv.dim(0, 300, around=(64, 128)), "d": 32},
    where=lambda n, causal: n > 0 or causal,
    kwargs={"eps": (1e-5, 1e-3)},
    dtypes=[torch.float32, "bfloat16"],
    devices="cpu",
    nondiff="lse",
    tol={torch.bfloat16: gv.times(3)},
    examples=[gv.example(n=65, causal=True)],
    xfail={"GV203": "sliced cotangents"},
)
def everything(
    x: Annotated[Tensor, "n d", gv.domain(0, 5), gv.avoid(1.0)],
    w: Annotated[Tensor, "n", gv.no_grad],
    bias: Annotated[Tensor, "#n", gv.boolean] | None = None,
    causal: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    """Everything that a spec can say."""
    return x


def test_a_signature_and_its_fields_become_the_record() -> None:
    x, w, bias = everything.args
    assert (x.shape, x.domain.lo, x.domain.hi, x.domain.avoid, x.role) == ("n d", 0.0, 5.0, (1.0,), "differentiable")
    assert (w.role, bias.role, bias.optional, w.optional) == ("frozen", "mask", True, False)
    assert everything.kwargs == {"causal": (True, False), "eps": (1e-5, 1e-3)}
    assert everything.dims["d"] == gv.one_of(32)
    assert (everything.dtypes, everything.devices, everything.nondiff) == (("float32", "bfloat16"), ("cpu",), ("lse",))
    assert dict(everything.tol) == {"bfloat16": gv.times(3)}
    assert everything.order == ("x", "w", "bias", "causal", "eps")


def test_a_spec_is_named_called_and_found_like_its_reference() -> None:
    assert (everything.name, everything.__name__, everything.__doc__) == ("everything",) * 2 + (
        "Everything that a spec can say.",
    )
    assert everything(3, None) == 3
    assert everything.source.file == __file__


def test_a_body_of_dots_or_a_docstring_is_no_reference() -> None:
    @gv.spec(Combined)
    def dots(x: Annotated[Tensor, "k"], w: Annotated[Tensor, "k"], eps: float = 1.0) -> Tensor: ...

    @gv.spec(Combined)
    def words(x: Annotated[Tensor, "k"], w: Annotated[Tensor, "k"], eps: float = 1.0) -> Tensor:
        """No body."""

    @gv.spec(Combined)
    def body(x: Annotated[Tensor, "k"], w: Annotated[Tensor, "k"], eps: float = 1.0) -> Tensor:
        return x

    assert (dots.reference, words.reference) == (None, None)
    assert body.reference is not None


def test_keywords_document_their_values() -> None:
    @gv.spec(lambda x, **kwargs: x)
    def f(
        x: Annotated[Tensor, ""],
        *,
        scale: Annotated[float, gv.domain(0.1, 2)] = 0.125,
        causal: bool = False,
        flipped: bool = True,
        kind: Literal["b", "a"] = "a",
        exact: Literal[False] = False,
        size: Annotated[int, gv.integers(1, 4)] = 2,
        slope: float | None = None,
        mode: str = "mean",
    ) -> Tensor: ...

    assert f.kwargs == {
        "scale": (0.125, 0.1, 2.0),
        "causal": (False, True),
        "flipped": (True, False),
        "kind": ("a", "b"),
        "exact": (False,),
        "size": (2, 1, 4),
        "slope": (None,),
        "mode": ("mean",),
    }


def test_annotations_resolve_inside_a_function_and_with_names_for_types_only() -> None:
    local = gv.positive

    @gv.spec(Combined)
    def f(x: Annotated[Tensor, "k", local], w: Annotated[Tensor, "k"] | None = None, eps: float = 1) -> FunctionCtx: ...

    assert f.args[0].domain.kind == "positive"
    assert f.args[1].optional


class FakeJaxtyping:
    """What jaxtyping's `Float[Tensor, "*b k"]` and its like look like from outside."""

    def __init__(self, dim_str: str, *dtypes: str) -> None:
        self.dim_str, self.dtypes = dim_str, dtypes


@pytest.mark.parametrize(
    ("dtypes", "role", "dtype", "kind"),
    [
        (("bfloat16", "float32", "float8_e4m3fn"), "differentiable", None, "real"),
        (("float32",), "differentiable", None, "real"),
        (("int8", "int64"), "integer", None, "integers"),
        (("int32",), "integer", "int32", "integers"),
        (("bool", "bool_"), "mask", None, "boolean"),
        ((), "differentiable", None, "real"),
    ],
)
def test_jaxtyping_annotations_are_read_by_their_string(dtypes: tuple, role: str, dtype: str, kind: str) -> None:
    def f(x, y): ...

    f.__annotations__ = {
        "x": FakeJaxtyping("*b k", *dtypes),
        "y": Annotated[FakeJaxtyping("k"), gv.positive],
    }
    x, y = gv.spec(lambda x, y: x)(f).args
    assert (x.shape, x.role, x.dtype, x.domain.kind) == ("*b k", role, dtype, kind)
    assert (y.shape, y.domain.kind) == ("k", "positive")


@pytest.mark.parametrize(
    ("dtypes", "expected"), [(("complex64", "complex128"), True), (("float32", "complex64"), False), ((), False)]
)
def test_jaxtyping_says_that_a_tensor_is_complex(dtypes: tuple, expected: bool) -> None:
    def f(z): ...

    f.__annotations__ = {"z": FakeJaxtyping("*b k", *dtypes)}
    (z,) = gv.spec(lambda z: z)(f).args
    assert (z.complex, z.role, z.domain.kind) == (expected, "differentiable", "real")


def test_jaxtyping_itself_is_read_where_it_is_installed() -> None:
    jaxtyping = pytest.importorskip("jaxtyping")
    axis = "k"

    def f(x, i, m=None): ...

    f.__annotations__ = {
        "x": jaxtyping.Float[Tensor, "*b k"],
        "i": Annotated[jaxtyping.Int64[Tensor, axis], gv.index("k")],
        "m": jaxtyping.Bool[Tensor, "k"] | None,
    }
    x, i, m = gv.spec(lambda x, i, m: x)(f).args
    assert (x.shape, i.shape, i.dtype, i.domain.kind, m.role, m.optional) == (
        "*b k",
        "k",
        "int64",
        "index",
        "mask",
        True,
    )


@pytest.mark.parametrize("op", [Combined, Split, Combined.apply])
def test_the_order_is_that_of_forward_without_ctx(op: Any) -> None:
    @gv.spec(op)
    def f(w: Annotated[Tensor, "k n"], x: Annotated[Tensor, "*b k"]) -> Tensor: ...

    assert f.order == ("x", "w")
    assert f.op in (Combined, Split)


def test_other_names_are_mapped_by_position_where_the_counts_agree() -> None:
    @gv.spec(Combined)
    def f(a: Annotated[Tensor, "*b k"], b: Annotated[Tensor, "k n"], c: float = 0.0) -> Tensor: ...

    assert f.order == ("a", "b", "c")


def refuse(message: str, **fields: Any) -> None:
    with pytest.raises(SpecError, match=message):

        @gv.spec(Combined, **fields)
        def f(x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k n"]) -> Tensor: ...


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"suports": {}}, "did you mean 'supports'"),
        ({"layouts": ["slices"]}, "did you mean 'sliced'"),
        ({"dtypes": ["float23"]}, "dtypes does not know 'float23'; did you mean 'float32'"),
        ({"dtypes": [torch.complex64]}, "dtypes names the precision under test, got complex64"),
        ({"tol": {"flaot64": gv.times(2)}}, "tol does not know 'flaot64'; did you mean 'float64'"),
        ({"tol": {"float64": 1e-3}}, "tol gives 0.001; give gv.times"),
        ({"devices": ["cdua"]}, "devices does not know 'cdua'; did you mean 'cuda'"),
        ({"supports": {"vmapp": True}}, "supports does not know 'vmapp'; did you mean 'vmap'"),
        ({"xfail": {"GV11": "why"}}, "xfail does not know 'GV11'; did you mean 'GV"),
        ({"xfail": {"vpj": "why"}}, "xfail does not know 'vpj'; did you mean 'vjp'"),
        ({"truth": "refrence"}, "truth does not know 'refrence'; did you mean 'reference'"),
        ({"dims": {"q": gv.dim()}}, "dims has 'q'"),
        ({"where": lambda kk: True}, "where does not know 'kk'"),
        ({"examples": [gv.example(causal=True)]}, "examples does not know 'causal'"),
        ({"kwargs": {"epsilon": 1.0}}, "kwargs does not know 'epsilon'"),
        ({"backward_of": lambda x: x, "vjp": lambda x: x}, "not both"),
        ({"backward_of": 3}, "must be a function"),
        ({"truth": "reference"}, "needs a reference"),
    ],
)
def test_a_field_that_fits_nothing_is_refused_by_name(fields: dict, message: str) -> None:
    refuse(message, **fields)


class Defaults(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, a: float = 1, b: float = 2) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple:
        return u, None, None


def test_what_has_a_default_may_be_left_out_but_not_from_the_middle_of_a_function() -> None:
    assert from_data(lambda x, *, a=1, b=2: x, {"x": "k"}, kwargs={"b": 2}).order == ("x", "b")
    assert from_data(lambda x, a=1, b=2: x, {"x": "k"}, kwargs={"b": 2}).order == ("x", "b")
    assert from_data(Defaults, {"x": "k"}, kwargs={"a": 2.0}).order == ("x", "a")
    with pytest.raises(SpecError, match="also needs 'a'"):
        from_data(Defaults, {"x": "k"}, kwargs={"b": 2})


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (F.binary_cross_entropy_with_logits, {"input": "n k", "target": "n k", "pos_weight": "k"}),
        (F.binary_cross_entropy_with_logits, {"x": "n k", "y": "n k"}),
        (F.scaled_dot_product_attention, {"query": "n d", "key": "m d", "value": "m d"}),
        (F.multi_margin_loss, {"input": "n k", "target": "n", "weight": "k"}),
        (F.cross_entropy, {"input": "n k", "target": "n k"}),
        (torch.clamp, {"input": "n", "max": "n"}),
    ],
)
def test_optional_tensors_of_torch_are_absent_unless_they_are_declared(op: Any, shapes: dict) -> None:
    assert from_data(op, shapes).order == tuple(shapes)


def test_a_name_that_the_op_has_elsewhere_is_not_taken_by_position() -> None:
    with pytest.raises(SpecError, match=r"has no 'pos_wieght' \(did you mean 'pos_weight'\?\)"):
        from_data(F.binary_cross_entropy_with_logits, {"input": "n", "target": "n", "pos_wieght": "n"})
    with pytest.raises(SpecError, match="also needs 'target'"):
        from_data(F.binary_cross_entropy_with_logits, {"input": "n", "weight": "n"})
    with pytest.raises(SpecError, match="has no 'v'"):
        from_data(lambda x, w: x * w, {"v": "n", "x": "n"})


def test_a_spec_whose_arguments_the_op_lacks_is_refused() -> None:
    with pytest.raises(SpecError, match=r"takes \(x, w, eps\) and has no 'y'"):

        @gv.spec(Combined)
        def f(x: Annotated[Tensor, "k"], y: Annotated[Tensor, "k"]) -> Tensor: ...


def test_a_spec_that_leaves_out_what_the_op_needs_is_refused() -> None:
    with pytest.raises(SpecError, match="also needs 'w'"):

        @gv.spec(Combined)
        def f(x: Annotated[Tensor, "k"]) -> Tensor: ...


def test_a_tensor_without_a_shape_is_refused_unless_inputs_bring_it() -> None:
    def f(x: Tensor) -> Tensor: ...

    with pytest.raises(SpecError, match="GV901 cannot tell the shapes of x"):
        gv.spec(lambda x: x)(f)
    assert gv.spec(lambda x: x, inputs=lambda draw: {})(f).args[0].name == "x"


def test_markers_that_contradict_each_other_are_refused_by_argument() -> None:
    with pytest.raises(SpecError, match="argument 'x' is both"):

        @gv.spec(lambda x: x)
        def f(x: Annotated[Tensor, "k", gv.positive, gv.boolean]) -> Tensor: ...


@pytest.mark.parametrize("op", [Combined, Split])
def test_a_bare_op_is_read_from_the_annotations_of_its_forward(op: Any) -> None:
    spec = spec_from_op(op, name="op", target="m:op", shapes={})
    assert [(a.name, a.shape) for a in spec.args] == [("x", "*b k"), ("w", "k n")]
    assert (spec.kwargs, spec.order) == ({"eps": (1e-5,)}, ("x", "w", "eps"))
    assert spec.described_by == "from annotations on forward()"


def test_shapes_by_hand_stand_before_annotations_and_defaults_are_keywords() -> None:
    spec = spec_from_op(Bare, name="op", target="m:op", shapes={"x": "k", "w": "k", "bias": ""})
    assert [(a.name, a.shape, a.optional) for a in spec.args] == [
        ("x", "k", False),
        ("w", "k", False),
        ("bias", "", True),
    ]
    assert spec.kwargs == {"causal": (False, True), "eps": (1e-5,)}
    assert spec_from_op(Combined, name="op", target="m:op", shapes={"x": "2 k"}).args[0].shape == "2 k"
    assert spec.described_by == "from --arg"


def test_a_bare_op_without_shapes_gets_three_ways_out() -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_op(Bare, name="op", target="m:Bare", shapes={"x": "k"})
    message = str(caught.value)
    assert message.startswith("GV901 cannot tell the shapes of w of m:Bare")
    assert all(way in message for way in ("--arg 'w=*b k'", "Annotated[Tensor", "@gradverify.spec(op)"))


def test_a_shape_for_an_unknown_argument_is_refused_with_a_guess() -> None:
    with pytest.raises(SpecError, match="did you mean 'bias'"):
        spec_from_op(Bare, name="op", target="m:op", shapes={"x": "k", "w": "k", "bais": "k"})


def test_modules_callables_and_builtins_are_read_as_far_as_python_can_tell() -> None:
    module = spec_from_op(Scaled(), name="op", target="m:op", shapes={})
    assert (module.args[0].shape, module.kwargs) == ("k", {"twice": (True, False), "training": (True, False)})
    assert spec_from_op(torch.mm, name="op", target="m:op", shapes={"a": "k n", "b": "n m"}).order == ("a", "b")
    with pytest.raises(SpecError, match="GV901"):
        spec_from_op(torch.mm, name="op", target="m:op", shapes={})


def test_custom_ops_are_read_from_their_function_and_registered_ones_from_their_schema() -> None:
    @torch.library.custom_op("gradverify_tests::mul", mutates_args=())
    def mul(x: Tensor, w: Tensor, flip: bool = False) -> Tensor:
        return x * w

    for op in (mul, torch.ops.gradverify_tests.mul, torch.ops.gradverify_tests.mul.default):
        spec = spec_from_op(op, name="op", target="m:op", shapes={"x": "k", "w": "k"})
        assert (spec.order, spec.kwargs) == (("x", "w", "flip"), {"flip": (False, True)})


def test_a_spec_from_data_is_that_of_the_decorator() -> None:
    spec = from_data(
        Combined,
        {"x": "*b k", "w": gv.Arg(name="w", shape="k n", optional=True)},
        dims={"k": gv.dim(max=200, around=64)},
    )
    assert (spec.name, spec.order, spec.args[1].optional) == ("Combined", ("x", "w"), True)
    with pytest.raises(SpecError, match="did you mean 'dims'"):
        from_data(Combined, {"x": "k", "w": "k"}, dim={})


def test_a_lazy_op_is_loaded_late_and_brings_its_order() -> None:
    spec = from_data("torch.nn.functional:linear", {"weight": "n k", "input": "k"})
    assert spec.order == ("weight", "input")
    assert resolved(spec).op is nn.functional.linear
    with pytest.raises(SpecError, match=r"torch.nn.functional has no attribute 'linea' \(did you mean 'linear'\?\)"):
        load("torch.nn.functional:linea")
    with pytest.raises(SpecError, match=r"no.such:op: cannot be loaded \(ModuleNotFoundError: No module named 'no'\)"):
        load("no.such:op")


@pytest.mark.parametrize("op", [3, None, torch.ones(1)])
def test_an_op_that_cannot_be_called_is_refused(op) -> None:
    with pytest.raises(SpecError, match="which cannot be called; name a Function or a function"):
        gv.from_data(op, {"x": "n"})


def test_data_takes_the_order_of_its_op() -> None:
    spec = gv.Spec(Combined, args={"w": "k n", "x": "*b k"})
    assert (spec.order, resolved(spec).order) == (("w", "x"), ("x", "w"))
    with pytest.raises(SpecError, match="also needs 'w'"):
        resolved(gv.Spec(Combined, args={"x": "k"}))
    with pytest.raises(SpecError, match="dims has 'q'"):
        resolved(gv.Spec(torch.sin, args={"input": "k"}, dims={"q": 3}))
    layer = resolved(gv.Spec(nn.Linear(2, 3), args={"input": "b 2"}))
    assert [a.name for a in layer.args] == ["input", "weight", "bias"]


def test_mappings_of_a_decorated_spec_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        everything.dims["n"] = gv.dim()
