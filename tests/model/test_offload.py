"""Weights that are away are there when they are used: training is the same bit for bit, and the device holds little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors import SafetensorError

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.errors import MachineError, ModelError
from ltxtrain.model.adapter import AdapterSpec, adapter_off, adapter_weights
from ltxtrain.model.checkpointing import set_checkpointing
from ltxtrain.model.offload import Offload, Order, loading_device, offload_groups, place_transformer
from ltxtrain.model.offload_group import main_memory, movable
from ltxtrain.model.transformer import predict_velocity
from tests.quantised import quantise
from tests.small import draw, small_transformer, with_adapter

CPU = torch.device("cpu")
LAYERS = 4
# The caption projection as well, so that gradients go back through the text's side of each block.
SPEC = AdapterSpec(rank=2, alpha=2.0, dropout=0.25, targets=("to_q", "to_v", "to_out.0", "net.2", "linear_1"))


GIVEN = (draw(2, 128, 3, 2, 4, seed=1), torch.tensor([0.25, 0.8]), draw(2, 16, 64, seed=2))
MASK_BL = torch.arange(16).expand(2, 16) < 9
Model = tuple[LTXVideoTransformer3DModel, dict[str, torch.nn.Parameter], Offload]


def made(base: str = "no_change", *, dtype: torch.dtype = torch.float32, **options: Any) -> Model:
    """The same model each time, four blocks of width 64, with an adapter, placed as ``options`` say."""
    transformer = small_transformer(LAYERS, head_dim=32, text=64).to(dtype)
    if base != "no_change":
        quantise(transformer, "transformer", base, dtype)
    parameters = with_adapter(transformer, SPEC)
    memory = MemoryConfig(**{"gradient_checkpointing": False} | options)
    set_checkpointing(transformer, memory)
    offload = place_transformer(transformer, CPU, memory)
    return transformer.train(), parameters, offload


def loss_of(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
    noisy_BCFHW, sigma_B, embeds_BLD = GIVEN
    dtype = transformer.dtype
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        velocity = predict_velocity(transformer, noisy_BCFHW.to(dtype), sigma_B, embeds_BLD.to(dtype), MASK_BL, 25.0)
    return velocity.float().square().mean()


def trained(model: Model, steps: int = 2) -> dict[str, torch.Tensor]:
    """The adapter after steps of two backward passes each, with an evaluation and an answer of the base between."""
    transformer, parameters, _ = model
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        for _ in range(steps):
            for _ in range(2):
                loss_of(transformer).backward()
                with torch.no_grad(), adapter_off(transformer):
                    loss_of(transformer)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            transformer.eval()
            with torch.no_grad():
                loss_of(transformer)
            transformer.train()
    return adapter_weights(transformer)


_remembered: dict[tuple[str, torch.dtype], dict[str, torch.Tensor]] = {}


def plainly_trained(base: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    if (base, dtype) not in _remembered:
        _remembered[base, dtype] = trained(made(base, dtype=dtype))
    return _remembered[base, dtype]


GROUPS = {"enable_group_offload": True}
WAYS: list[dict[str, Any]] = [
    GROUPS,
    GROUPS | {"group_offload_blocks_per_group": 3},
    GROUPS | {"group_offload_type": "leaf_level"},
    {"musubi_blocks_to_swap": 2},
    {"musubi_blocks_to_swap": 4},
    {"enable_model_cpu_offload": True},
]
CHECKPOINTING: list[dict[str, Any]] = [
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "gradient_checkpointing_interval": 3},
    {"gradient_checkpointing": True, "gradient_checkpointing_free_blocks": 2},
    {"gradient_checkpointing": True, "gradient_checkpointing_backend": "unsloth"},
    {"gradient_checkpointing": True, "gradient_checkpointing_backend": "torch-ffn"},
]


def named(way: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in way.items())


def assert_same(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == other.keys() and mine
    for name, tensor in other.items():
        assert torch.equal(mine[name], tensor), name


LEAVES, MODEL = WAYS[2], WAYS[-1]
ALL = [("no_change", way) for way in WAYS] + [("nf4-bnb", way) for way in (GROUPS, LEAVES, MODEL)]
ALL += [(base, way) for base in ("int4-quanto", "int8-quanto", "int8-torchao") for way in (GROUPS, LEAVES)]


@pytest.mark.parametrize(("base", "way"), ALL, ids=lambda case: named(case) if isinstance(case, dict) else case)
def test_training_is_the_same_bit_for_bit(base: str, way: dict[str, Any]) -> None:
    assert_same(trained(made(base, **way)), plainly_trained(base))


@pytest.mark.parametrize("kept", CHECKPOINTING, ids=named)
@pytest.mark.parametrize("way", [WAYS[0], WAYS[2], WAYS[3]], ids=named)
def test_training_is_the_same_whatever_is_recomputed(way: dict[str, Any], kept: dict[str, Any]) -> None:
    assert_same(trained(made("int8-quanto", **way, **kept)), plainly_trained("int8-quanto"))


def test_training_is_the_same_in_half_precision(tmp_path: Path) -> None:
    on_disk = GROUPS | {"group_offload_to_disk_path": tmp_path}
    assert_same(trained(made("nf4-bnb", dtype=torch.bfloat16, **on_disk)), plainly_trained("nf4-bnb", torch.bfloat16))


@contextmanager
def watched(transformer: torch.nn.Module) -> Iterator[list[int]]:
    """The bytes of all frozen weights that are there, each time a layer of a block computes: each storage once."""
    seen: list[int] = []

    def count(*_: object) -> None:
        storages = {
            id_: storage.nbytes()
            for tensor in transformer.parameters()
            if not tensor.requires_grad and (storage := tensor.untyped_storage()).nbytes()
            for id_ in [storage.data_ptr()]
        }
        seen.append(sum(storages.values()))

    hooks = [
        module.register_forward_hook(count)
        for module in transformer.modules()
        if isinstance(module, torch.nn.Linear) and module.weight is not None and not module.weight.requires_grad
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def frozen_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.parameters() if not tensor.requires_grad)


def peak(base: str, **options: Any) -> tuple[int, int, int]:
    """(most bytes of the blocks' frozen weights there at once in a step, those of a block, what a group may add)"""
    transformer, _, _ = made(base, **options)
    block = transformer.transformer_blocks[0]
    rest = frozen_bytes(transformer) - LAYERS * frozen_bytes(block)
    with watched(transformer) as seen:
        loss_of(transformer).backward()
    assert len(seen) >= 10 * LAYERS
    return max(seen) - rest, frozen_bytes(block), 256 * sum(1 for _ in block.parameters())


@pytest.mark.parametrize("kept", [{}, CHECKPOINTING[0], CHECKPOINTING[1]], ids=named)
@pytest.mark.parametrize("base", ["no_change", "nf4-bnb"])
def test_one_group_is_there_at_a_time(base: str, kept: dict[str, Any]) -> None:
    most, block, padding = peak(base, **GROUPS, **kept)
    assert block <= most <= block + padding
    most, block, padding = peak(base, **GROUPS, group_offload_blocks_per_group=2, **kept)
    assert 2 * block <= most <= 2 * (block + padding)
    most, block, padding = peak(base, musubi_blocks_to_swap=2, **kept)
    assert 3 * block <= most <= 3 * block + padding


def test_one_layer_is_there_at_a_time() -> None:
    transformer, _, _ = made(**GROUPS, group_offload_type="leaf_level")
    layers = [module for module in transformer.modules() if type(module) is torch.nn.Linear and module.bias is not None]
    largest = max(frozen_bytes(layer) for layer in layers)
    small = sum(frozen_bytes(layer) for layer in transformer.modules() if not list(layer.children())) - sum(
        frozen_bytes(layer) for layer in layers
    )
    tables = 4 * (2 + 6 * LAYERS) * 64
    with watched(transformer) as seen:
        loss_of(transformer).backward()
    assert largest < max(seen) <= largest + small + tables + 512
    assert max(seen) < frozen_bytes(transformer) / 4


def test_released_weights_are_gone_and_come_back_by_themselves() -> None:
    transformer, _, offload = made(enable_model_cpu_offload=True)
    expected = loss_of(transformer.eval())
    assert offload.resident_bytes == sum(group.size for group in offload.groups) > 0.9 * frozen_bytes(transformer)
    offload.release()
    assert offload.resident_bytes == 0
    with watched(transformer) as seen:
        assert torch.equal(loss_of(transformer), expected)
    assert max(seen) >= frozen_bytes(transformer)


def test_what_is_trained_stays_and_homes_are_never_written() -> None:
    transformer, parameters, offload = made(**GROUPS)
    before = [group.home.clone() for group in offload.groups]
    trained((transformer, parameters, offload))
    offload.release()
    assert all(torch.equal(group.home, old) for group, old in zip(offload.groups, before, strict=True))
    assert all(parameter.untyped_storage().nbytes() >= parameter.nbytes for parameter in parameters.values())
    assert {id(p) for p in transformer.parameters() if p.requires_grad} == {id(p) for p in parameters.values()}


def ahead_of(**options: Any) -> Model:
    """As with a stream, but that the copies are made at once."""
    transformer, parameters, _ = made(**options)
    blocks = [[block] for block in transformer.transformer_blocks]
    return transformer, parameters, offload_groups(transformer, blocks, CPU, main_memory(CPU), ahead=True)


@pytest.mark.parametrize("kept", [{}, *CHECKPOINTING], ids=named)
def test_the_next_group_is_fetched_while_one_computes(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = ahead_of(**kept)
    assert_same(trained(model), plainly_trained("no_change"))
    late: list[int] = []
    entered: list[int] = []

    def enter(self: Offload, number: int, real: Any = Offload.enter) -> None:
        if not self.groups[number].here:
            late.append(number)
        entered.append(number)
        real(self, number)
        assert sum(group.here for group in self.groups) <= 2

    monkeypatch.setattr(Offload, "enter", enter)
    with torch.no_grad():
        loss_of(model[0])
    assert entered == [0, 1, 2, 3] and late in ([], [0])  # the pass's first may be away
    del late[:], entered[:]
    loss_of(model[0]).backward()
    assert len(entered) >= 2 * LAYERS and late in ([], [0])


def test_the_order_is_read_off_the_pass_before_of_the_same_kind() -> None:
    order, model = Order(), torch.nn.Linear(1, 1)
    training = [0, 1, 2, 2, 1, 2, 1, 0]  # a piece of two blocks is recomputed in between
    for _ in range(2):
        order.begin(model)
        told = [order.after(number) for number in training]
        with torch.no_grad():
            order.begin(model)
            [order.after(number) for number in (0, 1, 2)]
    assert told == [1, 2, 1, 1, 2, 1, 0, None]
    order.begin(model)
    assert [order.after(number) for number in (0, 2, 1)] == [1, None, None]  # not what it was


def test_a_folder_on_disk_holds_the_weights_and_nothing_is_left_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "offload"
    way = GROUPS | {"group_offload_to_disk_path": folder}
    model = made(**way)
    mapped = [line.split()[-2:] for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    assert len(mapped) == LAYERS and {word for _, word in mapped} == {"(deleted)"}
    assert list(folder.iterdir()) == []
    assert_same(trained(model), plainly_trained("no_change"))
    # Another run beside it, with other weights, has its own.
    assert_same(trained(made("int8-quanto", **way)), plainly_trained("int8-quanto"))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="group_offload_to_disk_path") as caught:
        made(**GROUPS, group_offload_to_disk_path=tmp_path / "file")
    assert caught.value.hint


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ltxtrain.model.offload_group.save_file", full)
    with pytest.raises(MachineError, match=r"no room left at .* what is offloaded needs about") as caught:
        made(**GROUPS, group_offload_to_disk_path=tmp_path)
    assert caught.value.hint and list(tmp_path.iterdir()) == []


def test_no_stream_is_used_off_cuda() -> None:
    _, _, offload = made(**GROUPS, group_offload_use_stream=True)
    assert offload.groups and not offload.ahead


def test_more_blocks_to_swap_than_there_are_are_refused() -> None:
    with pytest.raises(ModelError, match="musubi_blocks_to_swap is 5, and the transformer has 4 blocks"):
        made(musubi_blocks_to_swap=5)


def test_a_device_without_memory_of_its_own_is_refused() -> None:
    transformer, _, _ = made()
    with pytest.raises(MachineError, match="main memory"):
        place_transformer(transformer, torch.device("mps"), MemoryConfig(enable_group_offload=True))


def test_weights_are_loaded_where_they_are_to_lie() -> None:
    device = torch.device("cuda")
    assert loading_device("transformer", device, MemoryConfig()) == device
    groups = MemoryConfig(enable_group_offload=True, group_offload_vae=True)
    assert loading_device("transformer", device, groups) == loading_device("vae", device, groups) == CPU
    assert loading_device("text_encoder", device, groups) == device
    whole = MemoryConfig(enable_model_cpu_offload=True)
    assert loading_device("transformer", device, whole) == loading_device("vae", device, whole) == CPU
    assert loading_device("text_encoder", device, whole) == device
    assert loading_device("transformer", device, MemoryConfig(musubi_blocks_to_swap=3)) == CPU


def test_only_frozen_ordinary_tensors_without_gaps_are_moved() -> None:
    frozen = torch.nn.Parameter(torch.ones(4, 6), requires_grad=False)
    assert movable(frozen) and movable(torch.ones(3)) and movable(torch.ones(4, 6).t())
    assert not movable(torch.nn.Parameter(torch.ones(4, 6)))
    assert not movable(torch.ones(4, 6)[:, ::2]) and not movable(torch.ones(1, 6).expand(4, 6))
    assert not movable(torch.ones(0))

    class Wrapped(torch.Tensor):
        pass

    assert not movable(torch.ones(3).as_subclass(Wrapped))


def test_a_tensor_of_two_groups_stays() -> None:
    pair = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).requires_grad_(False)
    pair[1].weight = pair[0].weight
    expected = pair(torch.ones(2, 8))
    offload = offload_groups(pair, [[pair[0]], [pair[1]]], CPU, main_memory(CPU), ahead=False)
    assert pair[0].weight.untyped_storage().nbytes() and not pair[0].bias.untyped_storage().nbytes()
    assert torch.equal(pair(torch.ones(2, 8)), expected) and sum(group.size for group in offload.groups) == 2 * 256
