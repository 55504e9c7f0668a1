"""Mutants: training bugs are planted in the candidate alone, killed, and told as they are."""

import json
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fakes.sign_error import EXAMPLE as SIGN_ERROR
from fakes.sound import EXAMPLE, PROTOCOL
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack as modes

from refimpl.baselines import committed
from refimpl.cli import main
from refimpl.composition import CPU
from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.mutants import ALL, command
from refimpl.conformance.mutants.equivalents import Equivalent, EquivalentsError, gathered, read
from refimpl.conformance.mutants.hunting import (
    Hunt,
    Hunted,
    UnsoundError,
    bisected,
    fates,
    judged_by,
    untrue,
)
from refimpl.conformance.mutants.planting import Fault, Mutant, Plant, anything, planted, sound
from refimpl.conformance.mutants.table import markdown
from refimpl.errors import UnknownNameError
from refimpl.loading import registry
from refimpl.parity.whole_runs import trained
from refimpl.records.of_models import constants
from refimpl.training.loop import steps_of, train
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import observe

BY_NAME = {each.name: each for each in ALL}
SOUND = ("--plugin", str(Path(__file__).parent / "fakes" / "sound.py"))
WRONG = ("--plugin", str(Path(__file__).parent / "fakes" / "sign_error.py"))
FAST = [check.name for check in CHECKS if check.about == "variant"]
SCRATCH, MODULE = EXAMPLE.variants  # with what they have from their example


def only(*names: str) -> list[str]:
    """Every check but these, to be left out."""
    return [name for name in FAST if name not in names] + ["same-on-every-execution"]


@pytest.fixture(scope="module")
def scratch():
    return Hunt(EXAMPLE, SCRATCH)


@pytest.fixture(scope="module")
def module():
    return Hunt(EXAMPLE, MODULE)


@pytest.fixture
def refimpl(capsys):
    """Runs a command in this process: its exit status and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def bits(variant, count=6, **changes) -> list[Tensor]:
    """Every number of the first steps of a run."""
    problem = pose(variant, seed=0, **changes)
    return [
        seen.value for step in steps_of(variant, problem, count) for seen in observe(variant, step)
    ]


def same(some, others) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


# --- the catalogue -------------------------------------------------------------------------------


def test_there_are_forty_mutants_and_more_each_with_a_name_and_a_description_of_its_own():
    assert len(ALL) >= 40
    assert len({each.name for each in ALL}) == len(ALL)
    assert len({each.imitates for each in ALL}) == len(ALL)
    for each in ALL:
        assert each.name == each.name.lower().replace("_", "-")
        assert len(each.imitates) > 20
        assert (each.mutate is None) != (each.execution is None)


def test_those_with_a_magnitude_can_be_searched():
    searched = [each for each in ALL if each.has_magnitude]
    assert len(searched) >= 8
    assert all(0 < each.weakest < each.strongest for each in searched)


# --- killed --------------------------------------------------------------------------------------


def test_a_killed_mutant_is_named_with_the_check_and_what_it_measured(module):
    found = module.hunt(BY_NAME["update-dropped"])
    assert (found.fate, found.check) == ("killed", "every-parameter-learns")
    assert (found.example, found.variant, found.mutant) == (
        "fake-sound",
        "module",
        "update-dropped",
    )
    assert found.how == "every-parameter-learns: lin.weight moves False, limit = True"
    assert found.seconds > 0


def test_a_mutant_that_crashes_is_killed_by_the_check_that_met_it_and_said_to_raise(scratch):
    found = scratch.hunt(BY_NAME["no-grad-missing"])
    assert found.fate == "killed"
    assert found.how.startswith("parameter-count: raises: RuntimeError: a leaf Variable")


def test_a_bug_in_the_first_of_a_ladder_is_seen_by_the_next_rung(scratch):
    found = scratch.hunt(BY_NAME["update-uphill"])
    assert (found.fate, found.check) == ("killed", "ladder-agrees-in-float64")


@pytest.mark.parametrize(
    "name", ["shards-summed", "shards-not-averaged", "products-in-ten-bits", "autocast-left-on"]
)
def test_a_wrong_execution_is_killed_by_the_check_about_executions(module, name):
    found = module.hunt(BY_NAME[name])
    assert (found.fate, found.check) == ("killed", "same-on-every-execution")


def test_the_cheapest_check_that_can_kill_is_the_one_that_does():
    bug = BY_NAME["update-dropped"]
    every = Hunt(EXAMPLE, MODULE).hunt(bug)
    without = Hunt(EXAMPLE, MODULE, without=["every-parameter-learns"]).hunt(bug)
    assert FAST.index(every.check) < FAST.index(without.check)


# --- survivors, and those without effect ---------------------------------------------------------


def test_what_no_check_sees_survives(scratch):
    found = scratch.hunt(BY_NAME["loss-arguments-swapped"])
    assert (found.fate, found.how) == ("SURVIVED", "every check passes")


@pytest.mark.parametrize("name", ["momentum-dropped", "softmax-before-cross-entropy"])
def test_a_mutant_whose_patch_is_never_hit_is_without_effect(scratch, name):
    found = scratch.hunt(BY_NAME[name])
    assert (found.fate, found.reason) == ("ineffective", "")


def never_hit(fault: Fault) -> Plant:
    """A change that takes place, but not where the catalogue says."""
    return Plant(step=lambda step: replace(step, output=None))


def test_a_failure_is_no_kill_where_the_mutant_never_took_effect(module):
    found = module.hunt(Mutant("never-hit", "nothing", anything, never_hit))
    assert (found.fate, found.check) == ("ineffective", "")


def crashing(fault: Fault) -> Plant:
    """A change that breaks before it has said that it took effect."""

    def step(step):
        raise TypeError("no such padding")

    return Plant(step=step)


def test_a_mutant_that_crashes_has_an_effect_and_the_check_that_meets_it_kills_it(module):
    found = module.hunt(Mutant("crashes", "nothing", anything, crashing))
    assert found.fate == "killed"
    assert found.how.endswith("raises: TypeError: no such padding")


def test_without_effect_in_one_variant_the_next_is_tried():
    [found] = fates(EXAMPLE, [BY_NAME["optimizer-without-the-last-tensor"]])
    assert (found.variant, found.fate) == ("module", "killed")


def test_every_variant_is_tried_where_that_is_asked_for():
    found = fates(EXAMPLE, [BY_NAME["learning-rate-tenfold"]], every_variant=True)
    assert [(each.variant, each.fate) for each in found] == [
        ("scratch", "killed"),
        ("module", "killed"),
    ]


def test_a_variant_that_fails_without_any_bug_is_told_and_not_hunted():
    hunted = fates(SIGN_ERROR, [BY_NAME["inputs-rounded"]], variants=["planted"])
    complaint = "sign-error planted fails ladder-agrees-in-float64 without any bug"
    with pytest.raises(UnsoundError, match=complaint):
        list(hunted)


# --- in the candidate alone ----------------------------------------------------------------------


PLANTED = [each for each in ALL if each.mutate and each.applies(MODULE)]


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_every_patch_is_undone(bug):
    constructor, called = torch.optim.Optimizer.__init__, torch.nn.Module.__call__
    clean = bits(MODULE)
    steps = steps_of(*_posed(planted(MODULE, bug, Fault(strength=bug.strongest))), 4)
    for _ in range(4):
        with pytest.raises(RuntimeError) if bug.name in RAISES else nullcontext():
            next(steps, None)
        assert modes() == []  # between two steps too
        assert torch.optim.Optimizer.__init__ is constructor
        assert torch.nn.Module.__call__ is called
        if bug.name in RAISES:
            break
    assert torch.is_grad_enabled()
    assert same(bits(MODULE), clean)


RAISES = ("loss-detached",)


def _posed(variant) -> tuple[object, Problem]:
    return variant, pose(variant, seed=0)


def test_side_by_side_with_the_sound_variant_only_the_candidate_has_the_bug():
    fault = Fault()
    candidate = planted(SCRATCH, BY_NAME["update-uphill"], fault)
    clean = bits(SCRATCH)
    beside = []
    pairs = zip(steps_of(*_posed(candidate), 6), steps_of(*_posed(SCRATCH), 6), strict=True)
    for _, step in pairs:
        beside += [seen.value for seen in observe(SCRATCH, step)]
    assert fault.hits == 12
    assert same(beside, clean)
    assert not same(bits(candidate), clean)


def test_planting_nothing_changes_no_bit():
    from refimpl.conformance.mutants.planting import sound

    for variant in EXAMPLE.variants:
        assert same(bits(planted(variant, sound, Fault())), bits(variant))
    assert type(pose(SCRATCH)) is Problem


def test_the_rows_that_others_see_are_left_alone():
    before = pose(SCRATCH).train.y.clone()
    bits(planted(SCRATCH, BY_NAME["label-noise"], Fault(strength=0.5)))
    assert torch.equal(pose(SCRATCH).train.y, before)


def test_what_is_kept_of_a_mutant_is_not_served_to_the_sound_variant_nor_the_other_way_round():
    bug = BY_NAME["learning-rate-tenfold"]
    clean = trained(SCRATCH, "stand-in", CPU).final
    fault = Fault()
    candidate = planted(SCRATCH, bug, fault)
    assert trained(candidate, "stand-in", CPU).final != clean
    assert fault.hits
    assert trained(SCRATCH, "stand-in", CPU).final == clean
    assert train(SCRATCH, pose(SCRATCH)).final == clean


def test_a_hunt_leaves_the_answers_of_the_sound_example_as_they_were(scratch):
    from refimpl.conformance import check_example

    assert scratch.hunt(BY_NAME["update-uphill"]).fate == "killed"
    answers = check_example(EXAMPLE, executions=["cpu"])
    assert [each.id for each in answers if each.outcome not in ("passed", "skipped")] == []
    assert scratch.hunt(BY_NAME["update-uphill"]).fate == "killed"


def test_a_start_that_is_resumed_or_moved_is_not_spoiled_twice():
    bug = BY_NAME["start-ten-times-as-wide"]
    candidate = planted(SCRATCH, bug, Fault())
    problem = pose(candidate, seed=0)
    [first] = steps_of(candidate, problem.but(protocol=replace(PROTOCOL, learning_rate=0.0)), 1)
    for name, value in pose(SCRATCH, seed=0).values.items():
        assert torch.allclose(first.parameters[name].double(), torch.tensor(10 * value))


# --- the smallest fault --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [2e-6, 0.013, 0.5])
def test_the_search_ends_just_above_the_threshold(threshold):
    tried = []

    def caught(strength):
        tried.append(strength)
        return strength >= threshold

    smallest, at_most = bisected(caught, 1e-6, 1.0)
    assert threshold <= smallest <= 2 * threshold
    assert not at_most
    assert len(tried) < 10


def test_where_even_the_weakest_is_caught_that_is_said():
    assert bisected(lambda strength: True, 1e-6, 1.0) == (1e-6, True)


def test_a_magnitude_that_is_caught_from_a_certain_size_is_found():
    """The slope is held to a relative error of 1e-6, so that less than that is not seen by it."""
    hunt = Hunt(EXAMPLE, SCRATCH, without=only("gradient-is-the-slope"))
    found = hunt.hunt(BY_NAME["gradients-too-large"])
    assert (found.fate, found.check) == ("killed", "gradient-is-the-slope")
    assert 1e-6 < found.smallest < 1e-3
    assert not found.at_most
    assert found.caught_from == f"{found.smallest:.2g}"


# --- equivalents ---------------------------------------------------------------------------------

SWAPPED = Equivalent("fake-sound", "loss-arguments-swapped", "the square is the same either way")


def test_a_survivor_that_is_listed_is_equivalent_for_the_reason_given(scratch):
    found = judged_by(scratch.hunt(BY_NAME["loss-arguments-swapped"]), [SWAPPED])
    assert (found.fate, found.reason) == ("equivalent", SWAPPED.reason)
    assert list(untrue([SWAPPED], [found], {"fake-sound"}, {SWAPPED.mutant})) == []


def test_an_entry_whose_mutant_is_killed_after_all_is_untrue(module):
    entry = replace(SWAPPED, mutant="update-dropped")
    found = judged_by(module.hunt(BY_NAME["update-dropped"]), [entry])
    assert found.fate == "killed"
    [wrong] = untrue([entry], [found], {"fake-sound"}, {"update-dropped"})
    assert "killed after all, by every-parameter-learns" in wrong


def test_an_entry_about_a_mutant_without_effect_is_untrue(scratch):
    entry = replace(SWAPPED, mutant="momentum-dropped")
    found = judged_by(scratch.hunt(BY_NAME["momentum-dropped"]), [entry])
    [wrong] = untrue([entry], [found], {"fake-sound"}, {"momentum-dropped"})
    assert "matches no mutant that took effect" in wrong


def test_an_entry_about_another_example_or_mutant_than_those_hunted_is_not_judged():
    assert list(untrue([SWAPPED], [], {"ring-dnn"}, {SWAPPED.mutant})) == []
    assert list(untrue([SWAPPED], [], {"fake-sound"}, {"update-dropped"})) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[equivalent]]\nexample = 'a'\nmutant = 'update-dropped'\n", "it has no reason"),
        (
            "[[equivalent]]\nexample = 'a'\nmutant = 'update-dropped'\nreason = ' '\n",
            "reason must be a non-empty text",
        ),
        ("[[equivalent]]\nexampel = 'a'\n", "unknown key 'exampel'"),
        ("[[equivalents]]\n", "write each entry under"),
        ("equivalent = ", "cannot be read as TOML"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_the_reason(tmp_path, text, complaint):
    path = tmp_path / "equivalent.toml"
    path.write_text(text)
    with pytest.raises(EquivalentsError, match=complaint):
        read(path, BY_NAME)


def test_an_entry_about_a_mutant_that_there_is_not_is_told_the_nearest(tmp_path):
    path = tmp_path / "equivalent.toml"
    path.write_text("[[equivalent]]\nexample = 'a'\nmutant = 'update-droped'\nreason = 'r'\n")
    with pytest.raises(UnknownNameError, match="update-dropped"):
        read(path, BY_NAME)


def test_the_committed_list_can_be_read_and_gives_reasons_that_say_something():
    for entry in gathered([], BY_NAME):
        assert len(entry.reason) > 20


# --- the command ---------------------------------------------------------------------------------


def test_the_command_names_the_killer_and_exits_with_0(refimpl):
    status, out, _ = refimpl("mutants", "fake-sound", "--mutant", "update-dropped", *SOUND)
    assert status == 0
    assert "killed       scratch          update-dropped" in out
    assert "every-parameter-learns: weights moves False, limit = True" in out
    assert "all: 1 killed, 0 SURVIVED, 0 equivalent, 0 ineffective" in out


SURVIVOR = ("mutants", "fake-sound", "--mutant", "loss-arguments-swapped", *SOUND)


def test_a_survivor_fails_the_command(refimpl):
    status, out, _ = refimpl(*SURVIVOR)
    assert status == 1
    assert "FAILED fake-sound scratch: loss-arguments-swapped survives every check" in out


def test_a_survivor_that_is_listed_does_not(refimpl, tmp_path):
    path = tmp_path / "equivalent.toml"
    path.write_text(
        "[[equivalent]]\nexample = 'fake-sound'\nmutant = 'loss-arguments-swapped'\n"
        "reason = 'the square is the same either way'\n"
    )
    status, out, _ = refimpl(*SURVIVOR, "--equivalent", path)
    assert status == 0
    assert "the square is the same either way" in out
    status, out, _ = refimpl(
        "mutants", "fake-sound", "--mutant", "update-dropped", "--equivalent", path, *SOUND
    )
    assert status == 0  # it is about another mutant
    path.write_text(path.read_text().replace("loss-arguments-swapped", "update-dropped"))
    status, out, _ = refimpl(
        "mutants", "fake-sound", "--mutant", "update-dropped", "--equivalent", path, *SOUND
    )
    assert status == 1
    assert "the mutant is killed after all, by every-parameter-learns" in out


def test_a_variant_that_fails_without_any_bug_fails_the_command(refimpl):
    status, out, _ = refimpl("mutants", "sign-error", "--mutant", "inputs-rounded", *WRONG)
    assert status == 1
    assert "without any bug" in out


def test_what_was_found_is_kept_and_not_hunted_again(refimpl, tmp_path, monkeypatch):
    kept, table = tmp_path / "mutants.jsonl", tmp_path / "mutants.md"
    command = ("mutants", "fake-sound", "--mutant", "update-dropped", "--results", kept, *SOUND)
    assert refimpl(*command)[0] == 0
    [hunted] = json.loads(kept.read_text().splitlines()[1])
    assert (hunted["example"], hunted["mutant"]) == ("fake-sound", "update-dropped")
    monkeypatch.setattr(Hunt, "hunt", lambda *args: pytest.fail("it is hunted again"))
    status, out, _ = refimpl(*command, "--table", table)
    assert status == 0
    assert "fake-sound: 1 already tested" in out
    assert "| update-dropped |" in table.read_text()
    status, _, err = refimpl(*command, "--every-variant")
    assert status == 1
    assert "was made by another program or with other options (every_variant)" in err


@pytest.mark.parametrize("first_of_next", ["one", "two"])
def test_a_mutant_of_which_a_variant_was_not_tried_is_not_kept_as_whole(
    tmp_path, monkeypatch, first_of_next
):
    def fates(example, *_, **options):
        if example.name == "fake-sound":
            yield Hunted(example.name, "scratch", "one", "killed")
            raise UnsoundError("the next variant fails without any bug")
        yield Hunted(example.name, "scratch", first_of_next, "killed")

    monkeypatch.setattr(command, "fates", fates)
    path = tmp_path / "mutants.jsonl"
    names, plugins = ["fake-sound", "sign-error"], [SOUND[1], WRONG[1]]
    assert command.hunt(names, plugins, "stand-in", results=path, every_variant=True) == 1
    whole = Hunted("sign-error", "scratch", first_of_next, "killed")
    assert [json.loads(line) for line in path.read_text().splitlines()[1:]] == [[asdict(whole)]]


def test_findings_of_two_examples_are_kept_apart_though_the_mutant_is_one(tmp_path):
    path = tmp_path / "mutants.jsonl"
    kept = command.Kept(path, {})
    for example in ("first", "second"):
        kept.keep(Hunted(example, "script", "one", "killed"))
    kept.end()
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [[each["example"] for each in line] for line in lines] == [["first"], ["second"]]


def test_an_example_that_is_named_twice_is_hunted_once(refimpl):
    twice = ("mutants", "fake-sound", "fake-sound", "--mutant", "update-dropped", *SOUND)
    assert "all: 1 killed" in refimpl(*twice)[1]


def test_a_last_line_that_a_kill_cut_short_is_hunted_again(refimpl, tmp_path):
    kept = tmp_path / "mutants.jsonl"
    command = ("mutants", "fake-sound", "--mutant", "update-dropped", "--results", kept, *SOUND)
    refimpl(*command)
    whole = kept.read_text()
    kept.write_text(whole[:-30])
    status, out, _ = refimpl(*command)
    assert (status, "already tested" in out) == (0, False)
    assert [json.loads(line)[0]["mutant"] for line in kept.read_text().splitlines()[1:]] == [
        "update-dropped"
    ]


def test_a_file_that_has_something_else_in_it_is_left_as_it_is(refimpl, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\nnot to be lost")
    status, _, err = refimpl("mutants", "fake-sound", "--results", notes, *SOUND)
    assert (status, notes.read_text()) == (1, "mine\nnot to be lost")
    assert "is not a results file of mutants" in err


def test_what_another_torch_left_is_not_taken_for_this_one(refimpl, tmp_path, monkeypatch):
    kept = tmp_path / "mutants.jsonl"
    command = ("mutants", "fake-sound", "--mutant", "update-dropped", "--results", kept, *SOUND)
    refimpl(*command)
    monkeypatch.setattr(torch, "__version__", "1.5.0")
    status, _, err = refimpl(*command)
    assert status == 1
    assert "was made by another program or with other options (torch)" in err


def test_mutants_of_executions_are_not_hunted_where_executions_are_not_compared(refimpl):
    asked = ("mutants", "fake-sound", "--mutant", "shards-summed", *SOUND)
    assert "1 killed" in refimpl(*asked)[1]
    out = refimpl(*asked, "--only", "reads-its-batches")[1]
    assert (
        "FAILED no mutant applies to the chosen examples and variants, so nothing was tested" in out
    )


def test_what_was_found_by_other_baselines_or_data_is_not_taken_for_this(tmp_path, monkeypatch):
    plugin = tmp_path / "sound.py"
    plugin.write_text(Path(SOUND[1]).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(committed, "folder_of", lambda example: tmp_path / "baselines")

    def digest():
        return command.program([str(plugin)], [EXAMPLE])

    before = digest()
    assert digest() == before
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "fake-sound.script.jsonl").write_text("{}")
    assert digest() != before


def test_one_file_serves_hunts_of_different_examples(refimpl, tmp_path):
    kept = tmp_path / "mutants.jsonl"
    for name in ("fake-sound", "titanic-dnn", "fake-sound"):
        asked = ("mutants", name, "--mutant", "update-dropped", "--results", kept, *SOUND)
        assert refimpl(*asked)[0] == 0
    assert len(kept.read_text().splitlines()) == 3


def test_what_was_found_of_another_program_is_not_taken_for_this_one(refimpl, tmp_path):
    kept, plugin = tmp_path / "mutants.jsonl", tmp_path / "sound.py"
    plugin.write_text(Path(SOUND[1]).read_text(encoding="utf-8"), encoding="utf-8")
    asked = ("mutants", "fake-sound", "--mutant", "update-dropped", "--results", kept)
    refimpl(*asked, "--plugin", plugin)
    assert "1 already tested" in refimpl(*asked, "--plugin", plugin)[1]
    with plugin.open("a", encoding="utf-8") as stream:
        stream.write("# another line\n")
    status, _, err = refimpl(*asked, "--plugin", plugin)
    assert (status, "(program)" in err) == (1, True)


def test_a_kept_survivor_is_judged_by_the_list_of_today(refimpl, tmp_path):
    kept, listed = tmp_path / "mutants.jsonl", tmp_path / "equivalent.toml"
    assert refimpl(*SURVIVOR, "--results", kept)[0] == 1
    listed.write_text(
        "[[equivalent]]\nexample = 'fake-sound'\nmutant = 'loss-arguments-swapped'\n"
        "reason = 'the square is the same either way'\n"
    )
    assert refimpl(*SURVIVOR, "--results", kept, "--equivalent", listed)[0] == 0
    assert refimpl(*SURVIVOR, "--results", kept)[0] == 1


def test_the_table_says_what_each_imitates_and_what_killed_it(refimpl, tmp_path):
    table = tmp_path / "mutants.md"
    status, _, _ = refimpl(
        "mutants", "fake-sound", "--mutant", "update-dropped", "--mutant", "learning-rate-too-high",
        "--table", table, *SOUND,
    )  # fmt: skip
    assert status == 0
    lines = table.read_text().splitlines()
    assert any(line.startswith("| fake-sound | 2 | 0 | 0 | 0 |") for line in lines)
    imitates = BY_NAME["update-dropped"].imitates
    assert f"| update-dropped | {imitates} | every-parameter-learns (1) |  |" in lines
    size = next(line for line in lines if line.startswith("| learning-rate-too-high |"))
    smallest = re.search(r"\| \S+ \(1\) \| (?:≤ )?(\S+) \|$", size)
    assert smallest is not None, size
    assert float(smallest[1]) < 1e-14


def test_the_table_has_a_row_for_each_kernel_and_a_column_for_each_of_its_faults():
    def hunted(example, mutant, fate, **more):
        return Hunted(example, "only", mutant, fate, **more)

    page = markdown(
        [
            hunted("one", "addmm-scaled", "killed", smallest=1e-6),
            hunted("two", "addmm-scaled", "killed", smallest=3e-5),
            hunted("one", "addmm-last-row", "SURVIVED"),
            hunted("two", "addmm-last-row", "killed"),
            hunted("two", "addmm-short-batches", "ineffective"),
        ],
        ALL,
    )
    assert "| aten::addmm | 2/2 | 1/2 | 0/0 | 0/0 | 0/0 | 0/0 | 1e-06 … 3e-05 |" in page
    assert "| one | only | addmm-last-row | survived |" in page
    assert "## By mutant" not in page
    assert "aten::mm" not in page


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [
        ("--mutant", "update-droped", "update-dropped"),
        ("--without", "golden-trajectry", "golden-trajectory"),
        ("--only", "reads-its-batchs", "reads-its-batches"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(refimpl, option, name, nearest):
    status, _, err = refimpl("mutants", "fake-sound", option, name, *SOUND)
    assert status == 1
    assert nearest in err


def test_what_one_check_alone_catches_is_told_with_its_name(refimpl, tmp_path):
    table, check = tmp_path / "mutants.md", "reads-its-batches"
    status, out, _ = refimpl(
        "mutants", "fake-sound", "--only", check, "--mutant", "update-dropped",
        "--mutant", "first-batch-repeated", "--table", table, *SOUND,
    )  # fmt: skip
    assert status == 1
    assert "FAILED fake-sound scratch: update-dropped survives every check" in out
    assert f"Only these checks were run: {check}." in table.read_text()
    assert "| update-dropped | nowhere |  |" in table.read_text()
    both = refimpl("mutants", "fake-sound", "--only", check, "--without", check, *SOUND)
    assert both[0] == 1
    assert "leave out --without" in both[2]


def test_the_list_says_what_each_imitates(refimpl):
    status, out, _ = refimpl("mutants", "--list")
    assert status == 0
    assert len(out.splitlines()) == len(ALL)
    assert BY_NAME["hidden-state-kept"].imitates in out


def test_the_constants_of_a_loop_stay_known_where_a_bug_is_planted():
    """So that layers-as-recorded, which has them, passes where there is no bug."""
    example = registry.load(only=["ring-focal"]).example("ring-focal")
    variant = example.variant("focal")
    assert constants(planted(variant, sound, Fault())) == constants(variant) != {}
