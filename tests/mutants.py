"""Remove each guard in turn and see its test fail.

    python -m tests.mutants             all of them, one line each
    python -m tests.mutants run files   those whose file name holds one of the words

A mutant is a copy of the program with one guard taken out; it is caught when the named tests fail on it. The copy
lies in a temporary folder. The exit status is 1 if a mutant survives, or a guard is no longer where the list says.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers import REPOSITORY

COPIED = ("config.py", "model_config.py", "main.py", "README.md", "pyproject.toml", "processing", "model", "data", "tests")

# File, the guard as it stands, what is put in its place, the tests that must fail: file and words of their names
MUTANTS = [
    ("processing/files.py", "            _sync(temporary)\n", "", "files", "fsync"),
    ("processing/files.py", "os.replace(temporary, path)", "path.write_bytes(temporary.read_bytes())", "files",
     "replace"),
    ("processing/files.py", "            temporary.unlink()", "            pass", "files", "failed_write"),
    ("processing/files.py", "        raise PipelineError(f\"{path} could", "        raise ValueError(f\"{path} could", "files",
     "failed_write"),
    ("processing/files.py", "        shutil.rmtree(folder.path, ignore_errors=True)\n", "", "files", "leaves_nothing"),
    ("processing/files.py", "            folder.mkdir(parents=True)", "            folder.mkdir(parents=True, exist_ok=True)",
     "files", "made_at_once"),
    ("processing/images.py", "    if width * height > MAX_PIXELS:", "    if False:", "images", "giant"),
    ("processing/images.py", "    if part.size == 0:", "    if False:", "images", "whatever_the_image"),
    ("processing/images.py", "    if image is None:\n        raise ImageError(\"cannot be decoded: damaged\")", "    pass",
     "images", "truncated"),
    ("processing/images.py", "(data, colours, strict=True)", "(data, colours, strict=False)", "images",
     "damage_within"),
    ("processing/images.py", "    if b\"Exif\\0\\0\" in data and", "    if False and", "data_factory", "rotation"),
    ("processing/images.py", "    raise ImageError(\"cannot be decoded: damaged, or neither", "    return 1, 1\n    raise (\"",
     "images", "other_formats"),
    ("processing/images.py", "    return grey if cv2.norm(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), image, cv2.NORM_INF) == 0 else None",
     "    return grey", "images", "coloured"),
    ("processing/crops.py", "    if not whole or not", "    if False and not", "data_factory", "cannot_be_cut"),
    ("processing/crops.py", "    if other:\n", "    if False:\n", "training", "another_box"),
    ("processing/crops.py", "    if absent:\n", "    if False:\n", "training", "missing_crops"),
    ("processing/crops.py", "\"crop_mtime_ns\": state.st_mtime_ns}", "\"crop_mtime_ns\": 0}", "data_factory",
     "without_changing_its_size"),
    ("processing/crops.py", "        \"source_mtime_ns\": state.st_mtime_ns,", "        \"source_mtime_ns\": 0,", "data_factory",
     "source_that_changed"),
    ("processing/source.py", "    if str(file) != printable(str(file)):", "    if False:", "data_factory", "no_table_can_hold"),
    ("processing/source.py", "    if len(file.name.encode()) > MAX_NAME_BYTES:", "    if False:", "data_factory",
     "no_table_can_hold"),
    ("processing/source.py", "        if real in entered:", "        if False:", "source", "loops"),
    ("processing/source.py", "        if first is not row:", "        if False:", "source", "second_copy"),
    ("processing/source.py", "if table and _read(found", "if False and _read(found", "source", "twice"),
    ("processing/reader.py", "        if cell.lower() not in lowered:", "        if False:", "tables", "category"),
    ("processing/reader.py", "    if not np.isfinite(value):", "    if False:", "tables", "all_faults"),
    ("processing/reader.py", "        if earlier != row and None not in key:", "        if False:", "tables", "all_faults"),
    ("processing/reader.py", "        if len(cells) == len(header):", "        if True:", "tables", "odd_rows"),
    ("processing/reader.py", "    if rows.pop() != [_END]:", "    if rows.pop() is None:", "tables", "quotation_mark"),
    ("processing/reader.py", "        elif count == 0:", "        elif False:", "tables", "missing_columns"),
    ("processing/tables.py", "    if empty:\n", "    if False:\n", "tables", "without_any_value"),
    ("processing/tables.py", "    if absent:\n", "    if False:\n", "tables", "damaged_by_hand"),
    ("processing/tables.py", "    return 0.0 if cell.upper() == \"NLP\"", "    return 1.0 if cell.upper() == \"NLP\"", "tables",
     "light_perception"),
    ("processing/data_factory.py", "    if strict and problems:", "    if False:", "data_factory", "strict"),
    ("processing/data_factory.py", "    if images.empty:", "    if False:", "data_factory", "no_image_is_usable"),
    ("processing/data_factory.py", "    check_box(box)\n", "", "data_factory", "cannot_be_cut"),
    ("model/checkpoint.py", "    if is_ours and not sealed:", "    if False:", "checkpoint", "inside_a_whole_archive"),
    ("model/checkpoint.py", "weights_only=True", "weights_only=False", "checkpoint", "never_run"),
    ("model/checkpoint.py", "    if found not in wanted:", "    if False:", "checkpoint", "wrong_kind"),
    ("model/checkpoint.py", "    if wrong:\n", "    if False:\n", "checkpoint", "no_numbers"),
    ("model/dataset.py", "    if len(wrong):", "    if False:", "loop", "no_number"),
    ("model/dataset.py", "        if pixels.shape[1:] != self.crop_size:", "        if False:", "model", "another_size"),
    ("model/dataset.py", "                raise PipelineError(\n                    f\"{self._root / name}: {error}", "                raise KeyError(\n                    f\"{error}",
     "model", "unreadable_crop"),
    ("model/cache.py", "        if made_of != key:", "        if False:", "cache", "does_not_fit"),
    ("model/cache.py", "    except Exception:       #", "    except ValueError:       #", "cache", "does_not_fit"),
    ("model/cache.py", "                self._give_up()\n", "", "cache", "damaged_pixels"),
    ("model/cache.py", "        if file.stat().st_size != size:", "        if False:", "cache", "does_not_fit"),
    ("model/cache.py", "            if zlib.crc32(flat) != check:", "            if False:", "cache", "damaged_pixels"),
    ("model/cache.py", "    if free < len(names)", "    if False and free < len(names)", "cache", "full_disk"),
    ("model/cache.py", " and pixels.shape[1:] == (height, width)", "", "cache", "cannot_be_read"),
    ("model/distributed.py", "        share_batch_norm(module, self._group)\n", "", "distributed", "train_as_one"),
    ("model/distributed.py", "        if share:", "        if True:", "distributed", "more_processes_than"),
    ("model/loop.py", "sum_over_processes(_sums(losses, counts))", "_sums(losses, counts)",
     "distributed", "train_as_one"),
    ("model/loop.py", "                self._restore_state(before)\n                say", "                say", "loop", "no_cuda_graph"),
    ("model/device.py", "    except RuntimeError as error:", "    except KeyError as error:", "model", "cannot_use"),
    ("model/loop.py", "            if not self.guard.judge(loss[0]):", "            if self.guard.judge(loss[0]) is None:", "loop", "before_the_weights_change"),
    ("model/loop.py", "        torch.maximum(self._bad, (~torch.isfinite(self._total(loss))).float(), out=self._bad)",
     "        self._bad.copy_((~torch.isfinite(self._total(loss))).float())", "loop",
     "asked_late"),
    ("model/loop.py", "            return loss + torch.linalg.vector_norm(gradients[0])\n        return loss + torch.nn.utils.get_total_norm(gradients)",
     "            return loss\n        return loss", "loop",
     "before_the_weights_change"),
    ("model/loop.py", "optimizer.grad_scale, optimizer.found_inf = None, self._bad", "pass", "loop", "asked_late"),
    ("model/loop.py", "            _check_weights(module, backward.parameters, epoch)\n", "", "loop", "never_saved"),
    ("model/loop.py", "            run.halve_batch()\n", "            run.halvings += 1\n", "loop", "halves_the_batch"),
    ("model/loop.py", "        run.rewind(steps.module, steps.optimizer)\n", "", "loop", "halves_the_batch"),
    ("model/run.py", "            optimizer.load_state_dict(self._restored[\"optimizer\"])\n", "", "resume", "bit_for_bit"),
    ("model/run.py", "        if changed:", "        if False:", "resume", "cannot_be_resumed"),
    ("model/run.py", "{name: then.get(name) for name in now}, now)", "{}, {})", "resume", "cannot_be_resumed"),
    ("model/run.py", "        if record.get(\"epochs_done\") and not", "        if False and not", "resume", "cannot_be_resumed"),
    ("model/loop.py", "            losses.append(_kept(loss))", "            losses.append(loss)", "loop", "no_tensor_of_a_step"),
    ("processing/splits.py", "            if earlier != number:", "            if False:", "splits", "changed_by_hand"),
    ("processing/splits.py", "    if absent:\n", "    if False:\n", "splits", "changed_by_hand"),
    ("model/training.py", "        table = refill(table, paths, held_out)", "        pass", "heldout", "nothing_that_is_fitted"),
    ("model/heldout.py", "eyes[~eyes[PATIENT].isin(held_out)]", "eyes", "heldout", "nothing_that_is_fitted"),
    ("model/heldout.py", "    return rows[~unseen], rows[unseen]", "    return rows, rows[unseen]", "heldout",
     "nothing_that_is_fitted"),
    ("model/run.py", "unseen < best[1]", "unseen > best[1]", "heldout", "best_epoch"),
    ("model/trees.py", "trusted=TRUSTED", "trusted=skops.io.get_untrusted_types(data=data.getvalue())", "trees",
     "does_not_know"),
    ("data/unseen.py", "!= splits:", "== 0:", "evaluate", "other_splits"),
    ("model/training.py", "        data[\"images\"] = ", "        ", "resume", "images_changed"),
    ("model/run.py", "        if record.get(\"state\") == \"finished\":", "        if False:", "resume", "cannot_be_resumed"),
    ("model/run.py", "self._open.enter_context(locked(self.folder / \".lock\"))", "pass", "resume", "in_use"),
    ("model/run.py", "                        self._save()\n                finally:", "                        pass\n                finally:",
     "run", "midst_of_the_last_save"),
    ("model/run.py", "                self._save()\n                self._draw()", "                pass", "run",
     "cut_short"),
    ("model/run.py", "self._write_state(_state_after(problem), problem)\n", "pass\n", "run", "cannot_be_written"),
    ("model/choice.py", "if unfinished or read_record(folder).get(\"state\") == \"finished\"", "if True", "predict", "unfinished"),
    ("model/choice.py", "    if record and not (unfinished", "    if False and not (unfinished", "run", "only_a_finished_one"),
    ("model/model.py", "max(self.module.crop_size) <= WHOLE_IN_ONE_PX", "False", "model", "last_batch_of_one"),
    ("data/predict.py", "    if doubled:\n", "    if False:\n", "predict", "twice"),
    ("data/predict.py", "        if box != CROP:", "        if False:", "predict", "another_crop_box"),
    ("data/submission.py", "        if wrong.any():", "        if False:", "predict", "writes_nothing"),
    ("data/scorer.py", "    if faults:\n        raise", "    if False:\n        raise", "scorer", "all_that_is_wrong"),
    ("data/scorer.py", "    if value > 1:", "    if False:", "scorer", "all_that_is_wrong"),
    ("data/scorer.py", "        if len(missing):", "        if False:", "scorer", "all_that_is_wrong"),
    ("model/training.py", "read_behind(folder) if config.name in names", "[]", "resume", "folds_that_are_left"),
    ("model/training.py", "        if own.name not in names:", "        if False:", "resume", "another_option"),
    ("main.py", "    if config.recipe == \"best\" and useless:", "    if False:", "main", "wrong_usage"),
    ("processing/importer.py", "        if not (plan.new or plan.already_there):", "        if False:", "importer",
     "without_any_file"),
    ("main.py", "    if _complain_of_configuration():", "    if False:", "main", "model_config"),
    ("main.py", "    except Exception as error:      # a bug", "    except KeyError as error:  #", "main",
     "bug_is_logged"),
    ("main.py", "        except EOFError:\n            print()\n            return None", "        except ZeroDivisionError:\n"
     "            return None", "main", "end_of_input"),
]


def run_mutant(number, folder):
    """Make mutant `number` in `folder` and run its tests. Returns what became of it: caught, survived or lost."""
    file, guard, replacement, tests, words = MUTANTS[number]
    target = folder / file
    original = target.read_text(encoding="utf-8")
    if original.count(guard) < 1:
        return "lost"
    target.write_text(original.replace(guard, replacement), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/test_{tests}.py",
               "-k", words]
    try:
        status = subprocess.run(command, cwd=folder, capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:
        status = 1
    target.write_text(original, encoding="utf-8")
    return {0: "survived", 1: "caught"}.get(status, "lost")      # 5: no such test


def main():
    """Run the mutants that the command line names, or all."""
    words = sys.argv[1:]
    chosen = [number for number, mutant in enumerate(MUTANTS) if not words or any(word in mutant[0] for word in words)]
    fates = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "program"
        folder.mkdir()
        for part in COPIED:
            copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
            copy(REPOSITORY / part, folder / part)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for number in chosen:
            file, guard, _, _, tests = MUTANTS[number]
            fates.append(run_mutant(number, folder))
            print(f"{fates[-1]:8} {file}: {guard.strip().splitlines()[0]} ({tests})", flush=True)
    print(f"{fates.count('caught')} of {len(fates)} mutants caught")
    return 0 if fates.count("caught") == len(fates) else 1


if __name__ == "__main__":
    sys.exit(main())
