"""ImageModel and CSVModel: `train` and `eval`, over the loop of model/loop.py."""

import numpy as np
import pandas as pd
import torch

from model.backward import Autograd, CSVBackward
from model.checkpoint import load_checkpoint
from model.dataset import CaseFeed, ImageDataset, ImageFeed, case_features, check_finite, read_batches
from model.device import one_thread
from model.distributed import SharedBackward
from model.loop import fit
from model.loss import UM_PER_UNIT, CSVLoss, ImageLoss
from model.module import fold_batch_norm
from model_config import PREDICT_BATCH_SIZE
from processing import columns as c
from processing.errors import PipelineError
from processing.parallel import OWN_SHARE, PROCESSES, keep_freed_memory
from processing.terminal import progress

WHOLE_IN_ONE_PX = 256       # the blocks leave one pixel of a crop that is no larger


class ImageModel:
    """Crops -> CST and findings.

    Args:
        module: ImageModule; lives on `device` from now on.
        device: torch.device.
    """

    def __init__(self, module, device):
        layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
        self.module, self.device = module.to(device, memory_format=layout), device
        keep_freed_memory()

    @classmethod
    def load(cls, path, device):
        """The model in a checkpoint file. Raises PipelineError as load_checkpoint does."""
        module, _ = load_checkpoint(path, "ImageModule")
        return cls(module, device)

    def train(self, rows, root, run, held_out=None, cache=None):
        """Train on the crops of `rows`.

        Args:
            rows: DataFrame with processed_path, the config's target (um) and FINDINGS (0 / 1); 1 row or more.
            root: what processed_path is relative to.
            run: model.run.Run, with an ImageConfig.
            held_out: DataFrame as `rows`, whose losses are reported after each epoch; None or empty: none.
            cache: model.cache.PixelCache of the crops, or None.
        """
        size, target = self.module.crop_size, run.config.target
        dataset = ImageDataset(rows, root, size, target, cache)
        unseen = None if held_out is None or held_out.empty else ImageDataset(held_out, root, size, target, cache)
        if max(self.module.crop_size) <= WHOLE_IN_ONE_PX and len(rows) % run.batch_size == 1:
            raise PipelineError(
                f"The last of {len(rows)} images would make a batch of its own, and from crops of "
                f"{self.module.crop_size[0]} x {self.module.crop_size[1]} batch norm cannot learn of one image. "
                "Choose another batch size (--batch-size)."
            )
        backward = SharedBackward if PROCESSES > 1 else Autograd
        fit(self.module, ImageLoss(), ImageFeed(dataset, run.config, self.device), run,
            unseen and (lambda: self._batches(unseen, run.config.workers, OWN_SHARE)),
            backward=backward(self.module, run.config.precision))

    def eval(self, rows, root, *, workers=-1, label="predict"):
        """Predict each row's crop, in order; any number of rows.

        Returns:
            DataFrame with the index of `rows`: CST in um (0 or more), and FINDINGS as probabilities, 0-1.
        """
        dataset, module = ImageDataset(rows, root, self.module.crop_size), fold_batch_norm(self.module)
        outputs = [np.empty((0, 1 + len(c.FINDINGS)), np.float32)]
        with torch.inference_mode(), progress(total=len(dataset), label=label, unit="image", leave=False) as bar:
            for images, _, _ in self._batches(dataset, workers):
                cst, findings = module(images)
                cst = (cst * UM_PER_UNIT).clamp(min=0)
                both = torch.cat([cst[:, None], self.module.probabilities(findings)], dim=1)    # B x 5
                outputs.append(both.float().cpu().numpy())
                bar.update(len(images))
        return pd.DataFrame(np.concatenate(outputs), columns=[c.CST, *c.FINDINGS], index=rows.index)

    def _batches(self, dataset, workers, share=slice(None)):
        """The dataset's share in its order, in batches for prediction."""
        return read_batches(dataset, np.arange(len(dataset))[share], PREDICT_BATCH_SIZE, self.device, workers=workers)


class CSVModel:
    """Features of an eye -> VA and continue injection; arguments as for ImageModel."""

    takes_missing = False       # whether eval can do with NaN

    def __init__(self, module, device):
        self.module, self.device = module.to(device), device

    def train(self, cases, run, held_out=None):
        """Train on a case table, in the order of its rows, as CaseFeed gives them.

        Args:
            cases: DataFrame with CSV_FEATURES, VA and continue injection (0 / 1); 1 row or more.
            run: model.run.Run, with a CSVConfig.
            held_out: DataFrame as `cases`, whose losses are reported after each epoch; None or empty: none.
        """
        unseen = None if held_out is None or held_out.empty else CaseFeed(held_out, self.device)
        with one_thread():
            fit(self.module, CSVLoss(), CaseFeed(cases, self.device), run,
                unseen and (lambda: unseen.epoch(1, len(held_out))), backward=CSVBackward(self.module))

    def eval(self, cases):
        """Predict each row; any number of rows.

        Args:
            cases: DataFrame with CSV_FEATURES; patient ID as a column or the index.

        Returns:
            DataFrame with the index of `cases`: VA (0 or more) and continue injection, the probability of class 1.
        """
        check_finite(cases, c.CSV_FEATURES, c.PATIENT)
        self.module.eval()
        with torch.inference_mode():
            va, scores = self.module(case_features(cases, self.device))
            both = torch.stack([va.clamp(min=0), self.module.probabilities(scores)], dim=1)     # B x 2
        return pd.DataFrame(both.cpu().numpy(), columns=[c.VA, c.CONTINUE], index=cases.index)


class CSVTrees:
    """A TreeModel in the place of CSVModel: `eval` as there, of cases with their round (final), NaN where missing."""

    takes_missing = True

    def __init__(self, module, _device):
        self.module = module

    def eval(self, cases):
        """As CSVModel.eval; patient ID as a column or the index."""
        answers = self.module.predict(cases.reset_index())
        return answers.set_axis(cases.index)
