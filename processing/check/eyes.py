"""Do tables, images and submission templates speak of the same eyes, visits and images?

Reads the templates in data/submit; writes nothing.
"""

import pandas as pd

from config import Paths
from processing import columns as c
from processing.check.kinds import Finding, find
from processing.check.tables import PIC_KEY, check_cells, read_image_keys
from processing.reader import read_header
from processing.tables import EYE_TABLES, TEMPLATE_PARSERS


def check_eyes(paths: Paths, images: pd.DataFrame, tables: dict, files: dict) -> list[Finding]:
    """Hold the eyes of the images and of the tables against each other.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.
        tables: by the keys of source.TABLE_FILES, DataFrames of check_tables.
        files: by the same keys, their paths.

    Returns:
        eyes in both sets, eyes without images, images without labels, labels without images.
    """
    names = {key: paths.relative(file) for key, file in files.items()}
    found = _check_persons(images, tables, names)
    if images.empty:        # said once, not once an eye
        return found
    for key, (final, data_type) in EYE_TABLES.items():
        if c.PATIENT in tables.get(key, ()):
            own = images[(images[c.FINAL] == final) & (images[c.DATA_TYPE] == data_type)]
            found += _check_visits(names[key], tables[key], own)
            found += _find_unlabelled(own[~own[c.PATIENT].isin(tables[key][c.PATIENT])], names[key])
    if set(PIC_KEY) <= set(tables.get("pic", ())) and c.PATIENT in tables.get("case", ()):
        own = images[(images[c.FINAL] == 1) & (images[c.DATA_TYPE] == "train")]
        unknown, left = _match_images(tables["pic"], own)
        found += [find("label-without-image", names["pic"], key, row=row, column=c.IMAGE)
                  for row, key in unknown.items()]
        own = own.loc[list(left)]
        found += _find_unlabelled(own[own[c.PATIENT].isin(tables["case"][c.PATIENT])], names["pic"])
    return found


def _check_persons(images, tables, names):
    """Test eyes that are training eyes too, or whose person's other eye is."""
    places = {"train": {}, "test": {}}      # eye -> where it stands: file, row
    for key, (_, data_type) in EYE_TABLES.items():
        if c.PATIENT in tables.get(key, ()):
            for row, eye in tables[key][c.PATIENT].dropna().items():
                places[data_type].setdefault(eye, (names[key], row))
    for eye, data_type, source in zip(images[c.PATIENT], images[c.DATA_TYPE], images[c.SOURCE], strict=True):
        places[data_type].setdefault(eye, (source, None))
    training = {}                           # person -> an eye of theirs
    for eye in places["train"]:
        training.setdefault(c.person_of(eye), eye)
    found = []
    for eye, (name, row) in places["test"].items():
        same = eye in places["train"]
        other = eye if same else training.get(c.person_of(eye))
        if other:
            file, place = places["train"][other]
            detail = f"{other} is in {file}" + (f", row {place}" if place else "")
            found.append(find("eye-in-both" if same else "person-in-both", name, eye, row=row, column=c.PATIENT,
                              detail=detail))
    return found


def _check_visits(name, table, images):
    """Eyes of a table that lack images of one visit or of both."""
    found, visits = [], images.groupby(c.PATIENT)[c.AFTER].agg(set)
    for row, eye in table[c.PATIENT].dropna().items():
        seen = visits.get(eye, set())
        if not seen:
            found.append(find("eye-without-images", name, eye, row=row, column=c.PATIENT))
        elif len(seen) == 1:
            detail = f"none {'before' if 1 in seen else 'after'} treatment"
            found.append(find("visit-missing", name, eye, row=row, column=c.PATIENT, detail=detail))
    return found


def _find_unlabelled(images, table_name):
    return [find("image-unlabelled", source, eye, column=c.PATIENT, detail=f"not in {table_name}")
            for source, eye in zip(images[c.SOURCE], images[c.PATIENT], strict=True)]


def _match_images(table, images):
    """By their rows, what only the table names of images, and what only the images do: patient, visit, name as text."""
    asked, there = ({row: ", ".join(key) for row, key in read_image_keys(part).items()} for part in (table, images))
    known, wanted = set(there.values()), set(asked.values())
    return ({row: key for row, key in asked.items() if key not in known},
            {row: key for row, key in there.items() if key not in wanted})


def check_templates(paths: Paths, images: pd.DataFrame, tables: dict) -> list[Finding]:
    """Check the submission templates, and that they ask for the test eyes and images that are there.

    Args:
        paths: config.Paths.
        images, tables: as for check_eyes.

    Returns:
        absent templates, faults in them, and eyes and images that only they or only the data have.
    """
    found = []
    for file_name, parsers in TEMPLATE_PARSERS.items():
        file, name = paths.submit / file_name, paths.relative(paths.submit / file_name)
        if not file.is_file():
            found.append(find("template-missing", name))
            continue
        final = int(file_name != c.STAGE1)
        own = images[(images[c.DATA_TYPE] == "test") & (images[c.FINAL] == final)]
        header = read_header(file)
        table, _, faults = check_cells(name, file, parsers, unique=[*parsers][:1], known=header)
        found += faults + _check_header(file_name, name, header)
        if c.PATIENT in table:
            info = tables.get("final_info" if final else "preliminary_info", own)
            eyes = set(own[c.PATIENT]) | set(info.get(c.PATIENT, own[c.PATIENT]).dropna())
            asked = table[c.PATIENT].dropna().drop_duplicates()
            found += [find("template-eye-unknown", name, eye, row=row, column=c.PATIENT)
                      for row, eye in asked.items() if eye not in eyes]
            found += [find("template-eye-missing", name, eye, column=c.PATIENT) for eye in sorted(eyes - set(asked))]
        if set(PIC_KEY) <= set(table) and len(own):
            unknown, left = _match_images(table, own)
            found += [find("template-image-unknown", name, key, row=row, column=c.IMAGE)
                      for row, key in unknown.items()]
            found += [find("template-image-missing", images[c.SOURCE][row], key, detail=f"not in {name}")
                      for row, key in left.items()]
    return found


def _check_header(file_name, name, header):
    """Columns that a template lacks, and those that options 4 and 5 cannot answer."""
    keys = [column.lower() for column in TEMPLATE_PARSERS[file_name]]
    answered = {column.lower() for column in c.TEMPLATE_ANSWERS[file_name]}
    there = [column.lower() for column in header]
    found = [find("template-column", name, column=column) for column in c.TEMPLATE_COLUMNS[file_name]
             if column.lower() not in [*there, *keys]]
    found += [find("template-extra", name, column=column) for column, lowered in zip(header, there, strict=True)
              if lowered not in keys and (lowered not in answered or there.count(lowered) > 1)]
    return found + ([find("template-empty", name)] if there and set(there) <= set(keys) else [])
