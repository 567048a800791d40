"""Every mutant of the list is one that today's program can be made into; and how guards are found, on a toy."""

import ast
from functools import cache

import pytest

from tests import mutants
from tests.helpers import REPOSITORY
from tests.mutants import MUTANTS, Mutant, mutate, read_functions, read_sources, run_mutant

TOY = '''\
class Door:
    def open(self, key):
        """Ä door."""
        if (key != "right"      # the only one
                or key is None):
            raise ValueError(f"{key} is wrong")
        elif self.stuck:
            return None
        try:
            é = self.turn(key, hard=True); self.push()
            self.push()
        except OSError as error:
            raise RuntimeError("jammed") from error
        return [room for room in self.rooms if room.open]


def knock(door):
    def answer(who):
        return who if who else None
    return answer(door)
'''


@cache
def program():
    sources = read_sources(REPOSITORY)
    return sources, read_functions(sources)


def label(mutant):
    return f"{mutant.function}-{mutant.guard}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=label)
def test_every_guard_is_where_the_list_says_and_can_be_taken_out(mutant):
    sources, functions = program()
    found = mutate(mutant, sources, functions)
    assert found, "no such function, or its guard reads differently now"
    module, changed = found
    before, after = ast.parse(sources[module]), ast.parse(changed)
    assert ast.dump(before) != ast.dump(after)
    if mutant.guard.startswith("if ") and ":" not in mutant.guard:
        assert mutant.instead.startswith("if ")


@pytest.mark.parametrize("mutant", MUTANTS, ids=label)
def test_the_tests_that_every_mutant_names_are_there(mutant):
    tree = ast.parse((REPOSITORY / "tests" / f"test_{mutant.tests}.py").read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    parameters = [ast.unparse(decorator) for test in tests for decorator in test.decorator_list]
    assert any(mutant.words in name for name in [*(test.name for test in tests), *parameters])


def test_no_mutant_stands_twice_in_the_list():
    assert len({mutant[:3] for mutant in MUTANTS}) == len(MUTANTS)


def mutate_toy(guard, instead, function="house.Door.open", sources=None):
    """The toy's lines that go and those that come, or None where the guard is lost."""
    sources = sources or {"house": TOY}
    found = mutate(Mutant(function, guard, instead, "", ""), sources, read_functions(sources))
    if found is None:
        return None
    module, changed = found
    ast.parse(changed)
    before, after = sources[module].splitlines(), changed.splitlines()
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return [line.strip() for line in before], [line.strip() for line in after]


def test_the_condition_of_an_if_is_found_however_it_is_laid_out():
    gone, come = mutate_toy("if key != 'right' or key is None", "if False")
    assert gone == ['if (key != "right"      # the only one', "or key is None):"]
    assert come == ["if ((False)):"]
    assert mutate_toy("if self.stuck", "if not self.stuck") == (["elif self.stuck:"], ["elif (not self.stuck):"])


def test_statements_are_found_one_after_the_other_and_leave_pass():
    assert mutate_toy("self.push()", "") == (
        ["é = self.turn(key, hard=True); self.push()"], ["é = self.turn(key, hard=True); pass"])
    assert mutate_toy("self.push(); self.push()", "") == (
        ["é = self.turn(key, hard=True); self.push()", "self.push()"], ["é = self.turn(key, hard=True); pass"])


def test_statements_keep_their_place_when_several_lines_come():
    sources = {"house": TOY.replace("(key, hard=True); self.push()", "(key, hard=True)")}
    assert mutate_toy("self.push()", "a = 1\nb = 2", sources=sources) == (["self.push()"], ["a = 1", "b = 2"])


def test_expressions_arguments_and_handlers_are_found():
    assert mutate_toy("self.rooms", "[]") == (
        ["return [room for room in self.rooms if room.open]"], ["return [room for room in ([]) if room.open]"])
    assert mutate_toy("hard=True", "hard=False")[1] == ["é = self.turn(key, hard=False); self.push()"]
    assert mutate_toy("except OSError", "except KeyError") == (
        ["except OSError as error:"], ["except (KeyError) as error:"])


def test_dots_stand_for_anything():
    assert mutate_toy("self.turn(...)", "None")[1] == ["é = (None); self.push()"]
    assert mutate_toy("if key != 'right' or ...", "if False")[1] == ["if ((False)):"]
    assert mutate_toy("raise RuntimeError(...) from error", "raise")[1] == ["raise"]
    assert mutate_toy("raise RuntimeError(...)", "raise") is None           # it has a cause
    assert mutate_toy("if self.stuck: ...", "return 1", sources={"house": TOY.replace("elif", "if")}) == (
        ["if self.stuck:", "return None"], ["return 1"])


def test_only_its_own_function_is_searched():
    assert mutate_toy("return who if ... else None", "return who", "house.knock.answer") == (
        ["return who if who else None"], ["return who"])
    assert mutate_toy("self.push()", "", "house.knock") is None


@pytest.mark.parametrize("guard", [
    "if key == 'right'", "self.pull()", "hard=False", "except KeyError", "if self.push()",
])
def test_a_guard_that_is_gone_is_lost(guard, tmp_path):
    assert mutate_toy(guard, "if False") is None
    mutant = Mutant("house.Door.open", guard, "pass", "door", "open")
    assert run_mutant(mutant, tmp_path, {"house": TOY}, read_functions({"house": TOY})) == "lost"


def test_a_function_that_moved_is_found_by_its_name():
    elsewhere = {"garden": "x = 1\n", "cellar.doors": TOY}
    assert mutate_toy("self.push()", "", sources=elsewhere)
    renamed = {"cellar": TOY.replace("class Door", "class Gate")}
    assert mutate_toy("self.push()", "", sources=renamed)


def test_a_function_whose_name_is_not_its_own_is_not_guessed():
    gates = {"cellar": TOY.replace("class Door", "class Gate"), "attic": TOY.replace("class Door", "class Hatch")}
    assert mutate_toy("self.push()", "", sources=gates) is None
    assert mutate_toy("self.push()", "", sources=gates | {"roof": TOY})       # but Door.open is one
    assert mutate_toy("self.push()", "", "house.Door.close") is None


PASSES_WHEN_SHUT = "from door import is_shut\n\n\ndef test_shut():\n    assert is_shut(0)\n"


@pytest.mark.parametrize(("guard", "words", "fate"), [
    ("angle == 0", "shut", "caught"), ("print(...)", "shut", "survived"), ("angle == 0", "ajar", "lost"),
])
def test_a_mutant_is_caught_if_its_tests_fail_and_the_program_is_as_before(tmp_path, guard, words, fate):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_door.py").write_text(PASSES_WHEN_SHUT)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    source = "def is_shut(angle):\n    print(angle)\n    return angle == 0\n"
    (tmp_path / "door.py").write_text(source)
    sources = read_sources(tmp_path)
    assert sources == {"door": source}
    mutant = Mutant("door.is_shut", guard, "None", "door", words)
    assert run_mutant(mutant, tmp_path, sources, read_functions(sources)) == fate
    assert (tmp_path / "door.py").read_text() == source


def test_the_command_line_chooses_by_name_and_the_exit_status_tells(monkeypatch, capsys):
    fates = {"processing.a": "caught", "processing.b": "survived", "model.c": "lost"}
    monkeypatch.setattr(mutants, "MUTANTS", [Mutant(name, "f(x)", "", "files", "word") for name in fates])
    monkeypatch.setattr(mutants, "run_mutant", lambda mutant, *_: fates[mutant.function])
    monkeypatch.setattr(mutants.shutil, "copytree", lambda *_: None)
    for words, status, count in ((["a"], 0, "1 of 1"), (["processing"], 1, "1 of 2"), ([], 1, "1 of 3")):
        monkeypatch.setattr(mutants.sys, "argv", ["mutants", *words])
        assert mutants.main() == status
        assert f"{count} mutants caught" in capsys.readouterr().out
