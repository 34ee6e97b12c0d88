"""The program's own words: commands, flags in every spelling, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltxtrain import __version__
from ltxtrain.cli import app
from ltxtrain.cli.app import COMMANDS, run
from ltxtrain.cli.options import own_words_and_flags, parse_flags
from ltxtrain.config.catalogue import options

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_a_clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LTXTRAIN_")]:
        monkeypatch.delenv(name)


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = run(words)
    out, err = capsys.readouterr()
    return code, out, err


def program(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "ltxtrain", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# commands


def test_help_lists_every_built_command_and_names_the_others(capsys: Captured) -> None:
    code, out, err = told(capsys, "--help")
    assert code == 0 and err == ""
    assert all(name in out for name in COMMANDS)
    assert told(capsys, "-h")[1] == out


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(capsys: Captured) -> None:
    code, out, _ = told(capsys)
    assert code == 2 and out.startswith("usage: ltxtrain COMMAND")


def test_the_version_is_printed(capsys: Captured) -> None:
    assert told(capsys, "--version") == (0, f"ltxtrain {__version__}\n", "")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.target])
def test_a_command_that_is_not_built_is_refused_by_name(capsys: Captured, name: str) -> None:
    code, out, err = told(capsys, name, "anything")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"error: the command {name} is not built yet"


def test_a_mistyped_command_is_answered_with_the_right_one(capsys: Captured) -> None:
    code, _, err = told(capsys, "trian")
    assert code == 2
    assert err == "error: there is no command 'trian'\nhint: did you mean train?\n"


def test_options_before_the_command_are_answered_with_the_order(capsys: Captured) -> None:
    code, _, err = told(capsys, "--preset", "smoke", "train")
    assert code == 2 and "options come after the command" in err


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_an_eval_set_that_is_asked_for_and_is_none_is_a_fault(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = told(capsys, command, "--preset", "smoke", "--data", "clips", "--eval-dataset-id", "held")
    assert code == 2 and "eval_dataset_id: held is no eval set" in err


@pytest.mark.parametrize("name", ["validate", "presets", "options", "schema"])
def test_each_command_has_its_own_help(capsys: Captured, name: str) -> None:
    code, out, _ = told(capsys, name, "--help")
    assert code == 0 and f"ltxtrain {name}" in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("presets", "--nothing"), "No such option"),
        (("options", "--nothing"), "No such option"),
        (("schema", "extra"), "unexpected extra argument"),
        (("validate", "--preset"), "requires an argument"),
        (("validate", "--config"), "requires an argument"),
        (("presets", "show"), "show NAME"),
        (("presets", "lst"), "show NAME"),
        (("presets", "show", "smok"), "did you mean smoke?"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_told_in_one_line(
    capsys: Captured, words: tuple[str, ...], problem: str
) -> None:
    code, out, err = told(capsys, *words)
    assert (code, out) == (2, "")
    first, *rest = err.splitlines()
    assert first.startswith("error: ") and problem in first
    assert all(line.startswith("hint: ") for line in rest)


# flags


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lora_rank=4"], {"lora_rank": "4"}),
        (["--lora-rank=4"], {"lora_rank": "4"}),
        (["--lora_rank", "4"], {"lora_rank": "4"}),
        (["--lora-rank", "4"], {"lora_rank": "4"}),
        (["--flow-schedule-shift", "-1"], {"flow_schedule_shift": "-1"}),
        (["--use-ema"], {"use_ema": True}),
        (["--use_ema=false"], {"use_ema": "false"}),
        (["--use-ema", "false"], {"use_ema": "false"}),
        (["--no-use-ema"], {"use_ema": False}),
        (["--no_use_ema"], {"use_ema": False}),
        (["--use-ema", "--lora-rank", "4"], {"use_ema": True, "lora_rank": "4"}),
        (["--data", "x", "--cache=y", "--output", "z"], {"data": "x", "cache": "y", "output": "z"}),
        (["--validation_prompt=a=b --c"], {"validation_prompt": "a=b --c"}),
        (["--resume-from-checkpoint="], {"resume_from_checkpoint": ""}),
        (
            ["--peft-lora-target-modules", "to_q", "--peft-lora-target-modules", "to_k"],
            {"peft_lora_target_modules": ["to_q", "to_k"]},
        ),
        (["--lora-rank", "4", "--lora_rank=4"], {"lora_rank": "4"}),
    ],
)
def test_flags_are_read_in_every_spelling(words: list[str], expected: dict[str, object]) -> None:
    assert parse_flags(words) == (expected, [])


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--lora-rnk", "4"], ["--lora-rnk: is not an option (did you mean --lora-rank?)"]),
        (["--lora_rnk=4"], ["--lora_rnk: is not an option (did you mean --lora-rank?)"]),
        (["--jsn"], ["--jsn: is not an option (did you mean --json?)"]),
        (["--lr", "1e-4"], ["--lr: is not an option (did you mean --learning-rate?)"]),
        (["--lora-rank"], ["--lora-rank: needs a value (--lora-rank=16)"]),
        (["--lora-rank", "--use-ema"], ["--lora-rank: needs a value (--lora-rank=16)"]),
        (["--lora-rank", "4", "--lora_rank", "8"], ["--lora-rank: is given twice with different values (keep one)"]),
        (["--no-lora-rank"], ["--no-lora-rank: --lora-rank takes a whole number, at least 1, at most 256"]),
        (["clips"], ["'clips' belongs to no option (options are written --name value)"]),
        (["--use-ema", "maybe"], ["'maybe' belongs to no option (--use-ema takes true or false)"]),
        (["lora_rank=4"], ["'lora_rank=4' belongs to no option"]),
        (["-r", "4"], ["'-r' belongs to no option", "'4' belongs to no option"]),
        (["--hf-token", "hf_SECRETVALUE1abcdefgh"], ["--hf-token: a secret does not belong on a command line"]),
        (["hf_SECRETVALUE1abcdefgh"], ["(not shown) belongs to no option"]),
        (["--repeats", "3"], ["--repeats: has no effect: it is set for each data set (leave it out)"]),
    ],
)
def test_flags_that_cannot_be_read_are_told(words: list[str], lines: list[str]) -> None:
    flags, faults = parse_flags(words, own=["--json", "--preset"])
    found = [str(fault) for fault in faults]
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found
    assert "SECRET" not in "".join(found)
    assert flags in ({}, {"lora_rank": "4"}, {"use_ema": True})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lora-rank", "4", "a cat"], (["a cat"], ["--lora-rank", "4"])),
        (["--use-ema", "a cat", "--to", "x"], (["a cat", "--to", "x"], ["--use-ema"])),
        (["--use-ema", "no", "a cat"], (["a cat"], ["--use-ema", "no"])),
        (["--no-use-ema", "a cat"], (["a cat"], ["--no-use-ema"])),
        (["--to", "x", "--lora_rank=4", "a cat"], (["--to", "x", "a cat"], ["--lora_rank=4"])),
        (["--lora-rnk", "4", "a cat"], (["a cat"], ["--lora-rnk", "4"])),
        (["--data", "clips", "a cat"], (["a cat"], ["--data", "clips"])),
    ],
)
def test_the_value_of_a_flag_is_not_taken_for_an_argument(
    words: list[str], expected: tuple[list[str], list[str]]
) -> None:
    assert own_words_and_flags(words, ["--to"]) == expected


def test_a_mistyped_flag_is_told_even_when_it_swallows_an_argument(capsys: Captured) -> None:
    code, _, err = told(capsys, "sample", "--lora-rank", "4", "--validation-sed", "a cat")
    assert code == 2
    assert err.splitlines()[0] == "error: --validation-sed: is not an option (did you mean --validation-seed?)"
    code, _, err = told(capsys, "sample", "--lora-rank", "4")
    assert code == 2 and "PROMPT" in err.splitlines()[0]


def test_what_this_machine_cannot_compute_is_told_before_anything_is_rendered(capsys: Captured) -> None:
    asked = ("--attention-mechanism", "xformers", "--memory-budget-gb", "8")
    code, out, err = told(capsys, "sample", "a cat", "--preset", "smoke", *asked)
    assert (code, out) == (4, "")
    assert err.splitlines() == [
        "note: memory_budget_gb chooses nothing here; what it chose for a run stays (--adapter FOLDER)",
        "error: attention_mechanism xformers does not work on a CPU",
        "hint: set attention_mechanism to diffusers",
    ]


def test_the_folder_of_offloaded_weights_is_looked_at_before_anything_is_rendered(
    capsys: Captured, tmp_path: Path
) -> None:
    (file := tmp_path / "file").touch()
    asked = ("--enable-group-offload", "--group-offload-to-disk-path", str(file / "weights"))
    code, _, err = told(capsys, "sample", "a cat", "--preset", "smoke", *asked)
    assert code == 4 and err.startswith(f"error: nothing can be written to {file / 'weights'} (")


def test_every_option_is_a_flag_and_a_variable(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is given a value that no option takes, so that each must answer under its own name."""
    names = [name for name, option in options().items() if "text" not in option.kinds and "path" not in option.kinds]
    assert len(names) > 200
    code, _, err = told(capsys, "validate", *(f"{options()[name].flag}=[~" for name in names))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert [line.split(": ")[1] for line in lines] == [options()[name].flag for name in names]
    for name in names:
        monkeypatch.setenv(options()[name].variable, "[~")
    err = told(capsys, "validate")[2]
    found = {tuple(line.split(": ")[1:3]) for line in err.splitlines() if line.startswith("error: ")}
    assert found == {(options()[name].variable, name) for name in names}


def test_faults_of_flags_and_files_are_told_together(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"seed": "x"}', encoding="utf-8")
    code, _, err = told(capsys, "validate", "--config", "c.json", "--lora-rnk", "4", "--learning-rate", "fast")
    assert code == 2
    assert err.splitlines() == [
        "error: --lora-rnk: is not an option (did you mean --lora-rank?)",
        "error: c.json:1: seed: 'x' is not a whole number, at least 0",
        "error: --learning-rate: 'fast' is not a number, above 0, at most 10",
    ]


# validate


def test_a_good_configuration_is_told_in_words_on_stderr_only(capsys: Captured) -> None:
    code, out, err = told(capsys, "validate", "--preset", "smoke")
    assert (code, out) == (0, "")
    assert "the configuration is good" in err and "not built yet" in err


def test_explain_prints_every_value_and_its_source(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTXTRAIN_SEED", "5")
    code, out, _ = told(capsys, "validate", "--preset", "smoke", "--lora-rank", "4", "--explain")
    lines = out.splitlines()
    assert code == 0
    assert "lora_rank = 4  # --lora-rank" in lines
    assert "seed = 5  # LTXTRAIN_SEED" in lines
    assert "num_frames = 17  # preset smoke" in lines
    assert "lora_dropout = 0.0  # default" in lines
    assert sum(" = " in line for line in lines) == len(options())


def test_a_secret_is_shown_neither_as_a_command_nor_as_a_preset_nor_as_a_value(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_SECRETVALUE1abcdefgh"
    monkeypatch.setenv("HOOK", secret)
    hook = '{"quantization_config": {"auth_token": "{env:HOOK}"}}'
    (tmp_path / "c.json").write_text(hook, encoding="utf-8")
    monkeypatch.setattr("ltxtrain.config.load.asked_unbuilt", lambda config, sources: {})
    seen = [told(capsys, secret), told(capsys, "validate", "--preset", secret), told(capsys, "validate", secret)]
    seen += [told(capsys, "validate", "--config", "c.json", flag) for flag in ("--explain", "--json")]
    assert [code for code, _, _ in seen] == [2, 2, 2, 0, 0]
    assert "SECRET" not in str(seen)
    assert 'quantization_config = "(not shown)"' in seen[3][1]


def test_validate_as_json_is_data_on_stdout(capsys: Captured) -> None:
    code, out, err = told(capsys, "validate", "--preset", "smoke", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["ok"] is True
    assert found["values"]["lora_rank"] == {"value": 8, "source": "preset smoke"}
    code, out, err = told(capsys, "validate", "--lora-rank", "0", "--json")
    assert code == 2 and err.startswith("error: --lora-rank")
    assert json.loads(out) == {
        "ok": False,
        "faults": [{"key": "--lora-rank", "problem": "0 is out of range: at least 1", "source": "", "suggestion": ""}],
    }


def test_a_list_of_data_sets_is_checked_when_it_is_there_and_told_when_it_is_not(
    capsys: Captured, tmp_path: Path
) -> None:
    code, _, err = told(capsys, "validate", "--data-backend-config", "backend.json")
    assert code == 0 and "backend.json is not on this machine" in err
    (tmp_path / "backend.json").write_text('[{"id": "a", "cache_dir_vae": "x"}]', encoding="utf-8")
    code, _, err = told(capsys, "validate", "--data-backend-config", "backend.json")
    assert code == 2 and "error: backend.json:1: a.instance_data_dir: is missing" in err


def test_what_is_not_built_can_be_put_aside(capsys: Captured) -> None:
    code, _, err = told(capsys, "validate", "--preset", "bf16-multi-gpu")
    assert code == 2
    assert "hint: --set-aside-unbuilt goes on without" in err
    code, _, err = told(capsys, "validate", "--preset", "bf16-multi-gpu", "--set-aside-unbuilt")
    assert code == 0
    assert "note: preset bf16-multi-gpu: num_processes: 2 is not built yet: set aside" in err


def test_several_presets_and_files_are_stacked(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("lora_rank = 3\n", encoding="utf-8")
    (tmp_path / "b.toml").write_text("seed = 3\n", encoding="utf-8")
    words = ("--preset", "smoke", "--preset", "rocm-mi300x", "--config", "a.toml", "--config", "b.toml")
    found = json.loads(told(capsys, "validate", *words, "--json")[1])["values"]
    assert found["lora_rank"]["source"] == "a.toml:1"
    assert found["seed"]["source"] == "b.toml:1"
    assert found["resolution"]["source"] == "preset rocm-mi300x"
    assert found["num_frames"]["source"] == "preset smoke"


# the program itself


@pytest.mark.parametrize(
    "words", [["--help"], ["validate", "--preset", "smoke"], ["validate", "--help"], ["options", "lora"], ["schema"]]
)
def test_no_torch_is_imported(words: list[str]) -> None:
    heavy = {"torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "av", "rich"}
    code = (
        "import sys\nfrom ltxtrain.cli.app import run\n"
        f"assert run({words!r}) == 0\nprint('HEAVY', sorted({heavy!r} & set(sys.modules)))"
    )
    done = program(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_imports_nothing_but_the_table_of_commands() -> None:
    code = (
        "import sys\nfrom ltxtrain.cli.app import run\nrun(['--help'])\n"
        "print('HEAVY', sorted({'typer', 'pydantic', 'pydantic_settings', 'torch'} & set(sys.modules)))"
    )
    assert program(code=code).stdout.splitlines()[-1] == "HEAVY []"


def test_a_fault_leaves_with_exit_code_2_and_no_traceback() -> None:
    done = program("validate", "--lora-rank", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --lora-rank: 0 is out of range: at least 1\n"


def test_names_of_files_do_not_steer_the_terminal(capsys: Captured, tmp_path: Path) -> None:
    hostile = "clips\x1b]0;owned\x07\u202egpj"
    for words in (["validate", "--config", f"{hostile}.toml"], ["train", "--data", str(tmp_path / hostile)]):
        _, out, err = told(capsys, *words)
        assert err.startswith("error: ") and not {"\x1b", "\x07", "\u202e"} & set(out + err), ascii(err)


def test_words_of_an_error_of_the_system_do_not_steer_the_terminal(capsys: Captured) -> None:
    code = app._tell(["a\x1b[2Jb"], "c\u202ed", 3)
    assert (code, capsys.readouterr().err) == (3, "error: a\\x1b[2Jb\nhint: c\\u202ed\n")


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for words in (["--debug", "validate", "--lora-rank", "0"], ["validate", "--lora-rank", "0", "--debug"]):
        done = program(*words)
        assert done.returncode != 0
        assert "Traceback" in done.stderr and "ConfigError" in done.stderr


def test_a_reader_that_goes_away_is_no_defect() -> None:
    done = subprocess.run(
        f"{sys.executable} -m ltxtrain options | head -n 1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("[model]")
    assert done.stderr == ""
