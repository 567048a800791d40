"""ImageModel and CSVModel: `train` and `eval`, over one visible loop."""

import time

import numpy as np
import pandas as pd
import torch

from model.checkpoint import load_checkpoint
from model.dataset import EpochShuffle, ImageDataset, image_loader, to_device
from model.device import keep_freed_memory
from model.loss import UM_PER_UNIT, CSVLoss, ImageLoss
from model_config import PREDICT_BATCH_SIZE
from processing.progress import progress, say
from processing.tables import CONTINUE, CST, CSV_FEATURES, FINDINGS, VA

MAX_LINES = 50      # a run of more epochs than this says only about so many of its losses


def train_epoch(module, loss_function, batches, optimizer):
    """One pass over `batches`.

    Args:
        batches: iterable of (inputs, targets), on the module's device.

    Returns:
        dict: "loss" and "loss <part>" of each part -> mean over the rows of the epoch.
    """
    module.train()
    sums, count = [], 0
    for inputs, targets in batches:
        total, parts = loss_function(module(inputs), targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        sums.append(torch.stack([total, *parts]).detach() * len(inputs))
        count += len(inputs)
    names = ["loss", *(f"loss {part}" for part in loss_function.parts)]
    means = torch.stack(sums).cpu().double().sum(0) / count
    return dict(zip(names, means.tolist(), strict=True))


def fit(module, loss_function, batches, *, steps, config, run):
    """All epochs of a run: train, say, save.

    Args:
        batches: function of the epoch's number (from 1) that gives its (inputs, targets).
        steps: how many they are.
        config: ImageConfig or CSVConfig.
        run: model.run.Run.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    bar = progress(total=config.epochs * steps, label=config.name, unit="step", leave=False)
    with bar:
        for epoch in range(1, config.epochs + 1):
            started = time.monotonic()
            losses = train_epoch(module, loss_function, _counted(batches(epoch), bar), optimizer)
            seconds = time.monotonic() - started
            run.finish_epoch(epoch, module, losses)
            if epoch % max(1, config.epochs // MAX_LINES) == 0:
                say(_line(config, epoch, losses, seconds))


def _counted(batches, bar):
    for batch in batches:
        yield batch
        bar.update()


def _line(config, epoch, losses, seconds):
    parts = ", ".join(f"{name[5:]} {value:.4f}" for name, value in losses.items() if name != "loss")
    return f"{config.name} epoch {epoch}/{config.epochs}: loss {losses['loss']:.4f} ({parts}), {seconds:.2g} s"


class ImageModel:
    """Crops -> CST and findings.

    Args:
        module: ImageModule; lives on `device` from now on.
        device: torch.device.
    """

    def __init__(self, module, device):
        self.module, self.device = module.to(device), device
        keep_freed_memory()

    @classmethod
    def load(cls, path, device):
        """The model in a checkpoint file. Raises PipelineError as load_checkpoint does."""
        module, _ = load_checkpoint(path, "ImageModule")
        return cls(module, device)

    def train(self, rows, root, config, run):
        """Train on the crops of `rows`.

        Args:
            rows: DataFrame with processed_path, config.target (um) and FINDINGS (0 / 1); 1 row or more.
            root: what processed_path is relative to.
            config: ImageConfig.
            run: model.run.Run.
        """
        dataset = ImageDataset(rows, root, self.module.crop_size, config.target)
        shuffle = EpochShuffle(len(dataset), config.seed)
        loader = image_loader(dataset, config.batch_size, self.device, workers=config.workers, sampler=shuffle)

        def batches(epoch):
            shuffle.epoch = epoch
            return to_device(loader, self.device)

        fit(self.module, ImageLoss(), batches, steps=len(loader), config=config, run=run)

    def eval(self, rows, root, *, workers=-1, label="predict"):
        """Predict each row's crop, in order; any number of rows.

        Returns:
            DataFrame with the index of `rows`: CST in um (0 or more), and FINDINGS as probabilities, 0-1.
        """
        self.module.eval()
        dataset = ImageDataset(rows, root, self.module.crop_size)
        loader = image_loader(dataset, PREDICT_BATCH_SIZE, self.device, workers=workers)
        outputs = [np.empty((0, 1 + len(FINDINGS)), np.float32)]
        with torch.inference_mode(), progress(total=len(dataset), label=label, unit="image", leave=False) as bar:
            for images, _ in to_device(loader, self.device):
                cst, findings = self.module(images)
                cst = (cst * UM_PER_UNIT).clamp(min=0)
                both = torch.cat([cst[:, None], self.module.probabilities(findings)], dim=1)    # B x 5
                outputs.append(both.float().cpu().numpy())
                bar.update(len(images))
        return pd.DataFrame(np.concatenate(outputs), columns=[CST, *FINDINGS], index=rows.index)


class CSVModel:
    """Features of an eye -> VA and continue injection; arguments as for ImageModel."""

    def __init__(self, module, device):
        self.module, self.device = module.to(device), device

    @classmethod
    def load(cls, path, device):
        """The model in a checkpoint file and the values kept beside it. Raises as load_checkpoint does."""
        module, values = load_checkpoint(path, "CSVModule")
        return cls(module, device), values

    def train(self, cases, config, run):
        """Train on a case table, in the order of its rows.

        Fixed batches of config.batch_size; the last partial one is left out, as in 2021, unless it is the only one.

        Args:
            cases: DataFrame with CSV_FEATURES, VA and continue injection (0 / 1); 1 row or more.
            config: CSVConfig.
            run: model.run.Run.
        """
        features = self._features(cases)
        va = torch.tensor(cases[VA].to_numpy(np.float32), device=self.device)
        classes = torch.tensor(cases[CONTINUE].to_numpy(np.int64), device=self.device)
        size = min(config.batch_size, len(cases))
        starts = range(0, len(cases) - size + 1, size)
        fixed = [(features[i:i + size], (va[i:i + size], classes[i:i + size])) for i in starts]
        fit(self.module, CSVLoss(), lambda _epoch: fixed, steps=len(fixed), config=config, run=run)

    def eval(self, cases):
        """Predict each row; any number of rows.

        Args:
            cases: DataFrame with CSV_FEATURES.

        Returns:
            DataFrame with the index of `cases`: VA (0 or more) and continue injection, the probability of class 1.
        """
        self.module.eval()
        with torch.inference_mode():
            va, scores = self.module(self._features(cases))
            both = torch.stack([va.clamp(min=0), self.module.probabilities(scores)], dim=1)     # B x 2
        return pd.DataFrame(both.cpu().numpy(), columns=[VA, CONTINUE], index=cases.index)

    def _features(self, cases):
        return torch.tensor(cases[CSV_FEATURES].to_numpy(np.float32), device=self.device)
