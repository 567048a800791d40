"""Configs and their flags: each field is declared once, and refused with its value in the message."""

import json
from dataclasses import MISSING, asdict, fields, replace

import pytest

import main
from config import VIEWS
from model_config import CSV_RECIPES, IMAGE_MODELS, IMAGE_RECIPES, ConfigError, CSVConfig, ImageConfig
from processing import flags

IMAGE, CSV = IMAGE_MODELS[0], CSVConfig()
NEW = {"views": ("bscan",), "pool": "image", "augment": "none", "normalise": "none", "schedule": "constant",
       "weight_decay": 0.0}


def read_help(option, capsys):
    """The help of an option in one line."""
    with pytest.raises(SystemExit):
        main.main([option, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("option", "prefixes"), [
    ("1", {"": ImageConfig}), ("2", {"": CSVConfig}), ("3", {"csv-": CSVConfig, "image-": ImageConfig})])
def test_the_help_of_a_training_shows_every_field_once(option, prefixes, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    shown = read_help(option, capsys)
    for prefix, kind in prefixes.items():
        for name, field in flags.flag_fields(kind).items():
            flag = f"--{prefix}{name.replace('_', '-')}"
            assert shown.count(f" {flag} ") == 1
            assert f"{field.metadata['help']} ({field.metadata['rule'].wanted})" in shown
    assert "--name" not in shown and "--visit" not in shown and "--target" not in shown


def test_shared_flags_are_those_that_both_kinds_have(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    shown = read_help("3", capsys)
    for flag in ("--epochs", "--learning-rate", "--batch-size", "--seed", "--recipe", "--fold", "--device"):
        assert f" {flag} " in shown
    for flag in ("--init-from", "--workers", "--precision", "--views"):
        assert f" {flag} " not in shown


@pytest.mark.parametrize("kind", [ImageConfig, CSVConfig])
def test_every_field_is_declared_with_rule_help_and_a_value_that_it_may_have(kind):
    for field in fields(kind):
        assert field.metadata["help"] and field.metadata["rule"].wanted
        assert field.default is MISSING or field.metadata["rule"].holds(field.default)


def test_flags_give_every_field_its_value():
    arguments = main.build_parser().parse_args([
        "1", "--views", "bscan", "fundus", "--pool", "visit", "--augment", "mild", "--normalise", "image",
        "--schedule", "cosine", "--weight-decay", "1e-4", "--epochs", "3", "--precision", "bf16", "--fold", "all",
        "--models", IMAGE.name,
    ])
    config, = flags.build_image_configs(arguments)
    assert (config.views, config.pool, config.augment) == (("bscan", "fundus"), "visit", "mild")
    assert (config.normalise, config.schedule, config.weight_decay) == ("image", "cosine", 1e-4)
    assert config == replace(IMAGE, epochs=3, precision="bf16", fold="all",
                             **{name: getattr(config, name) for name in NEW})


def test_without_flags_configs_are_those_of_model_config():
    arguments = main.build_parser().parse_args(["3"])
    assert flags.build_image_configs(arguments, "image_") == IMAGE_MODELS
    assert flags.build_csv_config(arguments, "csv_") == CSV


def test_what_came_after_2021_is_off():
    assert {name: getattr(IMAGE.settle(), name) for name in NEW} == NEW
    assert IMAGE.settle().precision == "float32"


def test_what_is_left_to_the_recipe_is_as_it_has_it_and_what_is_said_stays():
    left = replace(IMAGE, recipe="pretrained", schedule="constant", weight_decay=0.0)
    config = left.settle()
    assert (config.views, config.pool, config.augment) == (("bscan_full",), "visit", "scan")
    assert (config.schedule, config.weight_decay, config.precision) == ("constant", 0, "card")
    assert config.settle() == config and left.views == ("auto",)
    assert replace(IMAGE, views=("fundus",), pool="visit").settle().views == ("fundus",)


@pytest.mark.parametrize("value", [("nonsense",), ("bscan", "bscan"), ("auto", "bscan"), (), "bscan", None,
                                   (["bscan"],), {"bscan"}])
def test_views_are_a_tuple_of_names_none_twice(value):
    with pytest.raises(ConfigError) as caught:
        replace(IMAGE, views=value)
    assert f"views is {value!r}; it must be one or more of bscan, fundus" in str(caught.value)


def test_views_come_back_from_json_as_they_were():
    config = replace(IMAGE, views=("fundus", "bscan"))
    assert ImageConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_a_new_view_is_one_entry(monkeypatch):
    monkeypatch.setitem(VIEWS, "rim", VIEWS["bscan"])
    assert replace(IMAGE, views=("rim",)).views == ("rim",)


@pytest.mark.parametrize(("config", "field", "value", "wanted"), [
    (IMAGE, "epochs", 0, "a whole number, 1 or more"),
    (IMAGE, "epochs", True, "a whole number, 1 or more"),
    (CSV, "epochs", 2.0, "a whole number, 1 or more"),
    (CSV, "learning_rate", float("nan"), "a number above 0"),
    (IMAGE, "learning_rate", 0, "a number above 0"),
    (CSV, "batch_size", "3", "a whole number, 1 or more"),
    (CSV, "seed", 2**32, "a whole number, 0 to 2**32 - 1"),
    (IMAGE, "recipe", ["seed"], "one of seed, fixed, resnet, measured, best, pretrained"),
    (IMAGE, "recipe", "trees", "one of seed, fixed, resnet, measured, best, pretrained"),
    (IMAGE, "trunk", "resnet 18", "the name of a model, as convnext_tiny"),
    (IMAGE, "seeds", 0, "a whole number, 1 or more"),
    (CSV, "recipe", "resnet", "one of seed, fixed, best"),
    (IMAGE, "fold", 0, "one of none, all, 0, 1, 2, 3, 4"),
    (CSV, "device", "cuda:x", "one of auto, cuda, mps, cpu, or cuda:<number>"),
    (IMAGE, "workers", -2, "a whole number, -1 or more"),
    (IMAGE, "precision", "fp16", "one of auto, float32, bf16, card"),
    (IMAGE, "visit", "never", "one of before, after, all"),
    (IMAGE, "target", "cst", "one of preCST, CST"),
    (IMAGE, "name", "a/b", "a plain folder name"),
    (CSV, "name", " ", "a plain folder name"),
    (IMAGE, "init_from", None, "a path as text, or empty"),
    (IMAGE, "pool", 1, "one of auto, image, visit"),
    (IMAGE, "weight_decay", -1e-9, "a number, 0 or more"),
    (IMAGE, "weight_decay", "0", "a number, 0 or more"),
])
def test_a_bad_value_is_refused_with_the_value_in_the_message(config, field, value, wanted):
    with pytest.raises(ConfigError) as caught:
        replace(config, **{field: value})
    assert str(caught.value) == f"{type(config).__name__}: {field} is {value!r}; it must be {wanted}."


def test_good_values_are_taken():
    config = replace(IMAGE, device="cuda:1", learning_rate=1, weight_decay=0, seed=2**32 - 1, workers=0)
    assert config.device == "cuda:1"


def test_recipes_of_both_kinds_are_one_kind_of_value():
    for recipe in (*IMAGE_RECIPES.values(), *CSV_RECIPES.values()):
        assert recipe.model and recipe.help
    assert replace(IMAGE, recipe="resnet").recipe_of().backbone == "residual"
    assert not replace(CSV, recipe="best").recipe_of().has_epochs


def test_a_recipe_without_epochs_takes_nothing_to_start_from():
    with pytest.raises(ConfigError, match="CSVConfig: init_from is 'x'; it must be empty for the recipe best."):
        replace(CSV, recipe="best", init_from="x")
