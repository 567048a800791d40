import numpy as np
import pandas as pd
import pytest

from processing import columns as c
from processing import tables as t
from processing.errors import PipelineError
from processing.reader import number, read_table
from tests.helpers import read_filled


def reader(table):
    return lambda file: read_filled(file, table)


read_annotation, read_info, read_case, read_pic = map(reader, ("annotation", "final_info", "case", "pic"))
CASE_HEADER = "patient ID,gender,age,diagnosis,anti-VEGF,preVA,preCST,VA,CST,continue injection\n"


def write(folder, text, name="table.csv", encoding="utf-8"):
    file = folder / name
    file.write_text(text, encoding=encoding)
    return file


def annotation(*rows):
    columns = [c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.PRE_VA, c.DRUG, c.PRE_CST, *c.PRE_FINDINGS, c.VA,
               c.CONTINUE, c.CST, *c.FINDINGS]
    return ",".join(columns) + "\n" + "".join(row + "\n" for row in rows)


def test_texts_of_the_final_round_become_the_codes(tmp_path):
    drugs = ["Avastin", "Razumab", "Accentrix", "Eylea", "Tricort", "Ozurdex", "Ozrudex", "Pagenax"]
    diagnoses = ["CNVM", "PCV", "DME", "RVO", "CME", "CNVM", "CNVM", "CNVM"]
    genders = ["Male", "Male ", "Female", "male", "Female", "Female", "Male", "Male"]
    rows = zip(range(8), genders, diagnoses, drugs, strict=True)
    text = CASE_HEADER + "".join(f"{i}L,{g},60,{d},{v},0.5,300,0.5,250,1\n" for i, g, d, v in rows)
    table = read_case(write(tmp_path, text))
    assert table[c.DRUG].tolist() == [1, 2, 2, 3, 5, 10, 10, 0]
    assert table[c.DIAGNOSIS].tolist() == [1, 2, 3, 4, 5, 1, 1, 1]
    assert table[c.GENDER].tolist() == [1, 1, 2, 1, 2, 2, 1, 1]


def test_no_light_perception_is_decimal_0(tmp_path):
    table = read_case(write(tmp_path, CASE_HEADER + "1L,Male,60,DME,Avastin,NLP,300,0.5,250,1\n"))
    assert table[c.PRE_VA].tolist() == [0.0]


def test_all_faults_of_a_table_are_named_by_row_column_and_value(tmp_path):
    text = CASE_HEADER + (
        "1L,Male,60,DME,Avastin,0.5,300,0.5,250,1\n"
        "2L,Mann,sixty,DME,Avastin,0.5,300,0.5,250,1\n"
        "\n"
        "1l,Male,60,XYZ,Avastin,0.5,inf,0.5,250,1\n"
    )
    with pytest.raises(PipelineError) as caught:
        read_case(write(tmp_path, text))
    message = str(caught.value)
    for part in ("table.csv", "row 3, gender: 'Mann'", "row 3, age: 'sixty'", "row 5, diagnosis: 'XYZ'",
                 "CNVM, PCV, DME", "row 5, preCST: 'inf'", "row 5, patient ID: '1L'; it stands in row 2 already"):
        assert part in message


@pytest.mark.parametrize(("cell", "column"), [("7", c.DIAGNOSIS), ("3", c.GENDER), ("7", c.DRUG), ("", c.GENDER)])
def test_a_category_that_the_code_table_lacks_is_an_error(tmp_path, cell, column):
    cells = {c.GENDER: "1", c.DIAGNOSIS: "1", c.DRUG: "1"} | {column: cell}
    row = f"0000-0001L,{cells[c.GENDER]},60,{cells[c.DIAGNOSIS]},0.5,{cells[c.DRUG]},300,0,0,0,0,0.5,1,250,0,0,0,0"
    with pytest.raises(PipelineError, match=f"row 2, {column}: '{cell}'"):
        read_annotation(write(tmp_path, annotation(row)))


def test_missing_measures_take_the_mean_and_missing_answers_0(tmp_path):
    table = read_annotation(write(tmp_path, annotation(
        "0000-0001L,1,60,1,0.2,1,200,1,1,1,1,0.5,6,300,1,1,1,1",
        "0000-0002L,2,70,6,0.4,0,400,0,0,0,0,0.7,-1,500,0,0,0,0",
        "0000-0003L,2,80,9,nan,9,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan",
    )))
    last = table.iloc[2]
    assert last[[c.PRE_VA, c.PRE_CST, c.VA, c.CST]].tolist() == pytest.approx([0.3, 300, 0.6, 400])
    assert last[[*c.PRE_FINDINGS, *c.FINDINGS, c.CONTINUE]].tolist() == [0] * 9
    assert table[c.CONTINUE].tolist() == [1, 0, 0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_tables_in_the_encodings_that_users_have(tmp_path, encoding):
    text = CASE_HEADER.replace("\n", ",备注\r\n") + "1L,Male,60,DME,Avastin,0.5,300,0.5,250,1,好\r\n"
    assert read_case(write(tmp_path, text, encoding=encoding))[c.PATIENT].tolist() == ["1L"]


@pytest.mark.parametrize(("content", "kind"), [
    (b"PK\x03\x04rest", "a workbook"), (b"\xd0\xcf\x11\xe0rest", "a workbook"), (b"\r\n<!DOCTYPE html>", "a web page"),
    (b"<HTML>", "a web page"), (b"\x1f\x8brest", "compressed"), (b"%PDF-1.7", "a PDF file"),
    (b"patient ID\0\0\0,gender", "not text"), (b"patient ID,\xff\xff", "not text"),
])
def test_what_is_no_table_is_called_what_it_is(tmp_path, content, kind):
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=f"it is {kind}"):
        read_info(file)


def test_what_looks_alike_is_alike(tmp_path):
    """Marks that cannot be seen and characters of full width, in a header, an ID and a code."""
    header = "\ufeff\ufeffpatient\u00a0ID,gen\u200bder,age,diagnosis,anti-VEGF,preVA\n"
    rows = "\u202a０００１２ｌ\u200b,Male,60,ＤＭＥ,Avastin,\u20600.5\u00ad\n"
    table = read_info(write(tmp_path, header + rows))
    assert table[[c.PATIENT, c.AGE, c.DIAGNOSIS, c.PRE_VA]].values.tolist() == [["00012L", 60, 3, 0.5]]


@pytest.mark.parametrize("cell", ["Total", "mean of all", "0001", "L", "1-L", "0001 L", "patient ID"])
def test_a_line_that_is_no_eyes_is_refused(tmp_path, cell):
    text = "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n1L,Male,60,DME,Avastin,0.5\n"
    with pytest.raises(PipelineError, match=f"row 3, patient ID: '{cell}'; a patient ID ends in a digit and L or R"):
        read_info(write(tmp_path, text + cell + ",Male,60,DME,Avastin,0.5\n"))


def test_commas_and_points_within_numbers_are_ambiguous(tmp_path):
    text = CASE_HEADER + "1L,Male,60,DME,Avastin,0.5,312.5,0.5,250,1\n2L,Male,60,DME,Avastin,0.5,1|436,0.5,250,1\n"
    with pytest.raises(PipelineError, match=r"a comma in row 3, preCST: '1,436', a point in row 2, preVA: '0.5'"):
        read_case(write(tmp_path, text.replace(",", ";").replace("|", ",")))


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;\r", "\ufeffsep=;", "sep=|"])
def test_the_separator_that_the_first_line_says(tmp_path, first):
    header = "patient ID;gender;age;diagnosis;anti-VEGF;preVA\n"
    text = f"{first}\n{header}1L;Male;60;DME;Avastin;0.5\n2L;Male;old;DME;Avastin;0.5\n"
    with pytest.raises(PipelineError) as caught:
        read_info(write(tmp_path, text.replace(";", "|") if "|" in first else text))
    assert str(caught.value).splitlines()[1:] == ["  row 4, age: 'old'; a number is wanted"]


def test_missing_columns_an_empty_file_and_odd_rows_are_named(tmp_path):
    with pytest.raises(PipelineError) as caught:
        read_info(write(tmp_path, "patient ID,gender,age\n1L,Male,old\n"))
    for part in ("diagnosis: the column is missing", "anti-VEGF: the", "preVA: the", "row 2, age: 'old'; a number"):
        assert part in str(caught.value)
    with pytest.raises(PipelineError, match="age: the column is there 2 times"):
        read_info(write(tmp_path, "patient ID,gender,age,Age,diagnosis,anti-VEGF,preVA\n"))
    with pytest.raises(PipelineError, match="is empty"):
        read_info(write(tmp_path, "\n"))
    with pytest.raises(PipelineError, match="row 2: it has 2 cells, the header has 6"):
        read_info(write(tmp_path, "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n1L,Male\n"))
    with pytest.raises(PipelineError, match="cannot be read"):
        read_info(tmp_path / "absent.csv")


def test_an_open_quotation_mark_does_not_swallow_rows(tmp_path):
    header = "patient ID,gender,age,diagnosis,anti-VEGF,preVA,note\n"
    text = header + '1L,Male,60,DME,Avastin,0.5,"a\n2L,Male,60,DME,Avastin,0.5,b\n'
    with pytest.raises(PipelineError, match="a quotation mark in row 2 is never closed"):
        read_info(write(tmp_path, text))
    closed = text.replace('"a\n', '"a" ,\n')       # odd, but nothing is lost
    assert len(read_info(write(tmp_path, closed))) == 2


def test_blank_lines_before_the_header_do_not_decide_the_separator(tmp_path):
    text = " \n,\npatient ID;gender;age;diagnosis;anti-VEGF;preVA\n1L;Male;60;DME;Avastin;5,0e-01\n"
    assert read_info(write(tmp_path, text.replace("\n,\n", "\n")))[c.PRE_VA].tolist() == [0.5]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_spreadsheets_export_them(tmp_path, separator):
    """Any separator, decimal commas beside semicolons, columns in another order, one more, empty ones at the end."""
    lines = ["note,preVA,Age,Gender,anti-VEGF,Diagnosis,Patient ID,,", "x,0.25,60,Male,Avastin,DME,0012L,,", ",,,,,,,,"]
    rows = [line.replace(",", separator) for line in lines]
    if separator == ";":
        rows = [row.replace("0.25", "0,25") for row in rows]
    table = read_info(write(tmp_path, "\r\n".join(rows)))
    assert table[[c.PATIENT, c.AGE, c.PRE_VA, c.DIAGNOSIS]].values.tolist() == [["0012L", 60, 0.25, 3]]


def image_rows(*rows):
    """Rows of image_data.csv from (patient, final, after, image, data_type)."""
    columns = [c.PATIENT, c.FINAL, c.AFTER, c.IMAGE, c.DATA_TYPE]
    images = pd.DataFrame(rows, columns=columns)
    images[c.SIDE] = images[c.PATIENT].str.endswith("R").astype(int)
    images[c.INJECTION] = np.where(images[c.AFTER] == 1, c.POST, c.PRE)
    images[c.PROCESSED] = images[c.SOURCE] = images[c.IMAGE]
    return images[c.IMAGE_COLUMNS]


def two_rounds(tmp_path):
    """A training table of one preliminary eye (2 + 1 images) and one final eye, hand-made."""
    images = image_rows(
        ("0000-0001L", 0, 0, "a", "train"), ("0000-0001L", 0, 0, "b", "train"), ("0000-0001L", 0, 1, "c", "train"),
        ("7R", 1, 0, "d", "train"), ("7R", 1, 1, "e", "train"), ("7R", 1, 1, "unlabelled", "train"),
        ("0000-0009L", 0, 0, "f", "train"),
        ("8R", 1, 0, "g", "test"),
    )
    row = "0000-0001L,1,60,1,0.2,1,200,1,0,1,0,0.5,1,300,0,1,0,1"
    eyes = read_annotation(write(tmp_path, annotation(row)))
    case = read_case(write(tmp_path, CASE_HEADER + "7R,Female,50,PCV,Eylea,0.25,350,0.5,260,0\n", "case.csv"))
    pic = read_pic(write(
        tmp_path,
        "patient ID,injection,image name,IRF,SRF,PED,HRF\n7R,Pre injection,d,1,1,0,0\n7R,Post injection,e,0,0,1,1\n"
        "7R,Post injection,e,1,0,1,1\n7R,Post injection,no image,0,0,0,0\n",
        "pic.csv",
    ))
    return images, t.build_train_table(images, annotation=eyes, case=case, pic=pic)


def test_train_table_gives_each_image_the_findings_of_its_visit(tmp_path):
    _, train = two_rounds(tmp_path)
    assert train.columns.tolist() == c.TRAIN_COLUMNS
    findings = {name: rows[c.FINDINGS].to_numpy().tolist() for name, rows in train.groupby(c.IMAGE)}
    assert findings == {
        "a": [[1, 0, 1, 0]], "b": [[1, 0, 1, 0]], "c": [[0, 1, 0, 1]],
        "d": [[1, 1, 0, 0]], "e": [[0, 0, 1, 1], [1, 0, 1, 1]],      # labelled twice: both rows stay
    }
    assert train[train[c.PATIENT] == "7R"][[c.DIAGNOSIS, c.DRUG, c.CST]].drop_duplicates().values.tolist() == [
        [2, 3, 260]
    ]


def test_case_table_takes_means_over_the_images_of_each_visit(tmp_path):
    _, train = two_rounds(tmp_path)
    cases = t.build_case_table(train).set_index(c.PATIENT)
    assert cases.columns.tolist() == [c.FINAL, *c.CSV_FEATURES, c.VA, c.CONTINUE]
    assert cases.loc["0000-0001L", c.CSV_FEATURES].tolist() == [1, 60, 1, 1, 0, 0.2, 200, 1, 0, 1, 0, 300, 0, 1, 0, 1]
    assert cases.loc["7R", [*c.PRE_FINDINGS, *c.FINDINGS]].tolist() == [1, 1, 0, 0, 0.5, 0, 1, 1]


def test_an_eye_without_one_visit_makes_no_case(tmp_path):
    _, train = two_rounds(tmp_path)
    cases = t.build_case_table(train[~((train[c.PATIENT] == "7R") & (train[c.AFTER] == 1))])
    assert cases[c.PATIENT].tolist() == ["0000-0001L"]


def test_test_table_holds_only_test_images(tmp_path):
    images, _ = two_rounds(tmp_path)
    header = "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n"
    info = read_info(write(tmp_path, header + "8R,Male,55,DME,Avastin,0.25\n"))
    test = t.build_test_table(images, final=info)
    assert test.columns.tolist() == c.TEST_COLUMNS
    assert test[[c.PATIENT, c.IMAGE, c.DIAGNOSIS, c.FINAL]].values.tolist() == [["8R", "g", 3, 1]]


def test_names_that_look_like_numbers_stay_text(tmp_path):
    file = write(tmp_path, "patient ID,injection,image name,IRF,SRF,PED,HRF\n7R,Pre injection,0012,1,1,0,0\n")
    assert read_pic(file)[c.IMAGE].tolist() == ["0012"]
    processed = image_rows(("7R", 1, 0, "0012", "train"), ("7R", 1, 0, "NA", "train"))
    processed.to_csv(tmp_path / "image_data.csv", index=False)
    assert t.read_processed(tmp_path / "image_data.csv", c.IMAGE_COLUMNS)[c.IMAGE].tolist() == ["0012", "NA"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("garbage\n1\n", "lacks patient ID, L0R1"),
        ("", "cannot be read"),
        (",".join(c.IMAGE_COLUMNS) + "\n7R,right,1,0,Pre,a,b,c,train\n", "text where numbers belong, in L0R1"),
    ],
)
def test_a_processed_table_that_was_damaged_by_hand_is_refused(tmp_path, content, message):
    file = write(tmp_path, content, "image_data.csv")
    with pytest.raises(PipelineError, match=rf"(?s){message}.*Option 0 \(processing_data\) makes it anew"):
        t.read_processed(file, c.IMAGE_COLUMNS)


def test_a_column_without_any_value_is_refused(tmp_path):
    row = "0000-0001L,1,60,1,0.2,1,200,1,0,1,0,0.5,1,nan,0,1,0,1"
    with pytest.raises(PipelineError, match="(?s)table.csv cannot be used.*CST: the column has no value at all"):
        read_annotation(write(tmp_path, annotation(row)))


def test_a_table_without_rows_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="it has a header and no rows"):
        read_case(write(tmp_path, CASE_HEADER))


def test_codes_that_a_spreadsheet_wrote_as_1_0_are_read(tmp_path):
    row = "0000-0001L,1.0,60,6.0,0.2,0.0,200,1,0,1,0,0.5,1,300,0,1,0,1"
    table = read_annotation(write(tmp_path, annotation(row)))
    assert table[[c.GENDER, c.DIAGNOSIS, c.DRUG]].values.tolist() == [[1, 6, 0]]


def test_an_endless_quote_is_a_fault_not_a_crash(tmp_path):
    text = CASE_HEADER + '1L,"Male' + "x" * 140_000 + "\n"
    with pytest.raises(PipelineError, match="it is no table"):
        read_case(write(tmp_path, text))


def test_an_optional_column_that_the_file_lacks_holds_nothing(tmp_path):
    file, parsers = write(tmp_path, "a,b\n1,2\n"), {"a": number, "c": number, "b": number}
    table = read_table(file, parsers, optional=["c"])
    assert table.columns.tolist() == ["a", "c", "b"]
    assert table["c"].isna().all() and table["b"].tolist() == [2]
    with pytest.raises(PipelineError, match="c: the column is missing; there are a, b"):
        read_table(file, parsers)
    with pytest.raises(PipelineError, match="a: the column is there 2 times"):
        read_table(write(tmp_path, "a,A,b\n1,1,2\n"), parsers, optional=["a", "c"])
