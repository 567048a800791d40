"""Remove each guard in turn and see its test fail.

    python -m tests.mutants             all of them, one line each
    python -m tests.mutants run files   those whose function's full name holds one of the words

A mutant is a copy of the program with one guard taken out; it is caught when the named tests fail on it. The copy
lies in a temporary folder. The exit status is 1 if a mutant survives, or a guard is no longer where the list says.

Guards are found by function and by syntax tree: line breaks, quotation marks and comments do not matter, nor does the
file once the function has moved, as long as its name is its own. A guard is the first in its function that reads like
    if a < b            the condition of an `if` or `elif`; "if False" in its place
    except OSError      what a handler catches
    f(x); g()           statements one after the other; "" in their place leaves `pass`
    x.y or z            an expression, anywhere
    strict=True         an argument of a call
where `...` stands for any expression, f(...) for a call with any arguments and `if a: ...` for an `if` with any body.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from tests.helpers import REPOSITORY

COPIED = ("config.py", "model_config.py", "main.py", "README.md", "pyproject.toml", "processing", "model", "data", "tests")
PROGRAM = ("*.py", "processing/**/*.py", "model/**/*.py", "data/**/*.py")


class Mutant(NamedTuple):
    function: str       # module and name of the function that the guard stands in
    guard: str
    instead: str        # what is put in its place
    tests: str          # the tests that must fail: file,
    words: str          # and words of their names


MUTANTS = list(starmap(Mutant, [
    ("processing.files.replace_file", "insist(_sync, temporary)", "", "files", "fsync"),
    ("processing.files.replace_file", "insist(os.replace, temporary, path)", "path.write_bytes(temporary.read_bytes())", "files", "replace"),
    ("processing.files.replace_file", "insist(temporary.unlink)", "", "files", "failed_write"),
    ("processing.files._report_refusal", "PipelineError", "ValueError", "files", "failed_write"),
    ("processing.files.new_timed_folder", "shutil.rmtree(...)", "", "files", "leaves_nothing"),
    ("processing.files.make_timed_folder", "insist(os.makedirs, folder)", "insist(os.makedirs, folder, 0o777, True)", "files", "made_at_once"),
    ("processing.images.decode_image", "if width * height > MAX_PIXELS", "if False", "images", "giant"),
    ("processing.images.decode_image", "if b'Exif\\0\\0' in data and ...", "if False", "data_factory", "rotation"),
    ("processing.images.crop_image", "if part.size == 0", "if False", "images", "whatever_the_image"),
    ("processing.images._imdecode", "if image is None", "if False", "images", "truncated"),
    ("processing.images._decode_strictly", "strict=True", "strict=False", "images", "damage_within"),
    ("processing.images.read_size", "raise ImageError('cannot be decoded: damaged, or neither JPEG nor PNG')", "return 1, 1", "images", "other_formats"),
    ("processing.images.find_grey", "return grey if ... else None", "return grey", "images", "coloured"),
    ("processing.views.check_views", "if not whole or not ...", "if False", "data_factory", "cannot_be_cut"),
    ("processing.views.ViewReader.check", "if screens", "if False", "views", "said_before_a_long_stage"),
    ("processing.views.ViewReader.check", "if crops", "if False", "training", "missing_crops"),
    ("processing.crops._describe_crop", "state.st_mtime_ns", "0", "data_factory", "without_changing_its_size"),
    ("processing.crops._describe_source", "state.st_mtime_ns", "0", "data_factory", "source_that_changed"),
    ("processing.source._find_name_fault", "if name != printable(name)", "if False", "data_factory", "no_table_can_hold"),
    ("processing.source._find_name_fault", "if len(within.name.encode()) > MAX_NAME_BYTES", "if False", "data_factory", "no_table_can_hold"),
    ("processing.source._find_name_fault", "if data_type is None", "if False", "data_factory", "none_is_usable"),
    ("processing.source._find_name_fault", "str(within)", "__file__ + os.fsdecode(b'\\xd6')", "data_factory", "own_path"),
    ("processing.source.read_image_rows", "sets.get(...) or _name_set(within)", "_name_set(within)", "data_factory", "decides_its_set"),
    ("processing.source._walk", "map(os.path.realpath, sets)", "()", "source", "rows_are_sorted"),
    ("processing.source.explain_unread_file", "if name.split('.')[0] in TABLE_STEMS", "if False", "importer", "named_with_the_reason"),
    ("processing.source._explain_unread", "if name in map(str.lower, c.SUBMISSION_COLUMNS)", "if False", "data_factory", "looks_like_data"),
    ("processing.source._explain_unread", "if name.endswith('.zip')", "if False", "data_factory", "looks_like_data"),
    ("processing.tables.read_sets", "len(found) == 1", "found", "data_factory", "both_sets"),
    ("processing.data_factory._read_annotations", "_show_examples(others, paths)", "[]", "data_factory", "workbook"),
    ("processing.files.write_text", "text.encode('utf-8', 'backslashreplace')", "text.encode('utf-8')", "files", "not_utf8"),
    ("processing.source.find_files", "if real in entered", "if False", "source", "loops"),
    ("processing.source._drop_clashes", "if first is not row", "if False", "source", "second_copy"),
    ("processing.source.find_tables", "if _read_bytes(other) != content", "if False", "source", "twice"),
    ("processing.tables.parse_patient", 'if not re.fullmatch(r".*[0-9][LR]", patient)', "if False", "tables", "no_eyes"),
    ("processing.reader._replace_decimal_commas", "if comma and point", "if False", "tables", "ambiguous"),
    ("processing.reader._decode", "if known", "if False", "tables", "called_what"),
    ("processing.reader._decode", 'if "\\0" not in content.partition(...)[0]', "if True", "tables", "called_what"),
    ("processing.reader.code.parse", "if cell.lower() not in lowered", "if False", "tables", "category"),
    ("processing.reader.number", "if not np.isfinite(value)", "if False", "tables", "all_faults"),
    ("processing.reader._find_repeated_rows", "if earlier != row and None not in key", "if False", "tables", "all_faults"),
    ("processing.reader._read_cells", "if len(cells) == len(header)", "if True", "tables", "odd_rows"),
    ("processing.reader.read_lines", "if rows.pop() != [_END]", "if rows.pop() is None", "tables", "quotation_mark"),
    ("processing.reader._find_columns", "if count == 0", "if False", "tables", "missing_columns"),
    ("processing.tables.fill_missing", "if empty", "if False", "tables", "without_any_value"),
    ("processing.tables.read_processed", "if absent", "if False", "tables", "damaged_by_hand"),
    ("processing.acuity.parse_decimal_va", "0.0", "1.0", "tables", "light_perception"),
    ("processing.data_factory.processing_data", "if strict and listed", "if False", "data_factory", "strict"),
    ("processing.data_factory.processing_data", "if images.empty", "if False", "data_factory", "no_image_is_usable"),
    ("processing.data_factory.processing_data", "check_views(views)", "", "data_factory", "cannot_be_cut"),
    ("processing.importer.import_data", "if not (plan.new or plan.already_there)", "if False", "importer", "without_any_file"),
    ("processing.importer._choose_way", "item.kind == IMAGES", "True", "importer", "copies_so_that"),
    ("processing.importer._place_file", "linking.insist(os.link, item.entry.path, target)", "insist(os.link, item.entry.path, target)", "importer", "waited_for_once"),
    ("processing.importer._remove_path", "removing.insist(...)", "path.rmdir() if path.is_dir() else path.unlink()", "importer", "refused_for_a_moment"),
    ("processing.files.Patience.insist", "if error.errno in PASSING", "if False", "files", "waited_for_once"),
    ("processing.downloads.read_chunks", "insist(self._open)", "self._open()", "importer", "opened_for_a_moment"),
    ("processing.downloads._open_zip", "if end and end.parts > 1", "if False", "downloads", "last_part"),
    ("processing.downloads._open_zip", "if any(...)", "if False", "downloads", "true_cause"),
    ("processing.downloads._explain_fault", "if unfinished", "if False", "downloads", "beside_it"),
    ("processing.downloads._explain_fault", "if what == 'a web page'", "if False", "downloads", "true_cause"),
    ("processing.downloads._decode", "('utf-8', 'gb18030')", "('gb18030',)", "downloads", "whoever_wrote"),
    ("processing.downloads._read_unicode_path", "field[:5] == ...", "True", "downloads", "whoever_wrote"),
    ("processing.downloads._list_file", "_decode(os.fsencode(part)) or part", "part", "downloads", "without_their_encoding"),
    ("processing.destinations.decide_sets", "told.get((item.round_name, item.key[0]), item.data_type)", "item.data_type", "importer", "decides"),
    ("processing.destinations.decide_sets", "if item.identity not in known", "if True", "importer", "wrong_set"),
    ("processing.formats.explain_unread", "if by_name is None and what == OFFICE", "if False", "formats", "no_data"),
    ("processing.splits._check_folds", "if earlier != number", "if False", "splits", "changed_by_hand"),
    ("processing.splits._check_folds", "if absent", "if False", "splits", "changed_by_hand"),
    ("model.checkpoint.load_checkpoint", "if not is_sealed", "if False", "checkpoint", "inside_a_whole_archive"),
    ("processing.geometry._measure_volume", "smooth[...].max(initial=0) > FAINT_LINE * ...", "False", "geometry", "faint_outermost"),
    ("processing.geometry.read_geometry", "if screen.shape[1::-1] not in (SCREEN, NARROW_SCREEN)", "if False", "geometry", "another_size"),
    ("model.image_trees.ImageTrees._find_chances", "~knows_thickness(visits)", "np.zeros(len(visits), bool)", "image_trees", "usual_one"),
    ("model.csv_trees.CSVTrees.predict", "hide_filled(eyes, paths)", "eyes", "trees", "filled_in"),
    ("model.training.train", "torch.manual_seed(job.config.seed); torch.set_rng_state(job.random)", "", "training", "begins_alike"),
    ("model.seers._ask", "if asked not in _ANSWERED", "if True", "pretrained", "run_that_left"),
    ("model.distribution.answer_thickness", "np.minimum(low, answer)", "low", "distribution", "its_own_interval"),
    ("model.dataset._label_own_visits", "given[c.CST].between(*PLAUSIBLE_CST_UM)", "given[c.CST] > 0", "pretrained", "no_retina_has"),
    ("processing.geometry._count_radial", "np.abs(off - np.rint(off)).max() > UNEVEN", "False", "geometry", "uneven_lines"),
    ("processing.counter.check_counter", "if min(before.max(), behind.max()) < ALIKE", "if False", "geometry", "legible"),
    ("processing.counter._find_ink", "if abs(contrast) < max(LEAST_CONTRAST, CALM * unrest)", "if False", "geometry", "legible"),
    ("processing.counter._find_numbers", "if len(strokes) != 1", "if len(strokes) < 1", "geometry", "legible"),
    ("processing.counter._find_numbers", "if max(blanks) > UNEVEN_BLANKS * min(blanks)", "if False", "geometry", "leaves_the_corner"),
    ("processing.counter._find_numbers", "is_even", "True", "geometry", "leaves_the_corner"),
    ("processing.counter._find_numbers", "behind.right + min(blanks) <= ink.shape[1]", "True", "geometry", "leaves_the_corner"),
    ("processing.counter.check_counter", "less <= UNLIKE", "True", "geometry", "legible"),
    ("processing.geometry._list_numbers", "[number, (1 - number) % total + 1]", "[number]", "geometry", "legible"),
    ("processing.geometry._measure_volume", "before + 1 if counts_on else total - before", "before + 1", "geometry", "all_kinds"),
    ("processing.geometry._measure_volume", "if spacing < LEAST_SPACING_PX", "if False", "geometry", "faint_outermost"),
    ("processing.geometry._find_peaks", "if len(peaks) == 0", "if False", "geometry", "no_warning"),
    ("processing.crop_record.GeometryRecord.table", "if not self._rows and self._path.is_file() and ...", "if False", "check", "another_version"),
    ("processing.bscans._to_scale", "shortest <= BAR_UM / usual_um <= longest", "True", "bscans", "tell_the_scale"),
    ("processing.check.images.check_geometry", "visit['distance_um'].notna().all()", "True", "check", "lies_anywhere"),
    ("processing.views.check_views", "view.narrow < 1", "False", "views", "cannot_be_cut"),
    ("processing.views.keep_views", "{name: view for name, view in views.items() if view.folder}", "dict(views)", "views", "names_the_images"),
    ("data.report._choose_scans", "list((middle | nearest.to_dict()).values())", "list(middle.values())", "painted", "nearest_the_fovea"),
    ("data.predict._predict", "if not known.all()", "if False", "predict", "no_model_knows"),
    ("data.predict._load_models", "if not chosen and ...", "if False", "predict", "only_where_there_is_no_other"),
    ("model.pretrained.PretrainedNetwork.fingerprint", "super().fingerprint(rows, held_out, paths) | tables", "super().fingerprint(rows, held_out, paths)", "pretrained", "part_of_what_is_learned"),
    ("model.pretrained.PretrainedNetwork.open_data", "self._fit_standard()", "", "pretrained", "usual_of_the_trunks"),
    ("model.training._prepare_scans", "if config.init_from", "if False", "segmentation_model", "weights_that_are_named"),
    ("model.visit_features._read_measures", "table[kinds].max(axis=1)", "table[kinds].sum(axis=1)", "image_trees", "of_any_kind"),
    ("model.visit_module.VisitNetwork.forward", "torch.autocast(places.device.type, enabled=False)", "torch.enable_grad()", "visit_module", "bf16"),
    ("model.image_trees.ImageTrees._fit_finding", "[('forest', forest), ('line', line)]", "[('forest', forest), ('line', forest)]", "image_trees", "surer"),
    ("model.image_trees._ask", "judge.predict_proba(...)[:, 1].round(9)", "judge.predict_proba(_to_array(features))[:, 1]", "image_trees", "who_else"),
    ("model.trunks.find_away", "(images[:, 0].amax(dim=1) > BLACK).float()", "torch.ones_like(images[:, 0, 0])", "trunks", "the_middle_is"),
    ("model.visit_module.find_speakers", "away[None] <= find_limit(nearest)[:, None]", "visits", "visit_module", "near_the_fovea"),
    ("model.image_trees.ImageTrees.judge", "if absent", "if False", "image_trees", "earlier_version"),
    ("model.image_trees.ImageTrees._fit_thickness", "min(misses, key=...)", "'to BM'", "image_trees", "foretells_it_best"),
    ("model.image_trees.ImageTrees._fit_thickness", "seen is not None", "False", "image_trees", "as_it_is_right"),
    ("model.image_trees.ImageTrees.load_state_dict", "if absent", "if False", "image_trees", "earlier_version"),
    ("model.image_trees._find_share", "share * one + (1 - share) * other", "share * other + (1 - share) * one",
     "image_trees", "as_it_is_right"),
    ("model.image_trees.ImageTrees._find_chances", "_find_bases(visits)[self._learned['base']]", "_find_bases(visits)['to BM']", "image_trees", "foretells_it_best"),
    ("model.image_trees.ImageTrees._find_chances", "share * seen + (1 - share) * of_trees", "of_trees", "image_trees",
     "as_it_is_right"),
    ("model.image_trees._spread", "base + forest.predict(features)", "base", "image_trees", "learn_what"),
    ("model.visit_module.FirstSight.fit_standard", "self.standard.fit(...)", "", "pretrained", "usual_of_the_trunks"),
    ("model.visit_module.Looks.forward", "torch.full_like(found[:, :1], UNREAD)", "torch.full_like(found[:, :1], -99.0)", "visit_module", "cannot_be_read"),
    ("model.visit_module.Thickness.forward", "torch.logaddexp(near, ...)", "near", "visit_module", "a_slip"),
    ("model.segmentation.Unshuffle.forward", "x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)", "torch.nn.functional.pixel_unshuffle(x, 2)", "visit_module", "share_is_empty"),
    ("model.visit_module.FirstSight.find", "if visits is None or not len(marks)", "if visits is None", "visit_module", "share_is_empty"),
    ("model.trunks.describe_columns", "UM_DOWN * (rows[:, 1] - rows[:, 0])", "UM_DOWN * (rows[:, 1] - rows[:, 0]).detach()", "visit_module", "teaches_the_reading"),
    ("model.pretrained.PretrainedNetwork.load_state_dict", "if 'learning.thickness.head.1.weight' not in state", "if False", "pretrained", "earlier_version"),
    ("model.dataset.find_limit", "nearest_mm.clamp(min=NEAR_UM / 1000)", "torch.full_like(nearest_mm, NEAR_UM / 1000)", "visit_module", "near_the_fovea"),
    ("model.visit_module.FirstSight.fit_standard", "cast(Standard, looks.standard).fit(...)", "", "pretrained", "usual_of_the_trunks"),
    ("model.visit_module.FirstSight.__init__", "self.marks.weight.copy_(torch.tensor(own))", "", "visit_module", "says_what_was_read"),
    ("model.visit_module.FirstSight.find", "marks[None].masked_fill(~visits[:, :, None], -torch.inf)", "marks[None].masked_fill(~visits[:, :, None], 0.0)", "visit_module", "says_what_was_read"),
    ("model.visit_module.Looks.forward", "self.where(self.standard(read.columns)) + middle + readable", "self.where(self.standard(read.columns)) + middle", "visit_module", "cannot_be_read"),
    ("model.visit_module.Looks.forward", "self.where(self.standard(read.columns)) + middle + readable", "middle + readable", "visit_module", "cannot_be_read"),
    ("model.visit_module.Thickness.forward", "guess[:, None] + self.reach * (...)", "self.reach * place", "visit_module", "says_what_was_read"),
    ("model.trunks.SegmentationTrunk.train", "self.network.train(mode and not bool(self.has_learned))", "", "trunks", "batch_norm"),
    ("model.trunks.load_trunk_weights", "trunk.has_learned.fill_(True)", "", "trunks", "batch_norm"),
    ("model.trunks.describe_columns", "(places <= rows[:, 1:])", "(places <= 999)", "trunks", "bruchs_membrane"),
    ("model.trunks.describe_columns", "(places >= rows[:, :1])", "(places >= 0)", "trunks", "bruchs_membrane"),
    ("model.trunks.describe_columns", "(reading.readable[:, None] > 0)", "True", "trunks", "no_retina"),
    ("model.trunks.describe_columns", "thickness_um - heights_um[:, FLUIDS.index('PED')]", "thickness_um", "trunks", "bruchs_membrane"),
    ("model.loop.set_learning_rate", "config.epochs > 1", "True", "loop", "follows_from_its_number"),
    ("model.visit_features.build_features", "hide_filled(rows, paths)", "rows", "image_trees", "stands_in_for_an_age"),
    ("model.seers.see_images", "np.where(is_own, 1.0, 1 / len(by_fold))", "np.where(is_own, 1.0, 1.0)", "pretrained", "left_it_out"),
    ("data.evaluate.evaluate", "newest.eyes.join(mark_doubtful(newest.eyes.index, own, paths))", "newest.eyes.assign(remarks='')", "evaluate", "fourteen_items"),
    ("model.trunks.load_trunk_weights", "if not file.is_file()", "if False", "trunks", "without_weights"),
    ("model.trunks.load_trunk_weights", "weights_only=True", "weights_only=False", "trunks", "other_things"),
    ("model.trunks._fit_state", "value.sum(dim=1, keepdim=True)", "value[:, :1]", "trunks", "adds_them_up"),
    ("model.visit_module.VisitModule.average", "average.lerp_(own, moved)", "", "visit_module", "average_of_the_weights"),
    ("model.runs.find_members", "_describe_training(other) == own", "True", "pretrained", "does_not_join"),
    ("model.runs.find_members", "read_record(other).get('state') == 'finished'", "True", "pretrained", "does_not_join"),
    ("model.seers.find_seers", "if absent", "if False", "pretrained", "without_runs"),
    ("model.seers.see_images", "fold_of_row == int(fold)", "fold_of_row >= 0", "pretrained", "left_it_out"),
    ("model_config.ImageConfig.__post_init__", "if self.seeds > 1 and ...", "if False", "pretrained", "seeds_are"),
    ("data.confidence.find_remarks", "FAR if scans['away'].notna().all() else UNKNOWN_PLACE", "FAR", "confidence", "doubtful_is_said"),
    ("data.evaluate._predict_methods", "eyes.loc[eyes.index.intersection(newest.index)]", "eyes.reindex(newest.index)", "evaluate", "one_visit"),
    ("data.confidence.find_remarks", "except PipelineError", "except KeyError", "confidence", "keeps_no_answer_back"),
    ("data.folds.select_recipes", "of_images == (name == CSV_MODEL)", "name == CSV_MODEL", "evaluate", "every_recipe"),
    ("data.scores._compare", "len(common) == len(one.predictions.eyes)", "True", "evaluate", "difference_is_told"),
    ("model.runs.find_members", "(other / file.name).is_file()", "True", "pretrained", "does_not_join"),
    ("model.runs._describe_training", "name != 'seed'", "True", "image_trees", "several_seeds"),
    ("model.runs._describe_training", "except (ValueError, AttributeError)", "except KeyError", "image_trees", "several_seeds"),
    ("model.image_trees.ImageTrees._fit_thickness", "_find_missed(unseen, folds, features, ratio)", "missed", "image_trees", "to_one_side"),
    ("model.image_trees.ImageTrees.fit", "own[self._findings].astype(float).where(given)", "own[self._findings].astype(float)", "image_trees", "as_absent"),
    ("model.visit_module.VisitModule.average", "if copied.is_floating_point()", "if False", "visit_module", "counted"),
    ("model.pretrained._share_near", "near | ~np.isin(visit_of_row, visit_of_row[near])", "np.full(len(near), True)", "pretrained", "judged_alone"),
    ("model.dataset.plan_epoch", "len(speakers) and ...", "False", "dataset", "near_the_fovea"),
    ("model.loss._find_entropy", "entropy * labels.isfinite()", "entropy", "loss", "costs_nothing"),
    ("model.loss.DistributionLoss.forward", "distances * cst_um.isfinite()", "distances", "loss", "costs_nothing"),
    ("model.visit_features.read_labels", "eyes[eyes[c.DATA_TYPE] == 'train']", "eyes", "image_trees", "training_labels"),
    ("model.trunks.TorchvisionTrunk.__init__", "if name not in ...", "if False", "trunks", "no_trunk"),
    ("model.trunks.load_trunk_weights", "if not (isinstance(state, dict) and ...)", "if False", "trunks", "other_things"),
    ("model.pretrained.PretrainedNetwork.specify", "if config.normalise != 'none'", "if False", "pretrained", "normalised"),
    ("model.csv_trees.CSVTrees.predict", "if unmeasured and ...", "if False", "trees", "not_measured"),
    ("data.page._build_differences", "row.difference_low > 0", "True", "page", "is_real"),
    ("model.visit_features.require_measures", "if len(absent)", "if False", "image_trees", "not_measured"),
    ("model.image_trees.ImageTrees._fit_thickness", "if known.sum() < LEAST_VISITS or ...", "if False", "image_trees", "too_few"),
    ("model.image_trees.ImageTrees._fit_thickness", "1 / (1 + (missed / ...) ** 2)", "np.ones(len(ratio))", "image_trees", "outliers"),
    ("model.image_trees.ImageTrees._fit_thickness", "np.isfinite(target) & ...", "np.ones(len(target), bool)", "image_trees", "not_given"),
    ("model.measures.measure_scan", "if found['readable_share'] < LEAST_READABLE", "if False", "measures", "without_a_retina"),
    ("model.measures.measure_scan", "if found['spread_um'] > MOST_SPREAD_UM", "if False", "measures", "may_be_anywhere"),
    ("model.measures.explain", "measures['spread_um'] > MOST_SPREAD_UM", "False", "measures", "may_be_anywhere"),
    ("model.measures._find_ped_um", "chances.sum(axis=0) * down_um", "0 * chances[0]", "measures", "to_the_rpe"),
    ("model.measures._find_ped_um", "columns * um_across", "columns", "measures", "to_the_rpe"),
    ("model.measures._mean_of", "np.isfinite(values).mean() >= 0.5", "True", "measures", "too_little"),
    ("model.measures.explain", "if measures['cut_share'] >= LEAST_CUT", "if False", "measures", "leaves_the_picture"),
    ("model.segmentation.find_rows", "torch.maximum(ilm, bm)", "bm", "segmentation", "never_cross"),
    ("model.segmentation._trace", "steps.abs() * steepness", "steps.abs() * 0", "segmentation", "leap"),
    ("model.segmentation_model._build_reading", "chances * tissue", "chances", "segmentation_model", "between_the_membranes"),
    ("model.etdrs.read_volume", "if content['eye'] not in ('left', 'right') or ...", "if False", "etdrs", "faulty_file"),
    ("model.etdrs.read_volume", "if len(volume.lines) < 3", "if False", "etdrs", "faulty_file"),
    ("model.etdrs._read_place", "if not np.isfinite([x, y]).all()", "if False", "etdrs", "faulty_file"),
    ("model.etdrs._mean", "np.isfinite(values).mean() >= LEAST_COVERED", "True", "etdrs", "do_not_reach"),
    ("processing.bscans.find_bscan", "if min(grey.shape) < LEAST_PX or ... or ...", "if False", "bscans", "too_small"),
    ("processing.bscans._measure_corner", "if any(...)", "if False", "bscans", "no_corner"),
    ("processing.bscans._measure_corner", "if not (... and ... and ...)", "if False", "bscans", "no_corner"),
    ("processing.check.images.check_measures", "except PipelineError", "except KeyError", "measure", "check_names"),
    ("data.measure._read_known", "[row[name] for name in c.MEASURED_STATE] == states.get(row[c.FILE])", "True", "measure", "new_or_changed"),
    ("data.measure._read_known", "except PipelineError", "except KeyError", "measure", "spreadsheet"),
    ("data.measure._save", "if known", "if True", "measure", "leaves_no_empty"),
    ("data.measure.measure_all", "_save_at_last(paths, files, rows)", "", "measure", "interrupted"),
    ("data.measure_files._find_images", "not file.name.endswith(PICTURE)", "True", "measure", "folder_of_scans"),
    ("data.measure_files._name_pictures", "{file.name.lower() for file in files}", "set()", "measure", "never_replaced"),
    ("data.measure._try_to_save", "except PipelineError", "except KeyError", "measure", "open_elsewhere"),
    ("data.measure._save_at_last", "_save(beside, files, rows)", "", "measure", "stays_open"),
    ("data.measure._save_at_last", "beside.unlink(missing_ok=True)", "", "measure", "stays_open"),
    ("data.measure_files._tell_files", "except PipelineError", "except KeyError", "measure", "another_name"),
    ("model.measures.explain", "measures['cut_share'] > 0.5", "False", "measures", "nearly_everywhere"),
    ("model.measures._measure_curve", "from_middle_um[0] >= LEAST_REACH * 1000 * mm", "True", "measures", "reaches_as_far"),
    ("model.measures._measure_curve", "max(NEAR_MIDDLE_UM, um_across / 2)", "NEAR_MIDDLE_UM", "measures", "reaches_as_far"),
    ("model.seers.find_seers", "not variant.endswith(FROM_RANDOM)", "True", "pretrained", "asked_last"),
    ("model.trunks._fit_state", "OLD_DENSE.sub(...)", "key", "trunks", "names_of_old"),
    ("data.measure_files._try_folder", "except OSError", "except KeyError", "measure", "cannot_be_written_to"),
    ("data.measure_files._find_curve", "np.full_like(curve, np.nan) if problem == c.NO_RETINA else curve", "curve", "measure", "no_membrane"),
    ("data.measure_files._find_line", "len(namesakes) == 1", "namesakes", "measure", "no_others"),
    ("data.measure_files._find_fundus", "except ImageError", "except KeyError", "measure", "nine_fields"),
    ("data.measure_files.measure_files", "if rows: ...", "", "measure", "outlives"),
    ("model.etdrs.map_thickness", "np.where(beyond < FAR_MM, found, np.nan)", "found", "etdrs", "hole"),
    ("model.etdrs._read_name", "if not isinstance(value, str) or ...", "if False", "etdrs", "faulty_file"),
    ("model.measures.explain", "c.NO_MIDDLE", "''", "measures", "near_its_middle"),
    ("processing.bscans.find_bscan", "if not is_screen and ...", "if False", "bscans", "cut_or_resized"),
    ("processing.check.images.check_measures", "state == describe_file(paths.root / file)", "True", "measure", "check_names"),
    ("data.measuring.measure_each", "except ImageError", "except KeyError", "measure", "folder_of_scans"),
    ("processing.flags.read_measure", "if not arguments.files and ... and ...", "if False", "measure", "flags_for_files"),
    ("model.export.export", "isinstance(error, NotPortable)", "False", "export", "left_out"),
    ("model.export._choose_targets", "if len(set(names)) < len(names)", "if False", "export", "same_name"),
    ("model.export.import_exporter", "except ImportError", "except KeyError", "export", "not_installed"),
    ("model.export._trace", "fold_batch_norm(...)", "portable.module", "export", "named"),
    ("model.module._find_mean", "images.mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)", "images.mean(dim=(1, 2, 3), keepdim=True)", "export", "whole_scan"),
    ("model.checkpoint.load_checkpoint", "if wrong", "if False", "checkpoint", "no_numbers"),
    ("model.checkpoint._read", "weights_only=True", "weights_only=False", "checkpoint", "never_run"),
    ("model.registry.load_weights_of", "if checkpoint.kind != model.kind", "if False", "checkpoint", "do_not_fit"),
    ("model.dataset.check_finite", "if len(wrong)", "if False", "dataset", "no_number"),
    ("processing.views.ViewReader.read", "if (height, width) != (self.view.height, self.view.width)", "if False", "dataset", "another_size"),
    ("processing.views.ViewReader.read", "raise PipelineError(...) from error", "raise KeyError(str(error)) from error", "image_model", "unreadable"),
    ("model.cache._open", "if made_of != key", "if False", "cache", "does_not_fit"),
    ("model.cache._open", "if file.stat().st_size != size", "if False", "cache", "does_not_fit"),
    ("model.cache._open", "except Exception", "except ValueError", "cache", "does_not_fit"),
    ("model.cache._build", "if free < ...", "if False", "cache", "full_disk"),
    ("model.cache._build.decode", "except PipelineError", "except ZeroDivisionError", "cache", "cannot_be_read"),
    ("model.cache.PixelCache.read", "if zlib.crc32(flat.data) != check", "if False", "cache", "damaged_pixels"),
    ("model.cache.PixelCache.read", "self._give_up()", "", "cache", "damaged_pixels"),
    ("model.distributed.share_network", "share_batch_norm(...)", "", "distributed", "train_as_one"),
    ("model.distributed.share_batch_norm", "layer.training", "True", "distributed", "is_not_shared"),
    ("model.distributed.SharedLoss.forward", "if own", "if True", "distributed", "more_processes_than"),
    ("model.device._find_fault", "except RuntimeError", "except KeyError", "device", "cannot_use"),
    ("model.network.EpochNetwork.fit", "check_weights(...)", "", "guard", "never_saved"),
    ("model.loop.train_epoch", "if not guard.allows(losses[0])", "if guard.allows(losses[0]) is None", "guard", "before_the_weights_change"),
    ("model.csv_graph.GraphedSteps.take", "self._restore_state(before)", "", "csv_graph", "no_cuda_graph"),
    ("model.guard.Guard._add_up", "if len(gradients) == 1: ...\nreturn loss + ...", "return loss", "guard", "before_the_weights_change"),
    ("model.guard.LateGuard.__init__", "optimizer.grad_scale, optimizer.found_inf = None, self._is_found", "", "guard", "asked_late"),
    ("model.guard.LateGuard.allows", "torch.maximum(...)", "self._is_found.copy_(is_bad)", "guard", "asked_late"),
    ("model.loop.measure_losses", "sums.gather()", "", "loop", "all_processes"),
    ("model.loop.halve_batch", "run.halve_batch()", "run.halvings += 1", "loop", "halves_the_batch"),
    ("model.network.EpochNetwork.fit", "run.rewind(...)", "", "loop", "halves_the_batch"),
    ("model.snapshots.restore_states", "optimizer.load_state_dict(...)", "", "resume", "bit_for_bit"),
    ("model.run.read_unfinished", "if record.get('state') == 'finished'", "if False", "resume", "cannot_be_resumed"),
    ("model.run.read_unfinished", "_find_differences({name: then.get(name) for name in now}, now)", "_find_differences({}, {})", "resume", "cannot_be_resumed"),
    ("model.run._refuse_changes", "if changed", "if False", "resume", "cannot_be_resumed"),
    ("model.run.Run.resume", "if record.get('epochs_done') and not file.is_file()", "if False", "resume", "cannot_be_resumed"),
    ("processing.files.try_to_write", "except Exception", "except PipelineError", "files", "looking_at"),
    ("processing.terminal.report_errors", "(error.name or '').split('.')[0] not in OWN", "True", "main", "of_our_own"),
    ("processing.terminal.report_errors", "isinstance(error, ImportError) and ...", "False", "main", "cannot_be_loaded"),
    ("processing.terminal.report_errors", "raise_stop(error)", "", "main", "still_that_signal"),
    ("processing.terminal.raise_stop", "raise stop from None", "pass", "main", "still_that_signal"),
    ("processing.terminal.find_stop", "found.__context__ if of_a_lock else None", "None", "main", "still_that_signal"),
    ("processing.terminal.find_stop", "found.__context__ if of_a_lock else None", "found.__context__", "main",
     "on_the_way_out"),
    ("model.run._is_stop", "find_stop(error) is not None", "False", "run", "error_of_a_lock"),
    ("model.history.History._try", "raise_stop(error)", "", "run", "plots_error"),
    ("processing.files.try_to_write", "raise_stop(error)", "", "files", "looking_at"),
    ("data.evaluate._predict_methods", "except PipelineError", "except KeyError", "evaluate", "left_out_and_said"),
    ("model.seers.find_seers", "max(FOLDS, len(folds))", "FOLDS", "pretrained", "other_folds"),
    ("model.seers.see_images", "rows[c.PATIENT].map(c.person_of).map(of_person)", "rows[c.PATIENT].map({patient: int(fold) for fold, seer in seers.items() for patient in seer['eyes']})", "pretrained", "left_it_out"),
    ("model.image_trees.ImageTrees._build_features", "visits.index.get_indexer(pd.MultiIndex.from_frame(rows[VISIT]))", "np.arange(len(rows)) % len(visits)", "image_trees", "as_it_is_right"),
    ("model.visit_features.require_measures", "() if wanted is not None else MEASURES", "()", "image_trees", "earlier"),
    ("model.history.History._try", "except Exception", "except ZeroDivisionError", "run", "ends_no_training"),
    ("processing.terminal.open_terminal", "os.environ['MPLBACKEND'] = 'agg'", "", "compare", "notebooks_backend"),
    ("model.network.EpochNetwork.fit", "check_losses(...)", "", "guard", "never_the_best"),
    ("model.csv_model.CSVNetwork.fit", "check_losses(...)", "", "guard", "never_the_best"),
    ("processing.files.insist", "if error.errno not in PASSING", "if True", "files", "refused_for_a_moment"),
    ("processing.files.hold_lock", "if error.errno in HELD", "if True", "files", "cannot_lock"),
    ("model.run.Run.__enter__", "self._open.enter_context(hold_lock(...))", "", "resume", "in_use"),
    ("model.run.Run.__exit__", "self._save(); self._draw()", "", "run", "cut_short"),
    ("model.run.Run.__exit__", "if _is_stop(problem)", "if False", "run", "midst_of_the_last_save"),
    ("model.run.Run.__exit__", "self._write_state(_name_end(problem), problem)", "", "run", "cannot_be_written"),
    ("model.run.Run.finish_epoch", "unseen < best[1]", "unseen > best[1]", "folds", "best_epoch"),
    ("processing.screens.explain_oddity", "if is_usual and ...", "if True", "data_factory", "counted_and_named"),
    ("processing.pasted.strip_pasted", "first < end and _is_wrapping(text[first])", "False", "pasted", "taken_off"),
    ("processing.pasted._list_readings", "text.replace('\\0', '')", "text", "pasted", "raises_nothing"),
    ("processing.pasted._list_readings", "_read_url(strip_pasted(text))", "strip_pasted(text)", "pasted", "a_url"),
    ("processing.pasted._list_readings", "except ValueError", "except KeyError", "pasted", "raises_nothing"),
    ("processing.pasted.read_paths", "if os.path.exists(whole)", "if False", "pasted", "taken_as_typed"),
    ("processing.pasted.show", "sign.isprintable()", "True", "pasted", "by_their_numbers"),
    ("processing.plots._show_signs", "ord(sign) in _load_signs() or ...", "True", "compare", "as_they_are"),
    ("processing.plots.save_figure", "textwrap.fill(line, LONGEST_LINE)", "line", "compare", "as_they_are"),
    ("model.history.History.load", "except PipelineError", "except KeyError", "resume", "became_of_its_history"),
    ("data.compare._read_curve", "except PipelineError", "except KeyError", "compare", "left_out_and_named"),
    ("processing.files.stat_files", "if error.errno not in NOT_THERE", "if False", "files", "taken_for_absent"),
    ("processing.files.read_if_there", "except (FileNotFoundError, NotADirectoryError)", "except OSError", "files", "taken_for_absent"),
    ("model.device.halve_until_it_fits", "if size == 1 or ...", "if False", "loop", "go_on_with_less"),
    ("model.device._find_fault", "if is_out_of_memory(error)", "if False", "device", "without_memory"),
    ("model.network.EpochNetwork.fit", "if not is_out_of_memory(error)", "if False", "loop", "no_shortage"),
    ("model.loop.halve_batch", "run.batch_size = min(run.batch_size, count)", "", "loop", "never_was_full"),
    ("processing.images._imdecode", "if is_out_of_memory(error)", "if False", "images", "want_of_memory"),
    ("model.checkpoint._read", "if is_out_of_memory(error)", "if False", "checkpoint", "want_of_memory"),
    ("model.registry.load_weights_of", "if is_out_of_memory(error)", "if False", "checkpoint", "want_of_memory"),
    ("processing.terminal.report_errors", "if is_out_of_memory(error)", "if False", "main", "no_bug"),
    ("model.csv_trees.CSVTrees.load_state_dict", "if self._packages == name_packages()", "if True", "trees", "another_version"),
    ("model.folds.refuse_learned", "if learned is None", "if False", "folds", "unknown_eyes"),
    ("model.folds.refuse_learned", "c.person_of(patient) in persons", "patient in learned", "folds", "fellow_eye"),
    ("model.training._prepare", "checkpoint is None", "not folder", "pretrained", "went_through"),
    ("model.dataset.ImageData.__init__", "self._labels[has_near & ~self.near, 0] = torch.nan", "", "pretrained", "only_scans_near"),
    ("model.runs._describe_training", "name != 'images'", "name.endswith('.csv')", "pretrained", "another_config"),
    ("model.trees.TreeModel._candidates_of", "np.concatenate([shared, (pre_va[:, None] + np.array(STEPS)).clip(0, most)], axis=1)", "np.concatenate([shared, pre_va[:, None] + np.array(STEPS)], axis=1).clip(0, most if final == 0 else 1)", "trees", "above_one"),
    ("model.trees._split_persons", "if all(...)", "if True", "trees", "both_answers"),
    ("model.training._prepare", "refuse_learned(...)", "", "folds", "held_out_eyes_is_refused"),
    ("model.training._prepare", "None if start is None else own | start", "own", "folds", "started_from"),
    ("model.training._prepare", "learned = read_learned(checkpoint)", "pass", "folds", "knows_its_start"),
    ("model.run.Run._save", "self._list_learned(self._held_out)", "self._list_learned()", "folds", "chosen_by"),
    ("model.csv_trees.read_out_of_fold", "if fold != 'none'", "if False", "evaluate", "other_folds"),
    ("model.eye_features._find_spread", "spread.fillna(...)", "spread", "trees", "how_sure_thickness"),
    ("model.trees.TreeModel._fit", "known.get(name, True)", "True", "trees", "no_eye_knows"),
    ("model.export.export", "if runs and not ...", "if True", "export", "damaged_run"),
    ("data.report._paint", "except PipelineError", "except ZeroDivisionError", "painted", "screens_are_gone"),
    ("data.folds.load_folds", "_refuse_run(...)", "", "evaluate", "saw_what_it_left_out"),
    ("model.folds.refill_means", "eyes[~eyes[c.PATIENT].isin(held_out)]", "eyes", "folds", "nothing_that_is_fitted"),
    ("model.folds.split_rows", "rows[~unseen]", "rows", "folds", "nothing_that_is_fitted"),
    ("model.training._prepare", "table = refill_means(...)", "", "folds", "nothing_that_is_fitted"),
    ("model.image_model.ImageNetwork.fingerprint", "fingerprint_images(names, paths.root)", "''", "resume", "images_changed"),
    ("model.training._prepare_all", "read_behind(folder)", "[]", "resume", "folds_that_are_left"),
    ("model.training._prepare_all", "if own.name not in names", "if False", "resume", "another_option"),
    ("model.trees.TreeModel.load_state_dict", "trusted=TRUSTED", "trusted=skops.io.get_untrusted_types(data=data.getvalue())", "trees", "does_not_know"),
    ("model.runs.find_checkpoint", "unfinished or ...", "True", "predict", "unfinished"),
    ("model.runs.resolve_checkpoint", "if record and not ...", "if False", "run", "only_a_finished_one"),
    ("model.image_model.ImageNetwork.open_data", "view.width <= NARROW_PX", "False", "loop", "wrong_gradients"),
    ("model.image_model.ImageNetwork.open_data", "max(view.height, view.width) <= WHOLE_IN_ONE_PX", "False", "image_model", "last_batch_of_one"),
    ("model.runs.find_fold_runs", "record.get('data', {}).get(paths.splits.name) == splits", "True", "evaluate", "other_splits"),
    ("data.predict._predict", "if doubled", "if False", "predict", "twice"),
    ("processing.views.ViewReader.__init__", "name in cut", "True", "predict", "its_own_box"),
    ("data.submission._check_values", "if wrong.any()", "if False", "predict", "writes_nothing"),
    ("data.scorer.read_pairs", "if faults", "if False", "scorer", "all_that_is_wrong"),
    ("data.scorer._parse_probability", "if value > 1", "if False", "scorer", "all_that_is_wrong"),
    ("data.scorer._compare_keys", "if len(missing)", "if False", "scorer", "all_that_is_wrong"),
    ("processing.flags._apply_flags", "if useless and not ...", "if False", "main", "wrong_usage"),
    ("processing.settings._find_wrong_setting", "if not setting.holds(module, value)", "if False", "settings", "another_kind"),
    ("processing.settings._find_wrong_setting", "if not hasattr(module, name)", "if False", "settings", "is_gone"),
    ("processing.settings.check_settings", "except (Exception, SystemExit)", "except ValueError", "settings", "what_python_says"),
    ("processing.settings._find_odd_line", "if b'\\0' in line", "if False", "settings", "what_python_says"),
    ("main.main", "if not settings.check_settings()", "if False", "main", "model_config"),
    ("processing.terminal.ask", "except EOFError", "except ZeroDivisionError", "main", "end_of_input"),
    ("processing.terminal.report_errors", "except Exception", "except KeyError", "main", "bug_is_logged"),
]))


class Function(NamedTuple):
    module: str
    node: ast.FunctionDef


def read_sources(folder):
    """Sources of the program that lies in `folder`: module -> text."""
    files = sorted(file for pattern in PROGRAM for file in folder.glob(pattern))
    names = [".".join(file.relative_to(folder).with_suffix("").parts) for file in files]
    return {name: file.read_text(encoding="utf-8") for name, file in zip(names, files, strict=True)}


def read_functions(sources):
    """Functions of the program, methods and inner ones too: full name -> Function."""
    def walk(node, name):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield f"{name}.{child.name}", child
                yield from walk(child, f"{name}.{child.name}")
            else:
                yield from walk(child, name)

    return {
        name: Function(module, node)
        for module, source in sources.items()
        for name, node in walk(ast.parse(source), module)
        if isinstance(node, ast.FunctionDef)
    }


def find_function(name, functions):
    """The function of that full name, else the only one of that class and name, else of that bare name; or None."""
    parts = name.split(".")
    for ending in (".".join(parts[start:]) for start in range(len(parts))):
        found = [function for full, function in functions.items() if f".{full}".endswith(f".{ending}")]
        if len(found) == 1:
            return found[0]
    return None


def is_like(pattern, node):
    """Whether two syntax trees (or what is in them) say the same; `...` in the pattern stands for anything."""
    if is_open(pattern):
        return isinstance(node, ast.expr)
    if isinstance(pattern, list):
        if len(pattern) == 1 and isinstance(pattern[0], ast.Expr) and is_open(pattern[0].value):
            return True
        return len(pattern) == len(node) and all(map(is_like, pattern, node))
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, ast.Call) and len(pattern.args) == 1 and is_open(pattern.args[0]):
        return is_like(pattern.func, node.func)
    if isinstance(pattern, ast.AST):
        return all(is_like(getattr(pattern, field, None), getattr(node, field, None)) for field in pattern._fields)
    return pattern == node


def is_open(node):
    return isinstance(node, ast.Constant) and node.value is ...


def parse(text, mode="exec"):
    """The syntax tree of `text`, or None where it is no Python of that kind."""
    try:
        return ast.parse(text, mode=mode).body
    except SyntaxError:
        return None


def find_spots(guard, instead, nodes):
    """All places among `nodes` that read like `guard`: first and last node of each, and the text that comes there."""
    head, _, rest = guard.partition(" ")
    statements, argument = parse(guard), parse(f"f({guard})", "eval")
    if statements is None:      # "if a < b" and "except OSError" are no whole statements
        wanted = parse(rest, "eval")
        parts = [getattr(node, {"if": "test", "except": "type"}[head], None) for node in nodes
                 if isinstance(node, {"if": ast.If, "except": ast.ExceptHandler}[head])]
        return [(part, part, f"({instead.partition(' ')[2]})") for part in parts if is_like(wanted, part)]
    if parse(guard, "eval") and parse(instead, "eval"):
        return [(node, node, f"({instead})") for node in nodes if is_like(parse(guard, "eval"), node)]
    blocks = [getattr(node, field) for node in nodes for field in ("body", "orelse", "finalbody")
              if isinstance(getattr(node, field, None), list)]
    runs = [block[start:start + len(statements)] for block in blocks for start in range(len(block))]
    spots = [(run[0], run[-1], textwrap.indent(instead or "pass", " " * run[0].col_offset).lstrip())
             for run in runs if is_like(statements, run)]
    if argument and argument.keywords:
        spots += [(node, node, instead) for node in nodes if is_like(argument.keywords[0], node)]
    return spots


def mutate(mutant, sources, functions):
    """The program's module that changes and its new source, or None where function or guard is lost."""
    function = find_function(mutant.function, functions)
    nodes = [node for node in ast.walk(function.node) if hasattr(node, "lineno")] if function else []
    spots = find_spots(mutant.guard, mutant.instead, nodes)
    if not spots:
        return None
    first, last, text = min(spots, key=lambda spot: (spot[0].lineno, spot[0].col_offset))
    lines = sources[function.module].encode().splitlines(keepends=True)      # columns are counted in bytes
    before = b"".join(lines[:first.lineno - 1]) + lines[first.lineno - 1][:first.col_offset]
    after = lines[last.end_lineno - 1][last.end_col_offset:] + b"".join(lines[last.end_lineno:])
    return function.module, (before + text.encode() + after).decode()


def run_mutant(mutant, folder, sources, functions):
    """Make `mutant` of the program in `folder`, run its tests. Returns what became of it: caught, survived or lost."""
    found = mutate(mutant, sources, functions)
    if found is None:
        return "lost"
    module, source = found
    target = folder / f"{module.replace('.', '/')}.py"
    target.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider",
               f"tests/test_{mutant.tests}.py", "-k", mutant.words]
    try:
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        status = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:
        status = 1
    target.write_text(sources[module], encoding="utf-8")
    return {0: "survived", 1: "caught"}.get(status, "lost")      # 5: no such test


def main():
    """Run the mutants that the command line names, or all."""
    words = sys.argv[1:]
    fates = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "program"
        folder.mkdir()
        for part in COPIED:
            copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
            copy(REPOSITORY / part, folder / part)
        sources = read_sources(folder)
        functions = read_functions(sources)
        for mutant in MUTANTS:
            if words and not any(word in mutant.function for word in words):
                continue
            fates.append(run_mutant(mutant, folder, sources, functions))
            print(f"{fates[-1]:8} {mutant.function}: {' '.join(mutant.guard.split())} ({mutant.words})", flush=True)
    print(f"{fates.count('caught')} of {len(fates)} mutants caught")
    return 0 if fates.count("caught") == len(fates) else 1


if __name__ == "__main__":
    sys.exit(main())
