import numpy as np
import pandas as pd
import pytest

from data.evaluate import describe_match, score_submission
from processing.errors import PipelineError
from processing.tables import STAGE1, STAGE2_CASE, STAGE2_PIC


@pytest.fixture
def folders(tmp_path):
    """A truth of four eyes and four images, and a prediction with known mistakes, its rows in another order."""
    truth = {
        STAGE1: pd.DataFrame({
            "patient ID": list("ABCD"), "preCST": [200, 300, 400, 500], "VA": [0.1, 0.5, 1, 2],
            "continue injection": [0, 0, 1, 1], "CST": [200, 300, 400, 500], "IRF": [0, 0, 1, 1],
            "SRF": [0, 1, 0, 1], "HRF": [0, 1, 1, 1],
        }),
        STAGE2_PIC: pd.DataFrame({
            "image number": range(4), "IRF": [0, 1, 0, 1], "SRF": [0, 0, 0, 1], "PED": [1, 0, 0, 0],
        }),
    }
    truth[STAGE2_CASE] = truth[STAGE1][["patient ID", "VA", "continue injection", "preCST", "CST"]]
    guess = {name: table.copy() for name, table in truth.items()}
    guess[STAGE1]["CST"] = [210, 350, 400, 500]
    guess[STAGE1]["IRF"] = [0.4, 0.3, 0.35, 0.9]
    for folder, tables in (("truth", truth), ("guess", guess)):
        (tmp_path / folder).mkdir()
        for name, table in tables.items():
            table.iloc[::-1 if folder == "guess" else 1].to_csv(tmp_path / folder / name, index=False)
    return tmp_path / "guess", tmp_path / "truth"


def test_a_submission_is_scored_row_by_row(folders):
    scores = score_submission(*folders)
    assert len(scores) == 14
    assert scores[STAGE1, "CST"] == 0.75
    assert scores[STAGE1, "IRF"] == 0.75
    assert np.mean([score for key, score in scores.items() if key not in ((STAGE1, "CST"), (STAGE1, "IRF"))]) == 1


def test_the_line_says_the_error_in_um_and_the_scores(folders):
    line = describe_match(*folders)
    assert "off by 4 um" in line        # (10 + 50) / 16
    assert "CST 0.88" in line           # the mean of 0.75 and 1
    assert "PED 1.00" in line


def test_rows_that_do_not_match_are_refused(folders):
    table = pd.read_csv(folders[0] / STAGE1)
    table.iloc[1:].to_csv(folders[0] / STAGE1, index=False)
    with pytest.raises(PipelineError, match="not of the same rows; D stands in one only"):
        score_submission(*folders)
