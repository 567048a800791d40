from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import columns as c
from processing.errors import PipelineError
from processing.source import find_set_folders, find_tables, parse_name, read_image_rows


def put(paths, *names):
    for name in names:
        file = paths.source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "patient", "after"),
    [
        ("TrainingSet/0000-0001/0000-0001L_1000.jpg", "0000-0001L", 0),
        ("0000-0163/0000-0163R_2 (1).jpg", "0000-0163R", 1),
        ("0000-0075/0000-0075L_1_000012.jpg", "0000-0075L", 0),
        ("0000-0715/0000-0715R_1_012.jpg", "0000-0715R", 0),
        ("0000-0742/0000-0742R_2.jpg", "0000-0742R", 1),
        ("0000-0001l_2031.JPG", "0000-0001L", 1),
    ],
)
def test_preliminary_names(name, patient, after):
    row = parse_name(Path(name), "preliminary")
    assert (row[c.PATIENT], row[c.AFTER], row[c.FINAL]) == (patient, after, 0)
    assert row[c.SIDE] == int(patient.endswith("R"))
    assert row[c.INJECTION] == (c.POST if after else c.PRE)
    assert row[c.IMAGE] == Path(name).stem


@pytest.mark.parametrize("image", ["35 (13)", "127. (16)", "139- 1_000012", "10", "334_001009"])
@pytest.mark.parametrize(("folder", "after"), [("Pre Injection OCT Images", 0), ("post injection OCT images", 1)])
def test_final_names(image, folder, after):
    row = parse_name(Path("deeper", "600L", folder, f"{image}.jpg"), "final")
    assert row == {c.PATIENT: "600L", c.SIDE: 0, c.FINAL: 1, c.AFTER: after, c.INJECTION: c.POST if after else c.PRE,
                   c.IMAGE: image}


@pytest.mark.parametrize(
    ("name", "round_name"),
    [
        ("0000-0001_1000.jpg", "preliminary"),
        ("0000-0001L_3000.jpg", "preliminary"),
        ("0000-0001L.jpg", "preliminary"),
        ("600L/35.jpg", "final"),
        ("600L/Other/35.jpg", "final"),
        ("600/Pre Injection OCT Images/35.jpg", "final"),
    ],
)
def test_names_that_follow_no_rule(name, round_name):
    assert parse_name(Path(name), round_name) is None


@given(st.integers(0, 9999), st.sampled_from("LR"), st.sampled_from("12"), st.text("0123456789_ ()", max_size=8))
def test_any_preliminary_name_gives_back_its_parts(person, eye, visit, index):
    row = parse_name(Path(f"0000-{person:04d}{eye}_{visit}{index}.jpg"), "preliminary")
    assert row[c.PATIENT] == f"0000-{person:04d}{eye}"
    assert row[c.AFTER] == int(visit) - 1


def test_rows_are_sorted_and_their_paths_relative_with_forward_slashes(paths):
    put(
        paths,
        "preliminary/Train_set/TrainingSet/0000-0002/0000-0002R_2001.PNG",
        "preliminary/Test_set/x/0000-0001L_1000.jpeg",
        "final/TRAIN_SET/7R/Pre Injection OCT Images/35 (1).jpg",
    )
    rows, problems = read_image_rows(paths)
    assert problems == []
    assert [row[c.SOURCE] for row in rows] == [
        "data/source/final/TRAIN_SET/7R/Pre Injection OCT Images/35 (1).jpg",
        "data/source/preliminary/Test_set/x/0000-0001L_1000.jpeg",
        "data/source/preliminary/Train_set/TrainingSet/0000-0002/0000-0002R_2001.PNG",
    ]
    assert [row[c.DATA_TYPE] for row in rows] == ["train", "test", "train"]
    assert rows[0][c.PROCESSED] == "data/processed/img/train/7R_1_0_1_35 (1).jpg"
    assert rows[1][c.PROCESSED] == "data/processed/img/test/0000-0001L_0_0_0_0000-0001L_1000.jpg"


def test_other_files_hidden_files_and_the_excluded_scans_are_left_out(paths):
    put(
        paths,
        "preliminary/Train_set/README.md",
        "preliminary/Train_set/._0000-0001L_1000.jpg",
        "preliminary/Train_set/__MACOSX/0000-0001L_1000.jpg",
        "preliminary/Train_set/0000-1270/0000-1270R_2.jpg",
    )
    assert read_image_rows(paths) == ([], [])


def test_an_unruly_name_and_a_second_copy_are_named_as_problems(paths):
    put(
        paths,
        "preliminary/Train_set/a/0000-0001L_1000.jpg",
        "preliminary/Train_set/b/0000-0001L_1000.JPG",
        "preliminary/Train_set/notes.jpg",
    )
    rows, problems = read_image_rows(paths)
    assert len(rows) == 1
    assert {(Path(source).name, reason.split(" ")[0]) for source, reason in problems} == {
        ("notes.jpg", "its"), ("0000-0001L_1000.JPG", "same"),
    }


def test_linked_folders_are_entered_and_loops_of_links_end(paths, tmp_path):
    put(paths, "preliminary/Train_set/0000-0001/0000-0001L_1000.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0000-0002L_1000.jpg").touch()
    inside = paths.source / "preliminary" / "Train_set"
    (inside / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (inside / "loop").symlink_to(inside, target_is_directory=True)
    rows, problems = read_image_rows(paths)
    assert [row[c.PATIENT] for row in rows] == ["0000-0001L", "0000-0002L"]
    assert problems == []       # else images met again, on the loop


def test_set_folders_in_any_case(paths):
    put(paths, "Final/Test_Set/a", "final/test_set/a", "preliminary/train_SET/a", "other/Train_set/a")
    found = {(round_name, data_type) for round_name, data_type, _ in find_set_folders(paths.source)}
    assert found == {("final", "test"), ("preliminary", "train")}
    assert len(find_set_folders(paths.source)) == 3


def test_tables_are_found_anywhere_by_either_name(paths):
    put(paths, "preliminary/deep/train_anno_stage1.csv", "final/Train_Set/Train_Anno_Case.csv", "final/test_info.csv")
    found = {table: file.name for table, file in find_tables(paths.source).items()}
    assert found == {
        "annotation": "train_anno_stage1.csv", "case": "Train_Anno_Case.csv", "final_info": "test_info.csv"
    }


def test_a_table_twice_with_different_content_is_refused(paths):
    put(paths, "final/a/test_info.csv", "final/b/test_info_stage2.csv")
    assert set(find_tables(paths.source)) == {"final_info"}
    (paths.source / "final/b/test_info_stage2.csv").write_bytes(b"other")
    with pytest.raises(PipelineError, match="different content; keep one"):
        find_tables(paths.source)
