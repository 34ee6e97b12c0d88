"""What optimisers refuse, where their state lies, and the weights that averaging ones stand for."""

from __future__ import annotations

import contextlib
import sys

import pytest
import torch

from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.errors import CheckpointError, ConfigError
from ltxtrain.learn.optimizers import (
    clip_gradients,
    evaluating,
    let_go,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    take_over,
)

REFUSED = [name for name, facts in OPTIMIZERS.items() if facts.verdict.refused]


def weights_of(dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    values = {"down": torch.randn(64, 80, generator=generator), "up": torch.zeros(8, 4)}
    return {name: torch.nn.Parameter(value.to(dtype)) for name, value in values.items()}


def step(weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
    give_gradients(weights, number)
    optimizer.step()


def give_gradients(weights: dict[str, torch.nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)


def made(weights: dict[str, torch.nn.Parameter], name: str, **more: object) -> torch.optim.Optimizer:
    section = OptimizerConfig(**{"optimizer": name, "learning_rate": 0.01, **more})  # type: ignore[arg-type]
    return make_optimizer(weights, section, 0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_works_nowhere_is_refused_with_the_nearest_that_does(name: str) -> None:
    with pytest.raises(ConfigError, match="optimizer: ") as caught:
        made(weights_of(), name)
    nearest = OPTIMIZERS[name].verdict.instead
    assert nearest in str(caught.value)
    made(weights_of(), nearest)


def test_a_package_that_is_not_there_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimi", None)
    with pytest.raises(ConfigError, match="pip install 'torch-optimi', or use torch-adamw"):
        made(weights_of(torch.bfloat16), "optimi-lion")


def test_the_fused_kernel_of_optimi_is_asked_for_and_named_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optimi.optimizer.HAS_TRITON", False)
    with pytest.raises(ConfigError, match=r"Triton could not be imported.*set fuse_optimizer to false"):
        made(weights_of(torch.bfloat16), "optimi-lion", fuse_optimizer=True)
    made(weights_of(torch.bfloat16), "optimi-lion")


def test_muon_says_so_where_weights_are_no_matrices() -> None:
    with pytest.raises(ConfigError, match="muon cannot be made"):
        made({"bias": torch.nn.Parameter(torch.zeros(4))}, "muon")


def test_low_bit_steps_of_torchao_need_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("a compiler was asked for")

    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiled)
    weights = weights_of()
    before = weights["down"].detach().clone()
    step(weights, made(weights, "ao-adamw8bit"), 0)
    assert not torch.equal(weights["down"], before)
    with pytest.raises(Exception, match="a compiler was asked for"):
        step(weights, made(weights, "ao-adamw8bit", fuse_optimizer=True), 0)
    torch._dynamo.reset()


def test_fused_kernels_of_torch_are_used_when_asked_for() -> None:
    for name in ("torch-adam", "torch-adamw", "torch-sgd", "torch-adagrad"):
        assert made(weights_of(), name, fuse_optimizer=True).param_groups[0]["fused"] is True
        assert not made(weights_of(), name).param_groups[0].get("fused")


def test_a_fused_kernel_goes_on_from_its_state() -> None:
    weights = weights_of()
    optimizer = made(weights, "torch-adamw", fuse_optimizer=True)
    step(weights, optimizer, 0)
    resumed = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    other = made(resumed, "torch-adamw", fuse_optimizer=True)
    load_optimizer_tensors(other, list(resumed), optimizer_tensors(optimizer, list(weights)))
    for each, its in ((weights, optimizer), (resumed, other)):
        step(each, its, 1)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


WITHOUT_VALUES = [
    name
    for name, facts in OPTIMIZERS.items()
    if not facts.verdict.refused and facts.library not in ("bitsandbytes", "torchao", "prodigyopt")  # they need values
]


def places(weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """The kind of device that each tensor of the state lies on."""
    states = {key: optimizer.state[weight] for key, weight in weights.items()}
    tensors = {f"{key}: {each}": value for key, state in states.items() for each, value in state.items()}
    return {key: value.device.type for key, value in tensors.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_restored_state_lies_where_the_optimiser_itself_keeps_it(name: str) -> None:
    """On a device other than the CPU. The one here computes nothing, so that a step may end early: the state is there
    by then."""
    here = weights_of(getattr(torch, OPTIMIZERS[name].dtype))
    optimizer = made(here, name)
    step(here, optimizer, 0)
    afar, restored = ({key: torch.nn.Parameter(w.detach().to("meta")) for key, w in here.items()} for _ in range(2))
    its, other = made(afar, name), made(restored, name)
    for weight in afar.values():
        weight.grad = torch.empty_like(weight)
    with contextlib.suppress(RuntimeError):
        its.step()
    load_optimizer_tensors(other, list(restored), optimizer_tensors(optimizer, list(here)))
    assert places(restored, other) == places(afar, its)


def test_schedule_free_stands_for_the_mean_of_its_points_and_trains_on_from_where_it_was() -> None:
    """Defazio et al. 2024: with a constant rate, x is the plain mean of z, and y lies between the two."""
    weights = weights_of()
    optimizer = made(weights, "adamw_schedulefree")
    points = []
    for number in range(6):
        step(weights, optimizer, number)
        points.append(optimizer.state[weights["down"]]["z"].clone())
    trained = weights["down"].detach().clone()
    with evaluating(optimizer):
        mean = torch.stack(points).mean(0)
        assert torch.allclose(weights["down"], mean, atol=1e-6)
        assert torch.allclose(trained, 0.9 * mean + 0.1 * points[-1], atol=1e-6)
        with evaluating(optimizer):
            assert torch.allclose(weights["down"], mean, atol=1e-6)
        assert torch.allclose(weights["down"], mean, atol=1e-6)
    assert torch.equal(weights["down"], trained)
    step(weights, optimizer, 6)


@pytest.mark.parametrize("place", ["none", "torchao"])
@pytest.mark.parametrize("name", ["adamw_schedulefree", "torch-adamw", "adamw_bf16"])
def test_evaluating_before_the_first_step_or_with_an_error_inside_changes_nothing(name: str, place: str) -> None:
    dtype = torch.bfloat16 if name == "adamw_bf16" else torch.float32
    weights, others = weights_of(dtype), weights_of(dtype)
    optimizer, other = (made(its, name, optimizer_cpu_offload_method=place) for its in (weights, others))
    for number in range(3):
        before = {key: weight.detach().clone() for key, weight in weights.items()}
        with pytest.raises(KeyError), evaluating(optimizer):
            assert number < 2 or name != "adamw_schedulefree" or not torch.equal(weights["down"], before["down"])
            raise KeyError(name)
        assert all(torch.equal(weights[key], before[key]) for key in weights)
        step(weights, optimizer, number)
        step(others, other, number)
        assert all(torch.equal(weights[key], others[key]) for key in weights), "of which nothing was evaluated"


def test_the_state_of_another_optimiser_is_refused() -> None:
    weights = weights_of()
    optimizer = made(weights, "bnb-lion8bit")
    step(weights, optimizer, 0)
    saved = optimizer_tensors(optimizer, list(weights))
    with pytest.raises(CheckpointError, match="state of bnb-lion8bit, which bnb-lion cannot") as caught:
        load_optimizer_tensors(made(weights_of(), "bnb-lion"), list(weights), saved)
    assert "--optimizer bnb-lion8bit" in str(caught.value.hint)


def test_state_without_a_name_is_that_of_torch_adamw() -> None:
    """Checkpoints of versions that knew no other optimiser."""
    weights = weights_of()
    optimizer = made(weights, "torch-adamw")
    step(weights, optimizer, 0)
    saved = {label: value for label, value in optimizer_tensors(optimizer, list(weights)).items() if label[-1] != "|"}
    load_optimizer_tensors(made(weights, "torch-adamw"), list(weights), saved)
    with pytest.raises(CheckpointError, match="state of torch-adamw"):
        load_optimizer_tensors(made(weights, "torch-adam"), list(weights), saved)


@pytest.mark.parametrize(
    ("name", "then", "now"),
    [
        ("torch-adam", "", "amsgrad=true"),
        ("torch-rmsprop", "", "momentum=0.9"),
        ("torch-rmsprop", "", "centered=true"),
        ("bnb-adamw8bit", "", "min_8bit_size=100000"),
        ("prodigy", "", "slice_p=5"),
        ("prodigy", "", "d0=0.001"),
        ("optimi-sgd", "", "momentum=0.9"),
        ("soap", "", "max_precondition_dim=70"),
    ],
)
def test_a_setting_that_needs_other_state_cannot_be_changed_in_the_middle_of_a_run(
    name: str, then: str, now: str
) -> None:
    dtype = torch.bfloat16 if name.startswith("optimi") else torch.float32
    weights = weights_of(dtype)
    optimizer = made(weights, name, optimizer_config=then)
    step(weights, optimizer, 0)
    saved = optimizer_tensors(optimizer, list(weights))
    with pytest.raises(CheckpointError, match=r"the checkpoint|another form") as caught:
        load_optimizer_tensors(made(weights_of(dtype), name, optimizer_config=now), list(weights), saved)
    assert caught.value.hint


STEPPED = [name for name, facts in OPTIMIZERS.items() if facts.library == "bitsandbytes" and not facts.paged]


@pytest.mark.parametrize("name", STEPPED)
def test_bitsandbytes_steps_without_waiting_to_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.Tensor] = []
    monkeypatch.setattr("bitsandbytes.optim.optimizer.sync_gpu", waits.append)
    weights, others = weights_of(), weights_of()
    optimizer, other = made(weights, name), made(others, name)
    own = type(other).__mro__[2]
    assert own.__module__.startswith("bitsandbytes")
    for number in range(3):
        step(weights, optimizer, number)
    assert not waits
    for number in range(3):
        give_gradients(others, number)
        own.step(other)
    assert len(waits) == 6
    assert all(torch.equal(weights[key], others[key]) for key in weights)


@pytest.mark.parametrize(("rows", "paged"), [(99, False), (100, True)])
def test_states_are_paged_where_a_tensor_is_large_enough(rows: int, paged: bool) -> None:
    """Of 1000 columns. bitsandbytes leaves smaller ones where they are, and waits for none then."""
    for name in ("bnb-lion8bit-paged", "bnb-ademamix-paged"):
        optimizer = made({"down": torch.nn.Parameter(torch.empty(rows, 1000, device="meta"))}, name)
        assert optimizer.is_paged == paged
        assert ("step" in vars(type(optimizer).__mro__[1])) == (not paged)


def test_gradients_that_are_sent_to_main_memory_are_clipped_by_the_norm_of_all() -> None:
    chosen = OptimizerConfig(
        max_grad_norm=0.5, optimizer_cpu_offload_method="torchao", optimizer_offload_gradients=True
    )
    sent, kept = weights_of(), weights_of()
    optimizer, other = make_optimizer(sent, chosen, 0), made(kept, "torch-adamw", learning_rate=1e-4, max_grad_norm=0.5)
    for number in range(2):
        for weights in (sent, kept):
            sum((weight * number - 1).square().sum() for weight in weights.values()).backward()  # type: ignore[union-attr]
        assert float(clip_gradients(optimizer, chosen)) == float(clip_gradients(other, chosen))
        optimizer.step()
        other.step()
        other.zero_grad(set_to_none=True)
    assert all(torch.equal(sent[key], kept[key]) for key in sent)
    moments = [value for key, value in optimizer_tensors(optimizer, list(sent)).items() if key.startswith("exp_avg|")]
    assert float(torch.linalg.vector_norm(torch.cat([each.flatten() for each in moments]))) < 0.1


def test_an_update_in_main_memory_is_of_copies_and_gradients_can_be_thrown_away_before_it() -> None:
    """As float16's loss scale does after an overflow."""
    moved, kept = weights_of(), weights_of()
    optimizer, other = made(moved, "torch-adamw", optimizer_cpu_offload_method="torchao"), made(kept, "torch-adamw")
    held = {weight.data_ptr() for weight in moved.values()}
    give_gradients(moved, 5)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in moved.values())
    for weights, its in ((moved, optimizer), (kept, other)):
        step(weights, its, 0)
    optimizer.zero_grad()
    optimizer.step()  # nothing is left to step by
    assert all(torch.equal(moved[key], kept[key]) for key in moved)
    assert {weight.data_ptr() for weight in moved.values()} == held
    assert not held & {each.data_ptr() for each in optimizer.param_groups[0]["params"]}


def test_gradients_are_the_last_optimisers_from_when_the_one_before_lets_go() -> None:
    weights = weights_of()
    first, second = (
        made(weights, "torch-sgd", learning_rate=rate, max_grad_norm=0, optimizer_release_gradients=True)
        for rate in (2.0, 4.0)
    )
    let_go(first)
    before = weights["down"].detach().clone()
    weights["down"].sum().backward()
    assert torch.equal(weights["down"], before - 4)
    let_go(second)
    take_over(first)
    weights["down"].sum().backward()
    assert torch.equal(weights["down"], before - 4 - 2)
