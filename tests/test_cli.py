"""The command line: what it prints, what it says of mistakes, and how it exits."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes.sound import EXAMPLE, MODULE

from refimpl.baselines.committed import require_unused_seeds
from refimpl.cli import main, suite_process
from refimpl.cli.commands.data import data
from refimpl.cli.progress import final_line
from refimpl.data import cache_root
from refimpl.errors import UnknownNameError
from refimpl.loading import registry
from refimpl.loading.listing import listed
from refimpl.seeds import FIRST_SEED, SEEDS_OF_A_BASELINE
from refimpl.training import loop
from refimpl.training.checkpoint import load
from refimpl.training.loop import train
from refimpl.training.problem import pose

TESTS = Path(__file__).parent
SOUND = ("--plugin", str(TESTS / "fakes" / "sound.py"))
SIGN_ERROR = ("--plugin", str(TESTS / "fakes" / "sign_error.py"))


@dataclass
class Ran:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def complaint(self):
        """Its error, which must be one line and all there is."""
        assert self.out == ""
        assert re.fullmatch(r"refimpl: .+\n", self.err), self.err
        return self.err.removeprefix("refimpl: ").rstrip("\n")


@pytest.fixture
def refimpl(capsys):
    """Runs a command in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(ended.value.code or 0, out, err)

    return run


def process(*arguments, program="-m refimpl", cwd=None):
    """Runs a command in a process of its own."""
    return subprocess.run(
        [sys.executable, *program.split(), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


@pytest.fixture
def untrained(monkeypatch):
    """Fails the test if anything is trained."""

    def refuse(*arguments, **options):
        pytest.fail("it was trained first")

    monkeypatch.setattr(loop, "train", refuse)


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin."""

    def write(text, name="made.py"):
        (tmp_path / name).write_text(text)
        return "--plugin", str(tmp_path / name)

    return write


# --- baselines and manifest ----------------------------------------------------------------------


def test_an_audit_states_both_error_rates_of_every_figure(refimpl):
    ran = refimpl("audit", "titanic-dnn")
    assert ran.status == 0
    assert "titanic-dnn · script · stand-in: 50 runs; an unchanged program fails" in ran.out
    assert "val_accuracy" in ran.out
    assert "an unchanged program fails any of 5 limits with probability 3.2e-05" in ran.out


def test_an_audit_as_json_has_every_figure(refimpl):
    ran = refimpl("audit", "titanic-dnn", "--json")
    found = json.loads(ran.out)
    assert found["holds"]
    assert {figure["metric"] for figure in found["figures"]} == {
        "loss", "accuracy", "val_loss", "val_accuracy",
    }  # fmt: skip


def test_an_audit_with_fresh_runs_writes_a_summary(refimpl, tmp_path):
    page = tmp_path / "audit.md"
    fresh = TESTS.parent / "fixtures" / "audit"
    ran = refimpl("audit", "titanic-dnn", "--fresh", fresh, "--table", page)
    assert ran.status == 0
    assert "fresh runs: 0 false alarms in" in page.read_text("utf-8")
    rows = [row.split(" | ") for row in page.read_text("utf-8").splitlines() if row[:2] == "| "]
    assert sum(row[-1] == "inside |" for row in rows) == 4  # the figures that the document prints
    # Four figures on each tier, and ranges for one and four of them.
    by_tier = {row[1]: row for row in rows if row[0] == "| titanic-dnn"}
    assert {tier: row[2] for tier, row in by_tier.items()} == {"stand-in": "5", "real": "8"}
    assert {row[-1] for row in by_tier.values()} == {"none |"}
    assert int(by_tier["stand-in"][6].replace(",", "")) > 0 == int(by_tier["real"][6])


def test_an_audit_of_nothing_fails(refimpl):
    ran = refimpl("audit", "autograd")
    assert (ran.status, ran.out) == (1, "FAILED no baseline was found, so nothing was audited\n")


def test_what_trains_nothing_has_no_baseline_to_make(refimpl):
    ran = refimpl("calibrate", "autograd")
    assert ran.status == 1
    assert "no named example trains here" in ran.err


def test_a_baseline_of_real_data_that_is_not_here_says_so(refimpl, no_data):
    assert "not complete" in refimpl("calibrate", "titanic-dnn", "--data", "real").complaint


# --- golden --------------------------------------------------------------------------------------


def test_an_example_that_trains_nothing_has_no_golden_and_nothing_is_compared(refimpl):
    ran = refimpl("golden", "tensors")
    assert ran.status == 1
    assert ran.out == "tensors: trains nothing, so it has no golden trajectory\n"
    assert re.fullmatch(r"refimpl: nothing was compared: .*\n", ran.err)


def test_every_variant_without_a_golden_is_named(refimpl):
    ran = refimpl("golden", "fake-sound", *SOUND)
    assert ran.status == 1
    assert ran.out.splitlines() == [
        f"fake-sound: {variant} is not compared: it has no golden trajectory; "
        "refimpl golden fake-sound --update makes it"
        for variant in ("scratch", "module")
    ]
    assert "nothing was compared" in ran.err


def test_a_golden_of_one_example_is_enough_to_have_compared_something(refimpl):
    ran = refimpl("golden", "titanic-dnn", "tensors")
    assert (ran.status, ran.err) == (0, "")
    assert "titanic-dnn: script here against its golden trajectory" in ran.out
    assert "tensors: trains nothing" in ran.out


def test_where_there_is_nothing_to_make_a_golden_of_that_is_an_error(refimpl):
    ran = refimpl("golden", "tensors", "--update")
    assert ran.status == 1
    assert ran.complaint.startswith("nothing was written")


# --- help and lists ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["run", "--help"],
        ["check", "-h"],
        ["run", "titanc"],
    ],
    ids=" ".join,
)
def test_lists_and_help_and_wrong_names_import_no_torch(arguments):
    program = (
        "import sys; from refimpl.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )
    loaded = set(ran.stderr.splitlines()[-1].split())
    assert "refimpl.cli.main" in loaded
    assert loaded.isdisjoint({"torch", "numpy"})


def test_the_list_has_every_example_of_the_tree_and_of_plugins(refimpl):
    ran = refimpl("list", *SOUND)
    assert ran.status == 0
    assert ran.err == ""
    for name in ("linear-regression-1d", "mnist-logistic", "titanic-dnn", "ring-dnn", "fake-sound"):
        assert re.search(rf"^{name} ", ran.out, re.MULTILINE)


@pytest.mark.parametrize("group", [[], ["data"]], ids=" ".join)
def test_the_help_has_each_command_on_a_line_of_its_own_and_whole(group):
    asked = CliRunner().invoke(main.cli, [*group, "--help"], terminal_width=80)
    lines = asked.output.partition("Commands:\n")[2].splitlines()
    assert len(lines) == len((data if group else main.cli).commands)
    for line in lines:
        assert re.match(r"  [a-z]+ +\S", line)
        assert "..." not in line
        assert len(line) <= 80


def test_a_list_that_goes_to_another_program_has_a_line_for_each_example(refimpl, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    head, *lines = refimpl("list", *SOUND).out.splitlines()
    assert head.split() == ["example", "document", "variants", "title"]
    assert [line.split()[0] for line in lines] == [entry.name for entry in listed(SOUND[1:])]
    (own,) = (line for line in lines if line.startswith("fake-sound"))
    assert own.rstrip().split("  ")[-1].strip() == f"A plane through points (file {SOUND[1]})"


def test_the_list_as_json_is_what_the_sources_say(refimpl):
    (entry,) = [
        e for e in json.loads(refimpl("list", "--json", *SOUND).out) if e["name"] == "fake-sound"
    ]
    assert entry["title"] == "A plane through points"
    assert entry["variants"] == ["scratch", "module"]
    assert entry["origin"] == f"file {SOUND[1]}"


def test_a_broken_plugin_does_not_keep_the_others_from_being_listed(refimpl, plugin):
    ran = refimpl("list", *plugin("def broken(:"))
    assert ran.status == 1
    assert "titanic-dnn" in ran.out
    assert re.fullmatch(r"refimpl: plugin made \(file .*made\.py\).*invalid syntax.*\n", ran.err)


def test_without_a_command_there_is_the_help():
    ran = process()
    assert ran.returncode in (0, 2)  # by click's version
    text = ran.stdout + ran.stderr
    assert text.startswith("Usage: refimpl [OPTIONS] COMMAND")
    assert re.search(r"^  compare ", text, re.MULTILINE)


# --- info ----------------------------------------------------------------------------------------


def test_info_as_json_has_the_documented_table_measured_from_the_live_model(refimpl):
    ran = refimpl("info", "titanic-dnn", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["parameters"] == found["trainable"] == 651
    assert [
        (row["name"], row["kind"], row["output"], row["parameters"]) for row in found["layers"]
    ] == [
        ("linear1", "Linear", [-1, 20], 320),
        ("relu1", "ReLU", [-1, 20], 0),
        ("linear2", "Linear", [-1, 15], 315),
        ("relu2", "ReLU", [-1, 15], 0),
        ("linear3", "Linear", [-1, 1], 16),
        ("sigmoid", "Sigmoid", [-1, 1], 0),
    ]
    assert found["sizes"]["total"] == 0.003090


def test_info_measures_and_does_not_repeat_the_facts(refimpl, plugin):
    wrong = plugin(
        "from dataclasses import replace\n"
        "from fakes.failing import FAILING\n"
        "from refimpl import hookimpl\n"
        "EXAMPLE = replace(FAILING['parameter-count'], name='wrong-count')\n"
        "@hookimpl\n"
        "def refimpl_examples(): return [EXAMPLE]\n"
    )
    (found,) = json.loads(
        refimpl("info", "wrong-count", "--variant", "module", "--json", *wrong).out
    )["variants"]
    assert found["parameters"] == 3
    assert found["documented"]["parameters"] == 4


def test_info_as_text_has_document_variants_and_table(refimpl):
    ran = refimpl("info", "fake-sound", *SOUND)
    assert ran.status == 0
    assert ran.out.startswith("fake-sound: A plane through points\ntests, 0 · file ")
    assert ran.out.count("  3 parameters, 3 trainable") == 2
    assert re.search(r"^  lin +Linear +\(-1, 1\) +3$", ran.out, re.MULTILINE)
    assert "1 documented failures" in ran.out


def test_env_says_what_is_here(refimpl):
    ran = refimpl("env")
    assert ran.status == 0
    assert re.search(r"^torch +\d+\.\d+", ran.out, re.MULTILINE)
    assert re.search(r"^devices +cpu", ran.out, re.MULTILINE)
    assert "torchtext (text)" in ran.out


def test_errata_are_tried_and_fail_where_they_are_not_as_expected(refimpl, plugin):
    assert refimpl("errata", "fake-sound", *SOUND).status == 0
    failing = plugin(
        "from fakes.failing import FAILING\n"
        "from refimpl import hookimpl\n"
        "@hookimpl\n"
        "def refimpl_examples(): return [FAILING['errata']]\n"
    )
    ran = refimpl("errata", "fails-errata", *failing)
    assert ran.status == 1
    assert "which is NOT as expected" in ran.out


# --- run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["scratch", "module"])
def test_a_run_ends_with_its_final_figures_by_name(refimpl, variant):
    ran = refimpl("run", "fake-sound", "--variant", variant, "--seed", 3, *SOUND)
    assert (ran.status, ran.err) == (0, "")
    *_, last = ran.out.splitlines()
    chosen = EXAMPLE.variant(variant)
    expected = train(chosen, pose(chosen, seed=3)).final
    assert last == final_line(expected)
    assert [part.partition("=")[0] for part in last.split()] == [
        "loss", "error", "val_loss", "val_error", "weights[0]", "weights[1]", "bias",
    ]  # fmt: skip


def test_a_run_shows_its_epochs_as_they_end(refimpl):
    ran = refimpl("run", "fake-sound", "--epochs", 2, *SOUND)
    title, first, second, _ = ran.out.splitlines()
    assert title == "fake-sound · scratch · stand-in data"
    assert re.fullmatch(r"epoch 1/2 loss=\S+ error=\S+ val_loss=\S+ val_error=\S+ \(.* s\)", first)
    assert second.startswith("epoch 2/2 ")


def test_a_run_is_saved_and_drawn(refimpl, tmp_path):
    saved, drawn = tmp_path / "run.pt", tmp_path / "curves.png"
    ran = refimpl(
        "run", "fake-sound", "--variant", "module", "--save", saved, "--plot", drawn, *SOUND
    )
    assert f"saved {saved}" in ran.out
    assert f"plotted {drawn}" in ran.out
    assert load(saved).step == 12
    assert load(saved).parameters.keys() == {"lin.weight", "lin.bias"}
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_the_help_of_a_run_says_which_seed_it_takes_where_none_is_given(refimpl):
    assert "else the variant's own seed" in " ".join(refimpl("run", "--help").out.split())


def test_a_run_makes_the_folders_of_its_files(refimpl, tmp_path):
    saved, drawn = tmp_path / "a" / "b" / "run.pt", tmp_path / "c" / "curves.png"
    ran = refimpl("run", "fake-sound", "--save", saved, "--plot", drawn, *SOUND)
    assert (ran.status, ran.err) == (0, "")
    assert saved.exists()
    assert drawn.exists()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    "command",
    [
        ["run", "titanic-dnn", "--save"],
        ["run", "titanic-dnn", "--plot"],
        ["check", "tensors", "--results"],
        ["mutants", "titanic-dnn", "--results"],
        ["mutants", "titanic-dnn", "--table"],
        ["audit", "titanic-dnn", "--table"],
        ["calibrate", "titanic-dnn", "--fresh"],
        ["docs", "titanic-dnn", "--output"],
        ["figures", "no.jsonl", "-o"],
        ["report", "no.jsonl", "-o"],
    ],
    ids=" ".join,
)
def test_what_could_not_be_written_is_refused_before_the_work(refimpl, tmp_path, command):
    file = tmp_path / "a file"
    file.touch()
    ran = refimpl(*command, file / "made" / "out.png")
    assert ran.status == 1
    assert ran.complaint.startswith(f"cannot write {file}/made/out.png: cannot create a file in")
    assert ran.complaint.endswith(f"; choose another place for {command[-1]}")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("untrained")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a /proc, which takes no files")
def test_a_folder_that_takes_no_files_is_refused_before_the_work(refimpl):
    ran = refimpl("run", "titanic-dnn", "--save", "/proc/x.ckpt")
    assert ran.complaint.startswith("cannot write /proc/x.ckpt: cannot create a file in /proc (")


@pytest.mark.usefixtures("untrained")
def test_nothing_is_left_of_the_look_whether_a_file_can_be_written(refimpl, tmp_path):
    (tmp_path / "kept.pt").write_text("kept")
    for path in (tmp_path / "kept.pt", tmp_path / "no" / "new.pt"):
        assert refimpl("run", "titanc-dnn", "--save", path).status == 1
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "kept"


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("option", "file", "said"),
    [
        ("--plot", "curves.txt", "cannot plot to .*: its extension must be one of .*png"),
        ("--plot", "curves", "cannot plot to .*: its extension must be one of"),
        ("--save", ".", "is a directory"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused_before_the_training(
    refimpl, tmp_path, option, file, said
):
    ran = refimpl("run", "fake-sound", option, tmp_path / file, *SOUND)
    assert ran.status in (1, 2)
    assert re.search(said, ran.complaint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("untrained")
def test_a_device_that_is_not_here_is_refused_before_the_training(refimpl):
    for command in ("run", "check"):
        ran = refimpl(command, "fake-sound", "--device", "xla", *SOUND)
        assert ran.status == 1
        assert ran.complaint == "device 'xla' cannot be used here: needs the device xla"


@pytest.mark.usefixtures("untrained")
def test_a_device_that_torch_does_not_know_is_said_to_be_none(refimpl):
    for command in ("run", "check"):
        ran = refimpl(command, "fake-sound", "--device", "cudda", *SOUND)
        assert ran.status == 1
        assert ran.complaint.startswith("torch does not know a device 'cudda'; use torch's names")


def test_real_data_that_is_not_here_is_an_error_that_says_what_to_do(
    refimpl, monkeypatch, tmp_path
):
    monkeypatch.setenv("REFIMPL_DATA", str(tmp_path))
    ran = refimpl("run", "titanic-dnn", "--data", "real")
    assert ran.status == 1
    assert "the real data of 'titanic' is not complete" in ran.complaint
    assert "refimpl data fetch titanic" in ran.complaint


def test_the_list_of_data_says_in_which_folder_they_are_looked_for(refimpl, monkeypatch, tmp_path):
    monkeypatch.setenv("REFIMPL_DATA", str(tmp_path))
    assert refimpl("data", "list").out.splitlines()[-1] == (
        f"data folder: {tmp_path} (REFIMPL_DATA)"
    )
    monkeypatch.delenv("REFIMPL_DATA")
    assert refimpl("data", "list").out.splitlines()[-1] == (
        f"data folder: {cache_root()} (the user's cache, since REFIMPL_DATA is not set)"
    )


def test_digests_that_were_compared_with_nothing_are_no_success(refimpl, monkeypatch, tmp_path):
    monkeypatch.setenv("REFIMPL_DATA", str(tmp_path))
    ran = refimpl("data", "verify")
    assert ran.status == 1
    assert "there is no data file to check" in ran.err


# --- check ---------------------------------------------------------------------------------------


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """There is no real data on this machine."""
    folder = tmp_path / "no data"
    folder.mkdir()
    monkeypatch.setenv("REFIMPL_DATA", str(folder))
    return folder


@pytest.fixture
def asked(monkeypatch):
    """What the suite would be started with; it is not."""
    started = []

    def run(arguments, results, verbose):
        started.append(arguments)
        return 0

    monkeypatch.setattr(suite_process, "run_suite", run)
    return started


@pytest.mark.parametrize(
    "names",
    [["titanic-dnn"], ["tensors", "titanic-dnn"], ["titanic-dnn", "covid-lstm"]],
    ids=" ".join,
)
def test_a_check_of_real_data_that_is_nowhere_is_an_error_before_anything_runs(
    refimpl, asked, no_data, names
):
    ran = refimpl("check", *names, "--data", "real")
    assert ran.status == 1
    assert "the real data of 'titanic' is not complete" in ran.complaint
    assert "refimpl data fetch titanic" in ran.complaint
    assert asked == []


def test_real_data_in_a_folder_that_is_none_is_an_error_before_anything_runs(
    refimpl, asked, monkeypatch
):
    monkeypatch.setenv("REFIMPL_DATA", "/no/such/folder")
    ran = refimpl("check", "titanic-dnn", "--data", "real")
    assert ran.complaint == "REFIMPL_DATA names /no/such/folder, which is not a folder"
    assert asked == []


@pytest.mark.parametrize("generated", ["tensors", "ring-dnn", "linear-regression-2d"])
def test_an_example_that_reads_no_files_lacks_none(refimpl, asked, no_data, generated):
    assert refimpl("check", generated, "--data", "real").status == 0
    assert len(asked) == 1


def test_real_data_of_some_is_enough_to_check(refimpl, asked, no_data):
    (no_data / "covid-19.csv").touch()
    assert refimpl("check", "titanic-dnn", "covid-lstm", "--data", "real").status == 0
    assert len(asked) == 1


def test_an_execution_of_a_plugin_is_known_to_a_check(refimpl, asked, plugin):
    mine = plugin(
        "from refimpl import Execution, hookimpl\n"
        "@hookimpl\n"
        "def refimpl_executions(): return [Execution('mine', 'my own')]\n"
    )
    assert refimpl("check", "tensors", "--execution", "mine", *mine).status == 0
    assert refimpl("check", "tensors", "--execution", "all").status == 0
    assert len(asked) == 2
    assert refimpl("check", "tensors", "--execution", "mine").status == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = ", "cannot be read as TOML"),
        ("[[expected-failure]]\nexample = 'x'", "entry 1: it has no check"),
        (
            "[[expected-failure]]\nexample = 'titanc-dnn'\ncheck = 'x'\nreason = 'y'",
            "names an unknown example 'titanc-dnn'; did you mean 'titanic-dnn'",
        ),
    ],
)
def test_a_wrong_file_of_expected_failures_is_refused_before_anything_runs(
    refimpl, asked, tmp_path, content, said
):
    file = tmp_path / "trial.toml"
    file.write_text(content)
    ran = refimpl("check", "--expected-failures", file)
    assert ran.status == 1
    assert str(file) in ran.complaint
    assert said in ran.complaint
    assert asked == []


@pytest.mark.parametrize("reseed", [802, 1000, 1999])
def test_a_check_runs_no_seeds_that_baselines_have(refimpl, asked, reseed):
    ran = refimpl("check", "tensors", "--reseed", reseed)
    assert ran.status == 2
    assert "seeds of the baselines; use at most 801, or at least 2000" in ran.complaint
    assert asked == []


@pytest.mark.parametrize("reseed", [0, 801, 2000])
def test_a_check_runs_other_seeds(refimpl, asked, reseed):
    assert refimpl("check", "tensors", "--reseed", reseed).status == 0
    assert asked[0][asked[0].index("--reseed") + 1] == str(reseed)


def test_what_the_help_of_reseed_advises_is_right_for_every_example(refimpl):
    high = FIRST_SEED + SEEDS_OF_A_BASELINE
    said = " ".join(refimpl("check", "--help").out.split())
    assert f"from {FIRST_SEED} on: take a multiple of 100 up to 800, or {high} and more" in said
    examples = [own.value for own in registry.load().examples.values()]
    for advised in (*range(0, 801, 100), high):
        require_unused_seeds(advised, examples)


# --- compare -------------------------------------------------------------------------------------


def test_variants_that_agree_exit_with_0(refimpl):
    ran = refimpl("compare", "fake-sound", "scratch", "module", "--steps", 5, *SOUND)
    assert (ran.status, ran.err) == (0, "")
    for line, precision in zip(ran.out.splitlines(), ("float64", "float32"), strict=True):
        assert line.startswith(f"module against scratch in {precision} agrees over 5 steps")


def test_a_planted_sign_error_is_named_with_its_step_and_parameter_and_exits_with_1(refimpl):
    ran = refimpl("compare", "sign-error", "scratch", "planted", *SIGN_ERROR)
    assert ran.status == 1
    for line, precision in zip(ran.out.splitlines(), ("float64", "float32"), strict=True):
        head = f"planted against scratch in {precision} diverges at step 1, parameter bias[0]: "
        assert line.startswith(head)


def test_variants_that_are_not_the_same_computation_are_not_compared(refimpl):
    ran = refimpl("compare", "sign-error", "scratch", "alone", *SIGN_ERROR)
    assert ran.status == 1
    assert ran.complaint == (
        "scratch and alone of sign-error are not the same computation; "
        "scratch can be compared with: planted"
    )


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lsit"], "there is no command 'lsit'; did you mean 'list'?"),
        (["data", "fecth"], "there is no command 'fecth'; did you mean 'fetch'?"),
        (["run", "titanc-dnn"], "there is no example 'titanc-dnn'; did you mean 'titanic-dnn'?"),
        (["info", "titanc-dnn"], "there is no example 'titanc-dnn'; did you mean 'titanic-dnn'?"),
        (["check", "titanc-dnn"], "there is no example 'titanc-dnn'; did you mean 'titanic-dnn'?"),
        (
            ["compare", "ring-dn", "a", "b"],
            "there is no example 'ring-dn'; did you mean 'ring-dnn'?",
        ),
        (
            ["run", "fake-sound", "--variant", "modul", *SOUND],
            "fake-sound has no variant 'modul'; did you mean 'module'?",
        ),
        (
            ["compare", "fake-sound", "scratch", "x", *SOUND],
            "fake-sound has no variant 'x'; there are: module, scratch",
        ),
        (
            ["compare", "fake-sound", "--execution", "cpu-f46", *SOUND],
            "there is no execution 'cpu-f46'; did you mean 'cpu-f64'?",
        ),
        (
            ["check", "tensors", "--execution", "cpu-f46"],
            "there is no execution 'cpu-f46'; did you mean 'cpu-f64'?",
        ),
        (
            ["calibrate", "fake-sound", "--variant", "modul", *SOUND],
            "there is no variant 'modul' of fake-sound; did you mean 'module'?",
        ),
        (
            ["calibrate", "fake-sound", "--variant", "x", *SOUND],
            "there is no variant 'x' of fake-sound; there are: module, scratch",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_an_unknown_name_is_answered_with_the_nearest(refimpl, arguments, said):
    ran = refimpl(*arguments)
    assert ran.status == 1
    assert ran.complaint == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'NAME'"),
        (["run", "titanic-dnn", "--epochs", "0"], "0 is not in the range x>=1"),
        (["run", "titanic-dnn", "--epoch", "2"], "No such option.*--epoch"),
        (["run", "titanic-dnn", "--data", "true"], "'true' is not one of 'stand-in', 'real'"),
        (["check", "-n", "some"], "'some' is neither a number nor 'auto'"),
        (["check", "--reseed", "-1"], "-1 is not in the range x>=0"),
        (["check", "--expected-failures", "/nope.toml"], "'/nope.toml' does not exist"),
        (["compare", "ring-dnn", "low"], "name two variants to compare, or give --execution"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_is_used_wrongly_exits_with_2(refimpl, arguments, said):
    ran = refimpl(*arguments)
    assert ran.status == 2
    assert re.search(said, ran.complaint)


def raising(error):
    """A plugin whose one variant raises this at its first step."""
    return (
        "from dataclasses import replace\n"
        "from fakes.sound import EXAMPLE, SCRATCH\n"
        "from refimpl import hookimpl\n"
        "def steps(problem):\n"
        f"    raise {error}\n"
        "    yield\n"
        "variant = replace(SCRATCH, steps=steps, ladder=None)\n"
        "EXAMPLE = replace(EXAMPLE, name='raising', variants=(variant,))\n"
        "@hookimpl\n"
        "def refimpl_examples(): return [EXAMPLE]\n"
    )


def test_whatever_a_variant_raises_is_one_line(refimpl, plugin):
    ran = refimpl("info", "raising", *plugin(raising("ValueError('one\\n  two')")))
    assert ran.status == 1
    assert ran.complaint == "ValueError: one two (--debug shows where)"


@pytest.mark.parametrize(
    ("named", "hint"),
    [("nothing.py", "name a .py file"), ("./nothing", "name a .py"), ("made", "did you mean")],
)
@pytest.mark.parametrize("command", [["check"], ["lint", "titanic-dnn"], ["list"]], ids=" ".join)
def test_a_plugin_that_is_not_there_is_refused_before_anything_is_asked(
    refimpl, tmp_path, monkeypatch, command, named, hint
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.py").touch()
    ran = refimpl(*command, "--plugin", named)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"refimpl: there is no plugin {named}; {hint}")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", "fake-sound", *SOUND, "--plot", "a.png", "--save", "./a.png"],
         "--save a.png: --plot writes to it too; choose another file"),
        (["report", "old.jsonl", "-o", "old.jsonl"], "-o old.jsonl: that file is an input"),
        (["check", "tensors", "--results", "mine.py"],
         "--results mine.py: the file exists and is not a results file"),
    ],
)  # fmt: skip
def test_no_file_is_written_over_that_something_else_is_in(
    refimpl, tmp_path, monkeypatch, command, said
):
    monkeypatch.chdir(tmp_path)
    for name in ("old.jsonl", "mine.py"):
        (tmp_path / name).write_text(name)
    ran = refimpl(*command)
    assert ran.status == 1
    assert said in ran.complaint
    assert (tmp_path / "old.jsonl").read_text() == "old.jsonl"
    assert (tmp_path / "mine.py").read_text() == "mine.py"


def test_a_name_that_is_not_found_comes_with_the_plugins_that_could_not_be_read(refimpl, plugin):
    broken = plugin("def (")
    for command in (["info", "mine"], ["check", "mine"]):
        ran = refimpl(*command, *broken)
        assert ran.status == 1
        assert "there is no example 'mine'" in ran.complaint
        assert "SyntaxError" in ran.complaint


def test_a_plugin_that_could_not_be_read_is_told_where_another_example_is_looked_at(
    refimpl, plugin
):
    ran = refimpl("info", "fake-sound", *SOUND, *plugin("def ("))
    assert ran.status == 0
    assert re.match(r"refimpl: not loaded: plugin made .*SyntaxError", ran.err)


def test_an_exception_of_a_plugin_comes_with_its_line(refimpl, plugin):
    broken = plugin(raising("ZeroDivisionError"))
    assert re.search(r"ZeroDivisionError.* \(\w+\.py:\d+\)", refimpl("run", "raising", *broken).err)


def test_an_interruption_is_no_traceback(refimpl, plugin):
    ran = refimpl("info", "raising", *plugin(raising("KeyboardInterrupt")))
    assert ran.status == 130
    assert ran.err.strip() == "refimpl: interrupted"  # click ends the line of the ^C first


def test_a_refused_example_is_answered_with_the_reason(refimpl, plugin):
    ran = refimpl("run", "made", *plugin("from refimpl import Example\nExample('made', 1, 2)"))
    assert ran.status == 1
    assert "example 'made' was refused: plugin made (file " in ran.complaint


@pytest.mark.parametrize(
    "arguments", [["--debug", "run", "titanc"], ["run", "titanc", "--debug"]], ids=" ".join
)
def test_with_debug_an_error_keeps_its_traceback(arguments):
    with pytest.raises(UnknownNameError, match="titanic-dnn"):
        main.main(arguments)


def test_with_debug_what_a_variant_raises_keeps_its_traceback(plugin):
    with pytest.raises(ZeroDivisionError) as raised:
        main.main(["info", "raising", "--debug", *plugin(raising("ZeroDivisionError"))])
    assert raised.traceback[-1].path.name == "made.py"


def test_a_traceback_is_printed_with_debug_and_not_without():
    assert "Traceback (most recent call last):" in process("run", "titanc", "--debug").stderr
    assert process("run", "titanc").stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["list", "run titanic-dnn --epochs 2"])
def test_a_pipe_that_is_closed_early_is_no_error_to_read(command):
    piped = f"{sys.executable} -m refimpl {command} | head -c 1"
    ran = subprocess.run(piped, shell=True, capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""


def test_a_check_minds_no_settings_or_conftest_of_the_folder_it_is_started_in(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    for folder in (tmp_path, tmp_path / "tests"):
        folder.mkdir(exist_ok=True)
        (folder / "conftest.py").write_text("raise ImportError('read')\n")
    ran = process("check", "autograd", "-n", "0", "--results", "here.jsonl", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "here.jsonl" in ran.stdout
    assert (tmp_path / "here.jsonl").exists()


def test_the_fakes_module_variant_is_the_second():
    assert EXAMPLE.variants[1].name == MODULE.name
