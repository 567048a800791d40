"""Do tables, images and submission templates speak of the same eyes, visits and images?

Reads the templates in data/submit; writes nothing.
"""

from processing import columns as c
from processing.check.kinds import find
from processing.check.tables import PIC_KEY, check_cells, read_image_keys
from processing.reader import read_header, text
from processing.tables import parse_patient, parse_visit

# The tables with one row per eye, and the images that are theirs: FINAL, DATA_TYPE
EYE_TABLES = {
    "annotation": (0, "train"), "preliminary_info": (0, "test"), "case": (1, "train"), "final_info": (1, "test"),
}
# The templates: FINAL, what options 4 and 5 read of them, and the columns of the submission
TEMPLATES = {
    "submit_stage1.csv": (0, {c.PATIENT: parse_patient}, [c.VA, c.PRE_CST, c.CONTINUE, c.CST, "IRF", "SRF", "HRF"]),
    "submit_stage2_case.csv": (1, {c.PATIENT: parse_patient}, [c.VA, c.PRE_CST, c.CONTINUE, c.CST]),
    "submit_stage2_pic.csv": (
        1,
        {c.IMAGE_NUMBER: text, c.PATIENT: parse_patient, c.INJECTION: parse_visit, c.IMAGE: text},
        ["IRF", "SRF", "PED"],
    ),
}


def check_eyes(paths, images, tables, files):
    """Hold the eyes of the images and of the tables against each other.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.
        tables: dict of a key of source.TABLE_FILES -> DataFrame of check_tables.
        files: dict of the same keys -> Path.

    Returns:
        list of Finding.
    """
    names = {key: paths.relative(file) for key, file in files.items()}
    found = _check_persons(images, tables, names)
    if images.empty:        # said once, not once an eye
        return found
    for key, (final, data_type) in EYE_TABLES.items():
        if c.PATIENT in tables.get(key, ()):
            own = images[(images[c.FINAL] == final) & (images[c.DATA_TYPE] == data_type)]
            found += _check_visits(names[key], tables[key], own)
            found += _unlabelled(own[~own[c.PATIENT].isin(tables[key][c.PATIENT])], names[key])
    if set(PIC_KEY) <= set(tables.get("pic", ())) and c.PATIENT in tables.get("case", ()):
        own = images[(images[c.FINAL] == 1) & (images[c.DATA_TYPE] == "train")]
        found += _check_pic(names["pic"], tables["pic"], own, tables["case"][c.PATIENT])
    return found


def _check_visits(name, table, images):
    """Eyes of a table that lack images of one visit or of both."""
    found = []
    visits = images.groupby(c.PATIENT)[c.AFTER].agg(set)
    for row, eye in table[c.PATIENT].dropna().items():
        seen = visits.get(eye, set())
        if not seen:
            found.append(find("eye-without-images", name, eye, row=row, column=c.PATIENT))
        elif len(seen) == 1:
            lacking = "before" if 1 in seen else "after"
            detail = f"none {lacking} treatment"
            found.append(find("visit-missing", name, eye, row=row, column=c.PATIENT, detail=detail))
    return found


def _unlabelled(images, table_name):
    return [find("image-unlabelled", source, eye, column=c.PATIENT, detail=f"not in {table_name}")
            for source, eye in zip(images[c.SOURCE], images[c.PATIENT], strict=True)]


def _check_pic(name, pic, images, case_eyes):
    """Images of the final round against the rows of their findings."""
    labelled, there = read_image_keys(pic), read_image_keys(images)
    known, wanted = set(there.values()), set(labelled.values())
    lacking = images.loc[[row for row, key in there.items() if key not in wanted]]
    found = _unlabelled(lacking[lacking[c.PATIENT].isin(case_eyes)], name)
    return found + [find("label-without-image", name, ", ".join(key), row=row, column=c.IMAGE)
                    for row, key in labelled.items() if key not in known]


def _check_persons(images, tables, names):
    """Test eyes that are training eyes too, or whose person's other eye is."""
    places = {"train": {}, "test": {}}      # eye -> where it stands: file, row
    for key, (_, data_type) in EYE_TABLES.items():
        if c.PATIENT in tables.get(key, ()):
            for row, eye in tables[key][c.PATIENT].dropna().items():
                places[data_type].setdefault(eye, (names[key], row))
    for eye, data_type, source in zip(images[c.PATIENT], images[c.DATA_TYPE], images[c.SOURCE], strict=True):
        places[data_type].setdefault(eye, (source, None))
    training = {}                           # person: the ID without the eye's letter -> a place
    for eye, place in places["train"].items():
        training.setdefault(eye.rstrip("LR"), (eye, place))
    found = []
    for eye, (name, row) in places["test"].items():
        other, place = training.get(eye.rstrip("LR"), (None, None))
        if other:
            same = eye in places["train"]
            where = places["train"][eye] if same else place
            detail = f"{eye if same else other} is in {where[0]}" + (f", row {where[1]}" if where[1] else "")
            kind = "eye-in-both" if same else "person-in-both"
            found.append(find(kind, name, eye, row=row, column=c.PATIENT, detail=detail))
    return found


def check_templates(paths, images, tables):
    """Check the submission templates, and that they ask for the test eyes and images that are there.

    Args:
        paths: config.Paths.
        images, tables: as for check_eyes.

    Returns:
        list of Finding.
    """
    found = []
    test = images[images[c.DATA_TYPE] == "test"]
    for file_name, (final, parsers, answers) in TEMPLATES.items():
        file = paths.submit / file_name
        name = paths.relative(file)
        if not file.is_file():
            found.append(find("template-missing", name))
            continue
        unique = [c.IMAGE_NUMBER] if c.IMAGE_NUMBER in parsers else [c.PATIENT]
        table, _, faults = check_cells(name, file, parsers, unique=unique, known=answers)
        found += faults
        header = {column.lower() for column in read_header(file)}
        found += [find("template-column", name, column=column) for column in answers if column.lower() not in header]
        own = test[test[c.FINAL] == final]
        if c.PATIENT in table:
            info = tables.get("final_info" if final else "preliminary_info", own)
            eyes = set(own[c.PATIENT]) | set(info.get(c.PATIENT, own[c.PATIENT]).dropna())
            found += _check_asked_eyes(name, table, eyes)
        if set(PIC_KEY) <= set(table) and len(own):
            found += _check_asked_images(name, table, own)
    return found


def _check_asked_eyes(name, table, eyes):
    first = table[c.PATIENT].dropna().drop_duplicates()
    found = [find("template-eye-unknown", name, eye, row=row, column=c.PATIENT)
             for row, eye in first.items() if eye not in eyes]
    missing = sorted(eyes - set(first))
    return found + [find("template-eye-missing", name, eye, column=c.PATIENT) for eye in missing]


def _check_asked_images(name, table, images):
    there, asked = read_image_keys(images), read_image_keys(table)
    known, wanted = set(there.values()), set(asked.values())
    found = [find("template-image-unknown", name, ", ".join(key), row=row, column=c.IMAGE)
             for row, key in asked.items() if key not in known]
    return found + [find("template-image-missing", images[c.SOURCE][row], ", ".join(key), detail=f"not in {name}")
                    for row, key in there.items() if key not in wanted]
