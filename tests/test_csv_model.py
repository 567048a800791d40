"""CSVNetwork: what it learns, and what it says of an eye of which not all is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from model.csv_model import CSVNetwork
from model.means import fit_case_means
from model_config import CSVConfig
from processing import columns as c
from processing.errors import PipelineError
from tests.toys import CPU, Recorder, make_cases


def train_cases(cases, held_out=None, **values):
    config = CSVConfig(**values)
    torch.manual_seed(0)
    model, recorder = CSVNetwork(CSVNetwork.specify(config, cases), CPU), Recorder(config)
    model.fit(cases, recorder, None, held_out=cases.head(0) if held_out is None else held_out)
    return model, recorder.losses


def test_the_csv_model_learns():
    cases = make_cases(64)
    model, losses = train_cases(cases, recipe="fixed", epochs=300, batch_size=32, learning_rate=3e-3)
    assert losses[-1]["loss"] < 0.2 * losses[0]["loss"]
    predicted = model.predict(cases)
    assert ((predicted[c.CONTINUE] > 0.5) == (cases[c.CONTINUE] == 1)).mean() > 0.9
    assert np.abs(predicted[c.VA] - cases[c.VA]).mean() < 0.15


@pytest.mark.parametrize("count", [1, 9, 10, 11, 21])
def test_batches_are_fixed_and_the_last_partial_one_is_left_out(count):
    """Of the cases in the 2021 system's order: those left out are the last ones of it."""
    from sklearn.utils import resample

    cases = make_cases(count)
    _, losses = train_cases(cases, epochs=2, batch_size=10)
    order = resample(cases, replace=False, random_state=2021)[c.PATIENT]
    unseen = cases[c.PATIENT].isin(order.iloc[count // 10 * 10:] if count >= 10 else [])
    spoiled = cases.assign(VA=cases[c.VA].mask(unseen, 9e9))
    assert train_cases(spoiled, epochs=2, batch_size=10)[1] == losses
    assert unseen.sum() == (count % 10 if count > 10 else 0)


def test_the_losses_of_an_epoch_are_means_over_the_eyes_and_those_held_out_change_nothing():
    cases, how = make_cases(20), {"epochs": 2, "batch_size": 5, "learning_rate": 1e-12}
    model, losses = train_cases(cases, held_out=cases, **how)
    for name in ("loss", "loss VA", "loss continue injection"):
        assert losses[0][f"held-out {name}"] == pytest.approx(losses[0][name], rel=1e-5)
    alone, _ = train_cases(cases, **how)
    for name, value in alone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("count", [0, 1, 250])
def test_eyes_are_predicted_whatever_their_number(count):
    cases = make_cases(count)
    model = CSVNetwork({}, CPU)
    torch.nn.init.constant_(model.module.regression[-1].bias, -5)
    predicted = model.predict(cases)
    assert predicted.shape == (count, 2)
    assert (predicted[c.VA] == 0).all()
    assert predicted[c.CONTINUE].between(0, 1).all()
    assert predicted.index.equals(cases.index)


@pytest.mark.parametrize("as_index", [False, True])
def test_what_is_not_known_of_an_eye_takes_the_mean_of_its_round(as_index):
    first, second = make_cases(6).assign(final=0), make_cases(6, seed=1)
    cases = pd.concat([first, second], ignore_index=True)
    model = CSVNetwork(CSVNetwork.specify(CSVConfig(), cases), CPU)
    assert model.means == fit_case_means(cases)
    for parameter in model.module.parameters():
        torch.nn.init.uniform_(parameter, 0, 0.1)       # each feature changes the answer
    eyes = make_cases(4, seed=2).assign(final=[0, 1, 1, 0])
    holes, filled = eyes.copy(), eyes.copy()
    for row, (column, source) in {0: (c.CST, first), 2: ("preIRF", second), 3: (c.PRE_VA, first)}.items():
        holes.loc[row, column], filled.loc[row, column] = np.nan, source[column].mean()
    if as_index:
        holes, filled = holes.set_index(c.PATIENT), filled.set_index(c.PATIENT)
    pd.testing.assert_frame_equal(model.predict(holes), model.predict(filled))
    swapped = model.predict(holes.assign(final=1 - holes[c.FINAL]))
    assert (swapped[c.VA] != model.predict(filled)[c.VA]).tolist() == [True, False, True, True]


def test_without_means_an_eye_of_which_something_is_not_known_is_refused():
    cases = make_cases(3)
    model = CSVNetwork({}, CPU)                     # the published one carries none
    assert model.means == {}
    model.predict(cases)
    cases.loc[1, c.CST] = np.nan
    with pytest.raises(PipelineError, match="does not carry the means of its training data"):
        model.predict(cases)


@pytest.mark.parametrize("as_index", [False, True])
def test_an_infinite_feature_is_named_by_eye_and_column(as_index):
    cases = make_cases(3)
    cases.loc[1, c.CST] = np.inf
    with pytest.raises(PipelineError, match="1L: CST is inf"):
        CSVNetwork({}, CPU).predict(cases.set_index(c.PATIENT) if as_index else cases)


def test_a_model_is_built_again_from_its_specification():
    cases = make_cases(8)
    model, _ = train_cases(cases, recipe="fixed", epochs=2, batch_size=4)
    again = CSVNetwork(model.specification, CPU)
    again.load_state_dict(model.state_dict())
    assert again.specification == model.specification
    pd.testing.assert_frame_equal(again.predict(cases), model.predict(cases))
    assert again.describe() == "CSVNetwork of 16 features, heads logits"
