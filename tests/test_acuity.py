import numpy as np
import pytest

from processing.acuity import LEAST_DECIMAL, convert_va, parse_decimal_va, to_decimal, to_logmar
from processing.reader import CellError


def test_acuity_is_converted_between_the_rounds_units():
    assert convert_va([0.1, 1.0], [1, 1], 0) == pytest.approx([1.0, 0.0])
    assert convert_va([1.0, 0.3], [0, 1], 1) == pytest.approx([0.1, 0.3])
    assert convert_va([1.0, 0.3], 0, 0).tolist() == [1.0, 0.3]


def test_what_is_darker_than_hand_motion_has_its_logmar_and_missing_stays_missing():
    assert to_logmar([LEAST_DECIMAL, 0.001, 0.0]) == pytest.approx([2.301] * 3, abs=1e-3)
    assert np.isnan(to_logmar([np.nan])).all() and np.isnan(to_decimal([np.nan])).all()
    assert to_logmar(to_decimal([0.0, 0.5, 2.3])) == pytest.approx([0.0, 0.5, 2.3])


def test_no_light_perception_is_decimal_0_in_any_case():
    assert [parse_decimal_va(cell) for cell in ("NLP", "nlp", "0.5")] == [0.0, 0.0, 0.5]
    assert np.isnan(parse_decimal_va(""))
    with pytest.raises(CellError):
        parse_decimal_va("HM")
