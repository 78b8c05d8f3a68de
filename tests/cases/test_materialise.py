import msgspec
import pytest
import torch
from hypothesis import given, settings

import gradverify as gv
from gradverify.cases import layouts
from gradverify.cases.materialise import cotangent_words, cotangents, datum, freeze, generator, materialise, tensor_of
from gradverify.cases.strategies import cases
from gradverify.errors import SpecError
from gradverify.records.case import Case
from gradverify.records.spec import Arg, Spec

CLAIMS = (
    "forward",
    "vjp",
    "linear",
    "layout",
    "purity",
    "repeat",
    "edges",
    "partial",
    "special",
    "lifetime",
    "memory",
    "convention",
)
SPEC = Spec(
    name="f",
    op=None,
    args=(
        Arg(name="x", shape="*b k"),
        Arg(name="w", shape="k n"),
        Arg(name="i", shape="k", domain=gv.index("n"), role="integer"),
        Arg(name="m", shape="#n", domain=gv.boolean, role="mask", optional=True),
    ),
    kwargs={"scale": (0.5, 2.0)},
)
CASE = Case(spec="f", claim="vjp", seed=3, dims=(("b", (2,)), ("k", 3), ("n", 4)), differentiate=("w", "x"))
sampled = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def same(one: gv.Plan, other: gv.Plan) -> bool:
    return all(
        (a is None and b is None) or (torch.equal(a, b) and a.stride() == b.stride() and a.dtype == b.dtype)
        for a, b in zip(one.primals.values(), other.primals.values(), strict=True)
    )


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_same_case_gives_the_same_tensors_and_leaves_the_global_generator_alone(claim: str) -> None:
    @sampled
    @given(cases(SPEC, claim))
    def check(case: Case) -> None:
        before = torch.get_rng_state()
        assert same(materialise(SPEC, case), materialise(SPEC, case))
        assert torch.equal(before, torch.get_rng_state())

    check()


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_case_replays_exactly_from_its_json_and_from_its_frozen_data(claim: str) -> None:
    @sampled
    @given(cases(SPEC, claim))
    def check(case: Case) -> None:
        point = materialise(SPEC, case)
        again = msgspec.json.decode(msgspec.json.encode(case), type=Case)
        assert again == case
        frozen = msgspec.structs.replace(again, data=freeze(SPEC, point), layouts=(), values=(), dims=())
        assert same(point, materialise(SPEC, msgspec.json.decode(msgspec.json.encode(frozen), type=Case)))

    check()


def test_another_seed_gives_other_values_and_another_argument_others_too() -> None:
    x = materialise(SPEC, CASE).primals["x"]
    assert not torch.equal(x, materialise(SPEC, msgspec.structs.replace(CASE, seed=4)).primals["x"])
    assert generator(CASE, "x").initial_seed() != generator(CASE, "w").initial_seed()


def test_tensors_have_the_dtype_of_the_case_or_of_their_role_and_need_no_gradient() -> None:
    point = materialise(SPEC, msgspec.structs.replace(CASE, dtype="bfloat16"))
    assert [t.dtype for t in point.primals.values()] == [torch.bfloat16, torch.bfloat16, torch.int64, torch.bool]
    assert not any(t.requires_grad for t in point.primals.values())
    assert point.differentiate == ("x", "w")
    assert point.kwargs == {"scale": 0.5}


def test_the_layout_of_a_case_changes_its_strides_and_not_its_values() -> None:
    varied = materialise(SPEC, msgspec.structs.replace(CASE, layouts=(("x", "sliced"), ("w", "transposed"))))
    plain = materialise(SPEC, CASE)
    assert varied.primals["x"].stride() == (7, 2)
    assert varied.primals["w"].stride() == (1, 3)
    assert all(torch.equal(a, b) for a, b in zip(varied.primals.values(), plain.primals.values(), strict=True))


def test_dropping_the_layouts_of_a_drawn_case_keeps_its_values() -> None:
    seen = set()

    @settings(sampled, max_examples=150)
    @given(cases(SPEC, "layout"))
    def check(case: Case) -> None:
        base = materialise(SPEC, msgspec.structs.replace(case, layouts=()))
        varied = materialise(SPEC, case)
        seen.update(name for _, name in case.layouts)
        for name, tensor in varied.primals.items():
            assert torch.equal(tensor, base.primals[name])
            if dict(case.layouts).get(name) == "expanded":
                assert 0 in tensor.stride()

    check()
    assert {"transposed", "sliced", "offset", "expanded", "permuted"} <= seen


def test_an_absent_argument_is_none_and_not_differentiated() -> None:
    absent = materialise(SPEC, msgspec.structs.replace(CASE, values=(("m", "none"),)))
    assert absent.primals["m"] is None


def test_a_case_without_a_size_names_the_argument() -> None:
    with pytest.raises(SpecError, match=r"argument 'x'.*'b'"):
        materialise(SPEC, Case(spec="f", claim="vjp"))


@pytest.mark.parametrize("values", [[0.1, -0.0, float("inf"), 5e-324], [float("nan")]])
def test_frozen_floats_are_exact(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    assert torch.equal(tensor_of(datum(tensor)).view(torch.int64), tensor.view(torch.int64))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool", "uint8"])
def test_a_recorded_tensor_keeps_dtype_and_strides(dtype: str) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).mT
    assert tensor_of(datum(tensor)).stride() == tensor.stride()
    assert torch.equal(tensor_of(datum(tensor)), tensor)
    assert tensor_of(datum(tensor)).dtype == tensor.dtype


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(SpecError, match="give a strided one"):
        datum(torch.zeros(2).to_sparse())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_recorded_complex_tensor_keeps_values_and_strides(dtype: torch.dtype, lazy: bool) -> None:
    tensor = torch.complex(torch.arange(6.0), -torch.arange(6.0) / 3).to(dtype).reshape(2, 3).mT
    again = tensor_of(datum(tensor.conj() if lazy else tensor))
    assert torch.equal(again, tensor.conj() if lazy else tensor)
    assert (again.dtype, again.stride()) == (tensor.dtype, tensor.stride())


def test_a_complex_record_is_cast_to_the_precision_under_test() -> None:
    recorded = datum(torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex64))
    assert tensor_of(recorded, floating=torch.complex128).dtype is torch.complex128


OUTPUTS = (
    torch.zeros(3, 4, dtype=torch.float64),
    torch.zeros(3, dtype=torch.int64),
    torch.zeros((), dtype=torch.float32),
)


def test_floating_outputs_get_cotangents_and_integer_ones_none() -> None:
    u, none, v = cotangents(CASE, OUTPUTS)
    assert none is None
    assert (u.shape, u.dtype, v.shape, v.dtype) == ((3, 4), torch.float64, (), torch.float32)
    assert torch.equal(u, cotangents(CASE, OUTPUTS)[0])
    assert not torch.equal(u, cotangents(CASE, OUTPUTS, draw=1)[0])


def test_words_give_cotangents_their_layout_or_leave_them_out() -> None:
    outputs = (OUTPUTS[0],) * 4
    case = msgspec.structs.replace(CASE, cotangents=("transposed", "none", layouts.STRIDE_ZERO, "expanded"))
    transposed, none, zero, expanded = cotangents(case, outputs)
    assert none is None
    assert [t.stride() for t in (transposed, zero, expanded)] == [(1, 3), (0, 0), (0, 1)]
    assert torch.equal(transposed, cotangents(CASE, outputs)[0])


def test_words_are_cycled_and_at_least_one_output_keeps_a_cotangent() -> None:
    case = msgspec.structs.replace(CASE, cotangents=("none", "unused"))
    assert cotangent_words(case, 3) == ("contiguous", "unused", "none")
    assert cotangent_words(CASE, 2) == ("contiguous", "contiguous")
    assert cotangent_words(case, 0) == ()
