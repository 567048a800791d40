import numpy as np
import pandas as pd
import pytest

from data.scorer import describe_match, describe_scores, read_pairs
from model.metrics import final_score
from processing import columns as c
from processing.errors import PipelineError


@pytest.fixture
def folders(tmp_path):
    """A truth of four eyes and four images, and a prediction with known mistakes, its rows in another order."""
    truth = {
        c.STAGE1: pd.DataFrame({
            "patient ID": ["1L", "2L", "3L", "4L"], "preCST": [200, 300, 400, 500], "VA": [0.1, 0.5, 1, 2],
            "continue injection": [0, 0, 1, 1], "CST": [200, 300, 400, 500], "IRF": [0, 0, 1, 1],
            "SRF": [0, 1, 0, 1], "HRF": [0, 1, 1, 1],
        }),
        c.STAGE2_PIC: pd.DataFrame({
            "image number": range(4), "patient ID": ["1L", "1L", "2L", "2L"],
            "injection": ["Pre injection", "Post injection"] * 2, "image name": list("wxyz"),
            "IRF": [0, 1, 0, 1], "SRF": [0, 0, 0, 1], "PED": [1, 0, 0, 0],
        }),
    }
    truth[c.STAGE2_CASE] = truth[c.STAGE1][["patient ID", "VA", "continue injection", "preCST", "CST"]]
    guess = {name: table.copy() for name, table in truth.items()}
    guess[c.STAGE1]["CST"] = [210, 350, 400, 500]
    guess[c.STAGE1]["IRF"] = [0.4, 0.3, 0.35, 0.9]
    for folder, tables in (("truth", truth), ("guess", guess)):
        (tmp_path / folder).mkdir()
        for name, table in tables.items():
            table.iloc[::-1 if folder == "guess" else 1].to_csv(tmp_path / folder / name, index=False)
    return tmp_path / "guess", tmp_path / "truth"


def score(submission, truth):
    return final_score(read_pairs(submission, truth)[0])


def test_a_submission_is_scored_row_by_row(folders):
    scores = score(*([folder] for folder in folders))
    assert len(scores) == 14
    assert scores[c.STAGE1, "CST"] == 0.75
    assert scores[c.STAGE1, "IRF"] == 0.75
    assert np.mean([score for key, score in scores.items() if key not in ((c.STAGE1, "CST"), (c.STAGE1, "IRF"))]) == 1


def test_the_line_says_the_error_in_um_and_the_scores(folders):
    line = describe_match(*folders)
    assert "off by 4 um" in line        # (10 + 50) / 16
    assert "CST 0.88" in line           # the mean of 0.75 and 1
    assert "PED 1.00" in line


def test_all_that_is_wrong_is_said_in_one_message_and_nothing_is_scored(folders):
    guess, truth = folders
    _change(guess / c.STAGE1, {(0, "preCST"): "thin", (1, "VA"): "", (2, "CST"): "-300", (3, "IRF"): "1.5"})
    _change(truth / c.STAGE1, {(0, "HRF"): "2", (1, "preCST"): "-200", (2, "patient ID"): "5L", (3, "VA"): "-0.5"})
    _change(guess / c.STAGE2_CASE, {(0, "patient ID"): "1L", (1, "VA"): "-0.1"})
    _change(truth / c.STAGE2_PIC, {(0, "image name"): "v", (1, "SRF"): "nan.5"})
    with pytest.raises(PipelineError) as caught:
        describe_scores([guess], [truth])
    message = str(caught.value)
    for file, wrong in (
        (guess / c.STAGE1, "row 2, preCST: 'thin'; a number is wanted"),
        (guess / c.STAGE1, "row 3, VA: ''; a number is wanted"),
        (guess / c.STAGE1, "row 4, CST: '-300'; 0 or more is wanted"),
        (guess / c.STAGE1, "row 5, IRF: '1.5'; a probability, 0 to 1, is wanted"),
        (truth / c.STAGE1, "row 2, HRF: '2'; 0 or 1 is wanted"),
        (truth / c.STAGE1, "row 3, preCST: '-200'; 0 or more is wanted"),
        (truth / c.STAGE1, "row 5, VA: '-0.5'; -0.3 or more is wanted"),
        (guess / c.STAGE1, f"1 rows of {truth / c.STAGE1} are missing: 5L"),
        (truth / c.STAGE1, f"1 rows of {guess / c.STAGE1} are missing: 3L"),
        (guess / c.STAGE2_CASE, "row 5, patient ID: '1L'; it stands in row 2 already"),
        (guess / c.STAGE2_CASE, "row 3, VA: '-0.1'; 0 or more is wanted"),
        (guess / c.STAGE2_CASE, f"1 rows of {truth / c.STAGE2_CASE} are missing: 4L"),
        (truth / c.STAGE2_PIC, "row 3, SRF: 'nan.5'; a number is wanted"),
        (truth / c.STAGE2_PIC, f"1 rows of {guess / c.STAGE2_PIC} are missing: 1L Pre injection w"),
    ):
        assert f"\n  {file}: {wrong}" in message
    assert "total" not in message


def _change(file, cells):
    """Put texts into (row, column) of a CSV file."""
    table = pd.read_csv(file, dtype=str)
    for (row, column), text in cells.items():
        table.loc[row, column] = text
    table.to_csv(file, index=False)


def test_single_files_of_any_name_are_recognised_by_their_columns(folders, tmp_path):
    guess, truth = folders
    (guess / c.STAGE2_CASE).rename(tmp_path / "mine.csv")
    scores = score([tmp_path / "mine.csv"], [truth])
    assert {file for file, _ in scores} == {c.STAGE2_CASE}
    report = describe_scores([tmp_path / "mine.csv"], [truth])
    assert "mean of 4 of the final round's 14 items" in report
    assert "total, final round" not in report
    assert f"{c.STAGE1} is not scored: not in both." in report
    with pytest.raises(PipelineError, match="no file in common"):
        score([tmp_path / "mine.csv"], [truth / c.STAGE1])
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PipelineError, match="notes.csv is no CSV file with the columns of a submission file"):
        score([tmp_path / "notes.csv"], [truth])
    with pytest.raises(PipelineError, match="submit.zip is an archive: unpack it"):
        (tmp_path / "submit.zip").write_bytes(b"PK")
        score([tmp_path / "submit.zip"], [truth])
    with pytest.raises(PipelineError, match="absent.csv is not there"):
        score([tmp_path / "absent.csv"], [truth])
    with pytest.raises(PipelineError, match=f"The submission has {c.STAGE1} twice"):
        score([guess, truth / c.STAGE1], [truth])
    with pytest.raises(PipelineError, match="An empty name was given for the truth"):
        score([guess], [""])
    with pytest.raises(PipelineError, match="empty holds no submission file and .*truth"):
        (tmp_path / "empty").mkdir()
        score([tmp_path / "empty"], [truth])
    (guess / c.STAGE1).rename(guess / c.STAGE1.upper())
    assert len(score([guess], [truth])) == 10        # stage2_case has become mine.csv


def test_a_truth_without_any_value_and_an_unreadable_file_are_said_once(folders):
    guess, truth = folders
    pd.read_csv(truth / c.STAGE2_CASE).assign(**dict.fromkeys(("VA", "continue injection", "preCST", "CST"))).to_csv(
        truth / c.STAGE2_CASE, index=False)
    with pytest.raises(PipelineError, match="(?s)no item of the truth is known.*empty cells do not count .preCST 4"):
        describe_scores([guess / c.STAGE2_CASE], [truth / c.STAGE2_CASE])
    (guess / c.STAGE1).write_text("")
    with pytest.raises(PipelineError) as caught:
        describe_scores([guess], [truth])
    faults = str(caught.value).splitlines()[1:]
    assert faults == [f"  {guess / c.STAGE1}: it is empty; a table with a header line is wanted"]


def test_both_rounds_are_reported(folders):
    report = describe_scores(*([folder] for folder in folders))
    assert "total, final round                            0.9643" in report     # (12 + 0.75 + 0.75) / 14
    assert report.splitlines()[-1].split() == ["points,", "preliminary", "round", "25", "of", "28"]


def test_truth_that_contradicts_itself_or_is_missing_does_not_count(folders):
    guess, truth = folders
    table = pd.read_csv(truth / c.STAGE2_PIC)
    again = table.assign(IRF=1 - table["IRF"]).iloc[:1]
    pd.concat([table, again, table.iloc[1:2]]).to_csv(truth / c.STAGE2_PIC, index=False)
    eyes = pd.read_csv(truth / c.STAGE1)
    eyes.loc[1, "CST"] = None                       # the one that the guess misses
    eyes.to_csv(truth / c.STAGE1, index=False)
    scores = score([guess], [truth])
    assert scores[c.STAGE1, "CST"] == 1
    assert scores[c.STAGE2_PIC, "IRF"] == 1
    report = describe_scores([guess], [truth])
    assert f"{truth / c.STAGE1}: empty cells do not count (CST 1)." in report
    assert f"{truth / c.STAGE2_PIC}: 2 rows contradict each other and do not count." in report


def test_a_truth_takes_what_real_annotation_tables_hold(folders):
    """Continue injection 6 counts as 1, as in training; NLP is a decimal acuity of 0; logMAR may be below 0."""
    guess, truth = folders
    _change(truth / c.STAGE1, {(2, "continue injection"): "6", (0, "VA"): "-0.1"})
    _change(guess / c.STAGE1, {(3, "VA"): "-0.1"})
    _change(truth / c.STAGE2_CASE, {(0, "VA"): "NLP"})
    _change(guess / c.STAGE2_CASE, {(3, "VA"): "0.04"})
    scores = score([guess], [truth])
    for item in ((c.STAGE1, "continue injection"), (c.STAGE1, "VA"), (c.STAGE2_CASE, "VA")):
        assert scores[item] == 1


@pytest.mark.parametrize(("name", "column"), [(c.STAGE1, "HRF"), (c.STAGE2_CASE, "CST"), (c.STAGE2_PIC, "IRF")])
def test_a_submission_that_lacks_a_column_is_refused_by_name(folders, name, column):
    """Not scored over what is left: the total of fewer items would look better."""
    truth, guess = folders
    file = guess / name
    pd.read_csv(file, dtype={"patient ID": str, "image name": str}).drop(columns=column).to_csv(file, index=False)
    with pytest.raises(PipelineError, match=rf"(?s)Nothing is scored.*{name}: {column}: the column is missing"):
        score([guess], [truth])
