"""The rules of the house, as tests: imports run down, README names every module, docstrings match signatures."""

import ast
import inspect
import re
import shlex
import subprocess
from importlib import import_module

import pytest

from tests.helpers import REPOSITORY, run_commands

FLOORS = ["config", "model_config", "processing", "model", "data", "main"]      # from the ground up
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
HOUSE = (REPOSITORY / "docs" / "house.md").read_text(encoding="utf-8")


def is_ours(path):
    return path.relative_to(REPOSITORY).parts[0].removesuffix(".py") in FLOORS


MODULES = sorted(path for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("*/**/*.py")] if is_ours(path))


def module_name(path):
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    return {name for name in imported(path) if name.split(".")[0] in FLOORS}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_down_only(path):
    floor = FLOORS.index(module_name(path).split(".")[0])
    for name in ours(path):
        assert FLOORS.index(name.split(".")[0]) <= floor, f"{module_name(path)} imports {name}"
        if name.startswith("processing.demo"):
            assert module_name(path).startswith(("processing.demo", "data.demonstration"))


def test_no_circle_of_imports():
    names = {module_name(path): path for path in MODULES}
    graph = {name: (ours(path) & names.keys()) - {name} for name, path in names.items()}
    done, order = set(), []
    while len(order) < len(graph):
        free = [name for name in graph if name not in done and graph[name] <= done]
        assert free, f"a circle among {sorted(set(graph) - done)}"
        order += free
        done |= set(free)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_the_tree_of_the_house_names_every_module(path):
    if path.name == "__init__.py" and module_name(path).count(".") == 0:
        return
    assert re.search(rf"^\s*{re.escape(path.name)} {{2,}}\w", HOUSE, re.MULTILINE), "it is not in the file tree"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_opens_with_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def public_functions():
    for path in MODULES:
        module = import_module(module_name(path))
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            elif inspect.isclass(value):
                methods = ((key, getattr(method, "__func__", method)) for key, method in vars(value).items())
                yield from (
                    (f"{module.__name__}.{name}.{key}", method)
                    for key, method in methods
                    if inspect.isfunction(method) and not key.startswith("_")
                )


NO_DOCSTRING = {"forward"}      # of layers: said by their class
OPTION_FUNCTIONS = {f"main.{name}" for name in (
    "processing_data", "train_image", "train_csv", "train_csv_and_image", "predict_before_after", "predict_all",
    "check_data", "import_data", "evaluate", "compare_runs", "demo", "measure",
    "export", "train_segmentation",
)}


def test_public_functions_have_docstrings_whose_arguments_are_those_of_the_signature():
    wrong = []
    for name, function in public_functions():
        text = inspect.getdoc(function) or ""
        if not text and name not in OPTION_FUNCTIONS and name.split(".")[-1] not in NO_DOCSTRING:
            wrong.append(f"{name} has no docstring")
        section = re.search(r"^Args:\n((?: +.*\n?|\n)+)", text, re.MULTILINE)
        if section:
            named = re.findall(r"^    ([\w, ]+):", section[1], re.MULTILINE)
            named = [argument for group in named for argument in re.split(r",\s*", group)]
            signature = set(inspect.signature(function).parameters) - {"self", "cls"}
            wrong += [f"{name}: {argument} is no argument" for argument in set(named) - signature]
            wrong += [f"{name}: {argument} is not explained" for argument in signature - set(named)]
    assert wrong == []


def untyped():
    """Parameters and return values of the public functions that have no annotation."""
    for name, function in public_functions():
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            if parameter.annotation is inspect.Parameter.empty and parameter.name not in ("self", "cls"):
                yield f"{name}: {parameter.name} has no type"
        if signature.return_annotation is inspect.Signature.empty:
            yield f"{name}: its return value has no type"


def test_public_functions_say_the_types_of_what_they_take_and_return():
    assert list(untyped()) == []


def test_the_folders_of_the_layout_stand_in_a_clone_each_with_a_note():
    folders = [
        "data/source/preliminary/Train_set", "data/source/preliminary/Test_set", "data/source/final/Train_Set",
        "data/source/final/Test_Set", "data/processed", "data/submit", "model/ckpt", "model/result",
    ]
    for folder in folders:
        assert (REPOSITORY / folder / "README.md").read_text(encoding="utf-8").strip()


def test_what_users_put_or_make_is_ignored_by_git(tmp_path):
    names = [
        "data/source/final/Train_Set/2L/Pre Injection OCT Images/1.jpg", "data/processed/img/train/1.jpg",
        "data/source/preliminary/TrainingAnnotation.csv", "data/processed/csv/train.csv",
        "data/submit/submit_stage1.csv",
        "model/ckpt/Model-CSV/202101010000/Model-CSV.pt", "model/result/202101010000/submit.zip", "demo/a",
        "model/error.log",
    ]
    answer = subprocess.run(["git", "check-ignore", *names], cwd=REPOSITORY, capture_output=True, text=True)
    if answer.returncode == 128:
        pytest.skip("not a git checkout")
    assert answer.stdout.splitlines() == names
    tracked = ["data/predict.py", "data/source/final/Train_Set/README.md", "model/ckpt/README.md"]
    assert subprocess.run(["git", "check-ignore", *tracked], cwd=REPOSITORY, capture_output=True).stdout == b""


def readme_commands():
    """The commands of the code blocks of README and of docs/tests.md, one by one."""
    texts = [README, (REPOSITORY / "docs" / "tests.md").read_text(encoding="utf-8")]
    blocks = [block for text in texts for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)]
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [line for line in lines if line.startswith(("python ", "pip "))]


IN_CI = {
    "pip install -r requirements.txt", "pip install -r requirements.txt -r tests/requirements.txt",
    "python main.py demo", "python -m pytest",
}


def test_readme_commands_are_run_here_or_in_ci():
    assert set(readme_commands()) >= IN_CI
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "pip install" in script and "-r requirements.txt -r tests/requirements.txt" in script
    assert "python main.py demo" in script and "python -m pytest" in script


def test_readme_commands_work(demo_copy):
    """In the README's order, on the demonstration; the menu gets q."""
    commands = [command for command in dict.fromkeys(readme_commands()) if command not in IN_CI]
    commands.sort(key=lambda command: command.split()[2:3] == ["4"])       # prediction wants finished runs
    assert len(commands) >= 4
    split = [shlex.split(command) for command in commands]
    assert all(words[:2] == ["python", "main.py"] for words in split)
    run_commands(*(words[2:] for words in split), root=demo_copy.root, typed="q\n")


def test_nothing_loads_pickles_freely_or_runs_text():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "os.system"), path
                if isinstance(node, ast.Call) and called == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), path
                if called == "torch.load":
                    assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
