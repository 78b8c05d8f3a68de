"""A module as a function of its parameters: the same each time, whatever it does to its buffers and modes."""

import torch
from torch import nn

from gradverify.autodiff.functional import functional


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()


def test_it_is_called_with_the_given_parameters_and_keeps_its_own():
    module = net()
    own = {n: p.detach().clone() for n, p in module.named_parameters()}
    given = {n: torch.full_like(p, 2.0) for n, p in own.items()}
    x = torch.randn(4, 3, dtype=torch.float64)
    twin = net()
    twin.load_state_dict({**module.state_dict(), **given})
    assert torch.equal(functional(module)(x, parameters=given), twin(x))
    assert all(torch.equal(p, own[n]) for n, p in module.named_parameters())


def test_running_statistics_stay_as_they_are():
    module = net()
    x = torch.randn(4, 3, dtype=torch.float64)
    parameters = {n: p.detach() for n, p in module.named_parameters()}
    before = {n: b.clone() for n, b in module.named_buffers()}
    wrote: set[str] = set()
    call = functional(module, wrote=wrote)
    first, second = call(x, parameters=parameters), call(x, parameters=parameters)
    assert torch.equal(first, second)
    assert wrote == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(torch.equal(b, before[n]) for n, b in module.named_buffers())


def test_the_mode_is_that_of_the_call_and_each_layer_has_its_own_again_afterwards():
    module = net()
    module[1].eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    parameters = {n: p.detach() for n, p in module.named_parameters()}
    own = functional(module)(x, parameters=parameters)
    assert torch.equal(functional(module)(x, parameters=parameters, training=True), own)
    module[1].train()
    assert not torch.equal(functional(module)(x, parameters=parameters, training=True), own)
    assert torch.equal(functional(module)(x, parameters=parameters, training=False), own)
    assert [m.training for m in module.modules()] == [True, True, True]


def test_a_recurrent_layer_lets_go_of_the_weights_of_the_call():
    layer = nn.LSTM(3, 2)
    given = {n: p.detach().clone() for n, p in layer.named_parameters()}
    functional(layer)(torch.randn(2, 1, 3), parameters=given)
    assert all(mine is own for mine, own in zip(layer._flat_weights, layer.parameters(), strict=True))
