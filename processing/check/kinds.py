"""What the data check can find: every kind with its severity, why it matters and what the pipeline does.

Reads and writes nothing.
"""

from typing import NamedTuple

from processing.source import printable

STOPS, WARNS, NOTES = "stops", "warns", "notes"
SEVERITIES = (STOPS, WARNS, NOTES)      # worst first


class Finding(NamedTuple):
    """One thing found; what does not apply is "" or None."""

    severity: str           # stops, warns or notes
    kind: str               # a key of KINDS
    file: str               # relative to the root, forward slashes
    row: int | None         # as in an editor: the header is row 1
    column: str
    value: str
    why: str                # why it matters
    action: str             # what the pipeline will do


class Kind(NamedTuple):
    """What all findings of a kind share."""

    severity: str
    why: str
    action: str


_REFUSED = "option 0 (of a template: options 4 and 5) refuses the table; correct it and run again"
_REMAKE = "training and prediction refuse it; option 0 makes it anew"
_KEPT = "is used as it stands"
_UNUSED = "is not read"
_SKIPPED = "option 0 leaves the image out and lists it in problems.csv"

KINDS = {
    # Files and columns
    "folder-unlistable": Kind(STOPS, "what lies in it is unknown", "option 0 stops; give permission to read it"),
    "no-images": Kind(STOPS, "there is nothing to cut and train on", "option 0 stops and says where images belong"),
    "table-missing": Kind(STOPS, "its images have no labels or clinical row", "option 0 stops and asks for it"),
    "table-contradicts": Kind(STOPS, "nobody knows which of them is right", "option 0 stops; keep one"),
    "table-unreadable": Kind(STOPS, "it is no table", _REFUSED),
    "column-missing": Kind(STOPS, "a stage needs this column, once", _REFUSED),
    "column-extra": Kind(NOTES, "no stage knows this column", _UNUSED),
    "template-column": Kind(NOTES, "the template lacks a column of the competition's", "is not submitted"),
    "template-extra": Kind(STOPS, "no model answers this column, or it is there twice", "options 4 and 5 refuse the "
                           "template; take the column out"),
    "template-empty": Kind(STOPS, "it has no column to be answered", "options 4 and 5 refuse the template"),
    "table-unused": Kind(NOTES, "no image needs this table", _UNUSED),
    "set-absent": Kind(NOTES, "this part of the data set has no images", "is left out"),
    "file-unread": Kind(WARNS, "it looks like a part of the data", "is not read; option 0 lists it in problems.csv"),
    "file-unused": Kind(NOTES, "it is neither a table nor an image of a set", _UNUSED),
    "template-missing": Kind(NOTES, "the rows to submit are not given", "the test images decide the rows"),
    # Cells that a table cannot hold
    "row-odd": Kind(STOPS, "the cells cannot be told apart", _REFUSED),
    "category-unknown": Kind(STOPS, "the code table lacks it", _REFUSED),
    "number-wanted": Kind(STOPS, "this column holds numbers", _REFUSED),
    "key-missing": Kind(STOPS, "the row belongs to nobody", _REFUSED),
    "row-doubled": Kind(STOPS, "one of the rows is wrong", _REFUSED),
    "column-empty": Kind(STOPS, "not one value is there to take the mean of", _REFUSED),
    # Values
    "measure-missing": Kind(WARNS, "no value", "takes the column's mean over the table"),
    "answer-missing": Kind(WARNS, "no value", "counts as 0"),
    "age-implausible": Kind(WARNS, "no such age in years", _KEPT),
    "cst-implausible": Kind(WARNS, "thinner than 100 or thicker than 1,500 um is no retina: a slip", _KEPT),
    "va-implausible": Kind(WARNS, "outside the chart of this round's unit", _KEPT),
    "unit-doubtful": Kind(WARNS, "logMAR and decimal acuity run in opposite directions", _KEPT),
    "continue-odd": Kind(WARNS, "0 or 1 is wanted", "is clipped to 0-1"),
    "answer-odd": Kind(WARNS, "0 or 1 is wanted", _KEPT),
    "va-nlp": Kind(WARNS, "no light perception has no place on the decimal chart", "counts as 0"),
    "va-float32": Kind(NOTES, "typed as a 32-bit float; a short decimal is meant", _KEPT),
    "cell-blank": Kind(NOTES, "blanks at the ends of a cell", "are stripped"),
    "labels-doubled": Kind(WARNS, "one image has two rows", "both rows stay: the image counts twice"),
    "labels-contradict": Kind(WARNS, "one image has two rows with different labels",
                              "both rows stay: the image is trained on with both"),
    # Eyes
    "eye-without-images": Kind(WARNS, "a row without pictures teaches nothing",
                               "a training eye is not used; a test eye takes training means"),
    "visit-missing": Kind(WARNS, "the eye has images of one visit only",
                          "a training eye is left out of Model-CSV; a test eye takes training means"),
    "image-unlabelled": Kind(WARNS, "the tables have no row for it", "is cut, but neither trained on nor predicted"),
    "label-without-image": Kind(WARNS, "a label whose picture is not there", "the row is not used"),
    "set-misnamed": Kind(WARNS, "its folder says the other set than the table that lists its eye", "the table decides"),
    "eye-in-both": Kind(WARNS, "the eye is in training and in test: its score would be remembered, not predicted",
                        "is trained on and predicted"),
    "person-in-both": Kind(NOTES, "the person's other eye is in training: the sets are not independent",
                           "is trained on and predicted"),
    "template-eye-unknown": Kind(WARNS, "the template asks for an eye that is no test eye", "takes training means"),
    "template-eye-missing": Kind(WARNS, "the template does not ask for this test eye", "is not submitted"),
    "template-image-unknown": Kind(WARNS, "the template asks for an image that is not there",
                                   "takes the mean over the eye's visit"),
    "template-image-missing": Kind(WARNS, "the template does not ask for this test image", "is not submitted"),
    # Images
    "name-unknown": Kind(WARNS, "nobody knows whose image it is", _SKIPPED),
    "image-excluded": Kind(NOTES, "a scan known to be faulty (config.EXCLUDED_IMAGES)", "is left out"),
    "image-unreadable": Kind(WARNS, "it cannot be cropped", _SKIPPED),
    "image-empty": Kind(WARNS, "the B-scan shows no retina", _KEPT),
    "retina-missing": Kind(WARNS, "option 11 found no retina in the B-scan", _KEPT),
    "retina-cut": Kind(WARNS, "the retina leaves the B-scan at the top; how thick it is there is not known", _KEPT),
    "lines-unread": Kind(STOPS, "another version of the program made it, or it is damaged",
                         "what needs it refuses it; option 0 reads the screens anew"),
    "lines-unknown": Kind(NOTES, "where the scan lies on the retina cannot be read from the screen", _KEPT),
    "counter-differs": Kind(NOTES, "the screen's counter shows another line than its green lines", _KEPT),
    "visit-off-fovea": Kind(WARNS, "no scan of the visit passes near the fovea, where thickness is asked for", _KEPT),
    "visit-place-unknown": Kind(NOTES, "whether any scan of the visit passes near the fovea is not known", _KEPT),
    "measures-broken": Kind(WARNS, "it is no table of option 11", "option 11 measures all scans anew"),
    "image-identical": Kind(WARNS, "two names, one picture", _KEPT),
    "screen-odd": Kind(WARNS, "the crop box may miss the B-scan",
                       "is cropped as it is; what lies outside the screen is black; option 0 lists it in problems.csv"),
    "bscan-coloured": Kind(WARNS, "the B-scan has colours; no device of this data set makes such",
                           "is turned grey (ITU-R BT.601)"),
    "screen-narrow": Kind(NOTES, "a screen with a 512-pixel B-scan", "the crop is padded with black on the right"),
    # What option 0 made
    "processed-missing": Kind(STOPS, "option 0 did not finish", _REMAKE),
    "processed-broken": Kind(STOPS, "it is no table of option 0", _REMAKE),
    "processed-column": Kind(STOPS, "a stage needs this column", _REMAKE),
    "processed-number": Kind(STOPS, "no finite number", _REMAKE),
    "crop-missing": Kind(STOPS, "a table names this crop", _REMAKE),
    "crop-unreadable": Kind(STOPS, "a table names this crop", "training and prediction refuse it; delete the file "
                            "and run option 0"),
    "crop-size": Kind(STOPS, "the models want crops of the box's size", "training and prediction refuse it; delete the "
                      "file and run option 0"),
    "crop-box": Kind(WARNS, "it was cut with another box or not at all", "training and prediction cut it from its "
                     "screen each time: slower; option 0 cuts it anew"),
    "crop-stale": Kind(NOTES, "there is no crop of the image as it is now", "training and prediction know nothing of "
                       "it; option 0 cuts it"),
    "crop-unused": Kind(NOTES, "no table names this crop", _UNUSED),
    "source-gone": Kind(NOTES, "the screen of this crop is no longer there", "is used until option 0 runs again"),
}


def find(
    kind: str, file: str, value: object = "", *, row: int | None = None, column: str = "", detail: str = ""
) -> Finding:
    """A Finding of a kind of KINDS.

    Args:
        kind: key of KINDS.
        file: relative to the root, forward slashes.
        value: what is wrong, as it stands there.
        row: as in an editor, or None.
        column: name, or "".
        detail: what is to be said of this one before the kind's reason.

    Returns:
        Finding.
    """
    severity, why, action = KINDS[kind]
    why = f"{detail}; {why}" if detail else why
    return Finding(severity, kind, printable(file), row, column, printable(str(value)), why, action)
