"""The counter of allocations counts what can be added up by hand."""

from __future__ import annotations

import torch

from tests.allocations import Allocations, held_by_device, held_bytes


def test_what_is_made_counts_until_nothing_holds_it() -> None:
    given = torch.zeros(1000)
    with Allocations(given) as counted:
        one = given + 1
        two = one * 2
        assert counted.live == counted.peak == 12_000
        del one
        part = two[10:]
        del two
        assert (counted.live, counted.peak) == (8_000, 12_000)  # a part of a tensor keeps all of it
        del part
        assert (counted.live, counted.reset_peak(), counted.peak) == (4_000, 4_000, 4_000)


def test_gradients_of_the_backward_pass_count() -> None:
    layer = torch.nn.Linear(100, 100)
    with Allocations(layer) as counted:
        layer(torch.zeros(1, 100)).sum().backward()
    assert counted.live == held_bytes(layer) == 2 * 4 * (100 * 100 + 100)
    assert counted.peak >= counted.live + 400


def test_devices_count_apart_and_sizes_on_the_meta_device_are_real() -> None:
    layer = torch.nn.Linear(4096, 4096, bias=False, device="meta")
    assert held_by_device(layer, torch.zeros(3)) == {"meta": 4 * 4096 * 4096, "cpu": 12}
    with Allocations(layer, device="meta") as counted:
        layer(torch.zeros(2, 4096, device="meta"))
        torch.zeros(1000)
    assert counted.peak > 4 * 4096 * 4096 > counted.peak - 100_000 and held_bytes(layer, device="cpu") == 0


def test_states_of_optimisers_are_held() -> None:
    layer = torch.nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.zeros(1, 10)).sum().backward()
    optimizer.step()
    assert held_bytes(optimizer) == 2 * 400 + 4  # two moments, and the count of steps


def test_weights_that_wrap_others_count_as_what_they_wrap() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layers = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
    quantize_(layers, Int8WeightOnlyConfig())
    held = held_bytes(layers)
    assert 256 * 256 < held < 256 * 256 + 4096
    with Allocations(layers) as counted:
        layers(torch.zeros(1, 256))
    assert counted.peak > held + 1024
