from __future__ import annotations

import io
import re

from ltxtrain.events import Event, MemoryMeasured, Notice, StageDone, StageProgress, StageStarted, StepDone
from ltxtrain.listeners.lines import LineListener


class HandClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(number: int, total: int, loss: float) -> StepDone:
    return StepDone(number, total, 1, loss, 1e-4, 0.3, 1.5, 0.7)


def lines_for(events: list[Event], *, every: int | None = None, seconds: float = 1.0) -> list[str]:
    stream, clock = io.StringIO(), HandClock()
    with LineListener(stream, every, clock) as listener:
        for event in events:
            clock.now += seconds
            listener(event)
    return stream.getvalue().splitlines()


def steps_of(lines: list[str]) -> list[int]:
    return [int(found.group(1)) for line in lines if (found := re.match(r"step (\d+)/", line))]


def test_a_line_for_the_first_step_and_each_tenth() -> None:
    lines = lines_for([StageStarted("training", 200, 0, "steps"), *(step(n, 200, 1.0) for n in range(1, 201))])
    assert steps_of(lines) == [1, *range(20, 201, 20)]


def test_a_line_each_so_many_steps_when_asked() -> None:
    lines = lines_for([StageStarted("training", 20, 0, "steps"), *(step(n, 20, 1.0) for n in range(1, 21))], every=5)
    assert steps_of(lines) == [1, 5, 10, 15, 20]


def test_slow_steps_are_told_after_half_a_minute_of_silence() -> None:
    events: list[Event] = [StageStarted("training", 2000, 0, "steps"), *(step(n, 2000, 1.0) for n in range(1, 201))]
    told = steps_of(lines_for(events, seconds=3.6))
    assert told[:3] == [1, 10, 19] and told[-1] == 200
    assert len(told) >= 22, "twelve minutes"


def test_steps_of_more_than_half_a_minute_are_all_told() -> None:
    events: list[Event] = [StageStarted("training", 1000, 0, "steps"), *(step(n, 1000, 1.0) for n in range(1, 10))]
    assert steps_of(lines_for(events, seconds=35.0)) == list(range(1, 10))


def test_the_loss_is_the_mean_since_the_line_before() -> None:
    losses = [8.0, 1.0, 2.0, 3.0, 4.0]
    lines = lines_for([step(n, 5, loss) for n, loss in enumerate(losses, start=1)], every=5)
    assert [re.search(r"loss ([\d.]+)", line).group(1) for line in lines] == ["8.0000", "2.5000"]


def test_a_step_line_tells_share_rate_pace_and_remaining_time() -> None:
    lines = lines_for([StageStarted("training", 100, 0, "steps"), *(step(n, 100, 0.5) for n in range(1, 11))])
    assert lines[0] == "training: 100 steps"
    assert lines[-1] == "step 10/100 (10 %), loss 0.5000, lr 1.0e-04, 1.50 s/step, ETA 1 min 30 s"


def test_stages_tell_where_they_start_and_how_long_they_took() -> None:
    lines = lines_for(
        [
            StageStarted("latents", 12, 3, "clips"),
            *(StageProgress("latents", done) for done in range(4, 13)),
            StageDone("latents", 75.0, "9 clips encoded"),
        ]
    )
    assert lines[0] == "latents: 12 clips, 3 of them there already"
    assert lines[1] == "latents: 4/12 (33 %)"
    assert lines[2] == "latents: 6/12 (50 %), ETA 6.0 s"
    assert lines[-1] == "latents: done in 1 min 15 s, 9 clips encoded"


def test_a_stage_that_is_done_in_a_moment_says_little() -> None:
    events: list[Event] = [StageStarted("latents", 500, 0, "clips")]
    events += [StageProgress("latents", done) for done in range(1, 501)]
    lines = lines_for([*events, StageDone("latents", 1.5)], seconds=0.003)
    assert lines == ["latents: 500 clips", "latents: 350/500 (70 %), ETA 0.4 s", "latents: done in 1.5 s"]


def test_a_stage_with_nothing_to_count_is_announced() -> None:
    assert lines_for([StageStarted("transformer")]) == ["loading the transformer ..."]


def test_one_is_singular() -> None:
    assert lines_for([StageStarted("validation", 1, 0, "videos")]) == ["validation: 1 video"]
    assert lines_for([StageStarted("latents", 1, 1, "clips")]) == ["latents: 1 clip, 1 of them there already"]
    assert lines_for([StageStarted("rendering", 2, 0, "videos")]) == ["rendering: 2 videos"]


def test_every_event_of_a_run_gives_whole_plain_lines(run_events: list[Event]) -> None:
    lines = lines_for(run_events)
    text = "\n".join(lines)
    assert "\x1b" not in text and "\r" not in text
    assert "asked for 125 frames, training 121" in lines
    assert "warning: bottles.mp4 has a variable frame rate" in lines
    assert "checkpoint at step 10: checkpoints/step-00000010 (2.0 KiB, 0.2 s)" in lines
    assert "evaluation loss at step 10: 0.8123 (held-out, 2 sigmas, 3.0 s)" in lines
    assert "video at step 10: samples/step-00000010/ball.mp4 (3.0 s)" in lines
    assert steps_of(lines) == [1, *range(2, 21, 2)]


def test_what_a_phase_took_stands_beside_its_estimate() -> None:
    gib = 1024**3
    tried = MemoryMeasured("training", "cuda", 9 * gib, 7 * gib, 8 * gib, 8 * gib + gib // 2, "probe", "2 x 480x480@49")
    run = MemoryMeasured("latents", "cpu", gib, None, None, 2 * gib, "run")
    assert lines_for([tried, run]) == [
        "memory of training in a trial (2 x 480x480@49): 7.0 GiB in tensors, 8.5 GiB in use; estimated 9.0 GiB",
        "memory of latents: 2.0 GiB in use; estimated 1.0 GiB, which is less",
    ]


def test_a_notice_cannot_fake_a_second_line() -> None:
    assert lines_for([Notice("a\nwarning: b\x1b[31m")]) == ["a\\nwarning: b\\x1b[31m"]
