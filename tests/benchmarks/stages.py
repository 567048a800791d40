"""Each stage twice: as most people would write it (baseline), and as this program does it (ours).

    python -m tests.benchmarks.stages STAGE SIDE FOLDER OPTIONS     one measurement, as JSON; used by __main__

Every measurement has a process of its own, so that memory and settings of one do not touch the other. Both sides
give an answer; the two must agree before a time is believed.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import torch
from sklearn.utils import resample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from config import VIEWS, Paths
from data.measuring import measure_each
from model.batches import read_batches
from model.cache import open_cache
from model.csv_model import CASE_ORDER_SEED, CSVNetwork
from model.dataset import ImageData, plan_epoch
from model.device import select_device
from model.image_model import ImageNetwork
from model.loss import CSVLoss, ImageLoss, ImageTargets
from model.module import CSVModule, ImageModule
from model.registry import load_model
from model.run import Run
from model.segmentation import find_rows
from model.segmentation_model import WEIGHTS
from model.specification import ImageSpecification
from model_config import CSVConfig, ImageConfig
from processing import columns as c
from processing.bscans import read_bscan
from processing.crops import crop_all
from processing.views import ViewReader, view_paths
from tests.benchmarks.data import BSCAN, make_cases, make_labels, make_screens, screen_rows

SEED = 2021
ONE_VIEW = {"bscan": BSCAN}


class JPEGDataset(Dataset):
    """The baseline's images: read by torchvision, each time anew."""

    def __init__(self, rows, root, order):
        self.rows, self.root, self.order = rows.reset_index(drop=True), root, order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, number):
        from torchvision.io import ImageReadMode, decode_jpeg, read_file
        from torchvision.transforms.functional import convert_image_dtype

        row = self.rows.loc[self.order[number]]
        image = decode_jpeg(read_file(str(self.root / row[c.PROCESSED])), ImageReadMode.RGB)
        labels = torch.tensor(row[[c.CST, *c.FINDINGS]].to_numpy(np.float32))
        return convert_image_dtype(image, torch.float32), labels


class Recorded(nn.Module):
    """A loss that remembers what it was."""

    def __init__(self, loss, seen):
        super().__init__()
        self.loss, self.parts, self.seen = loss, loss.parts, seen

    def forward(self, outputs, batch):
        losses = self.loss(outputs, batch)
        total = losses[0].detach()
        self.seen.append(total.item() if total.device.type == "cpu" else total)     # on a card without waiting for it
        return losses


# ---- Crop

def crop_baseline(paths, options, views=ONE_VIEW):
    rows = screen_rows(paths, options.count)
    crops = {view: view_paths(rows, view) for view in views.values()}
    cv2.setNumThreads(1)
    for view in crops:
        (paths.view_folder(view) / "train").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    for number, source in enumerate(rows[c.SOURCE]):
        screen = cv2.imread(str(paths.root / source))
        for view, names in crops.items():
            part = screen[view.top:view.bottom, view.left:view.right]
            cv2.imwrite(str(paths.root / names[number]), part)
    return time.perf_counter() - started, _pixels(paths, rows, views)


def crop_ours(paths, options, views=ONE_VIEW):
    rows = screen_rows(paths, options.count)
    started = time.perf_counter()
    crop_all(rows, paths, views)
    return time.perf_counter() - started, _pixels(paths, rows, views)


def crop_views_baseline(paths, options):
    return crop_baseline(paths, options, VIEWS)


def crop_views_ours(paths, options):
    return crop_ours(paths, options, VIEWS)


def _pixels(paths, rows, views):
    """A number per crop that other pixels would change."""
    sums = []
    for view in views.values():
        weights = np.random.default_rng(0).random(view.height * view.width * 3)
        sums += [float(cv2.imread(str(paths.root / name)).ravel() @ weights) for name in view_paths(rows, view)[:80]]
    return sums


# ---- Train and predict images

def train_image_baseline(paths, options):
    rows, device = make_labels(options.count), select_device(options.device)
    torch.manual_seed(SEED)
    module, loss, losses = ImageModule().to(device), ImageLoss(), []
    optimizer = torch.optim.Adam(module.parameters(), lr=options.learning_rate)
    started = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        data = JPEGDataset(rows, paths.root, np.concatenate(_plan(rows, options, epoch)))
        module.train()
        for images, labels in DataLoader(data, options.batch_size, num_workers=options.baseline_workers):
            images, labels = images.to(device), labels.to(device)
            targets = ImageTargets(labels[:, 0], labels[:, 1:], labels[:, 1:], None)
            total = loss(module({"bscan": images}), SimpleNamespace(targets=targets))[0]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
    return time.perf_counter() - started, losses


def train_image_ours(paths, options):
    rows, device = make_labels(options.count), select_device(options.device)
    config = _image_config(options)
    _open_cache(paths, rows)        # there after the first training of all
    torch.manual_seed(SEED)
    model, seen = ImageNetwork({}, device), []
    model.plain_loss = Recorded(model.plain_loss, seen)
    started = time.perf_counter()
    with Run.start(paths, config, model, data={}) as run:
        model.fit(rows, run, paths, held_out=rows.head(0))
    return time.perf_counter() - started, [float(loss) for loss in seen]


def _plan(rows, options, epoch):
    """The rows of each batch of an epoch."""
    order = np.arange(len(rows))
    return [portion.rows for portion in plan_epoch(order, seed=SEED, epoch=epoch, batch_size=options.batch_size)]


def _open_cache(paths, rows):
    return open_cache(paths, "bscan", ViewReader(paths, rows, BSCAN))


def _image_config(options):
    return ImageConfig(
        name="Model-Image-After", visit="after", target=c.CST, epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size, device=options.device, precision=options.precision, seed=SEED,
    )


def start_ours(paths, options):
    """From nothing to the first batch, with the cache there."""
    rows, device = make_labels(options.count), select_device(options.device)
    _open_cache(paths, rows)
    started = time.perf_counter()
    data = ImageData(rows, paths, ImageSpecification(), labelled=True, caches={"bscan": _open_cache(paths, rows)})
    plan = plan_epoch(data.visit_of_row, seed=SEED, epoch=1, batch_size=options.batch_size)
    batch = next(iter(read_batches(data, plan, device)))
    return time.perf_counter() - started, batch.inputs["bscan"].mean(dim=(1, 2, 3)).tolist()


def start_baseline(paths, options):
    """The same by decoding every crop into memory first."""
    rows = make_labels(options.count)
    started = time.perf_counter()
    images = [cv2.imread(str(paths.root / name))[..., 0] for name in rows[c.PROCESSED]]
    first = _plan(rows, options, epoch=1)[0]
    batch = torch.from_numpy(np.stack([images[row] for row in first])).to(select_device(options.device)) / 255
    return time.perf_counter() - started, batch.mean(dim=(1, 2)).tolist()


def predict_baseline(paths, options):
    rows, device = make_labels(options.count), select_device(options.device)
    module, answers = _module_to_predict_with(device), []
    started = time.perf_counter()
    data = JPEGDataset(rows, paths.root, np.arange(len(rows)))
    with torch.no_grad():
        for images, _ in DataLoader(data, options.batch_size, num_workers=options.baseline_workers):
            cst, findings, _ = module({"bscan": images.to(device)})
            answers.append(torch.cat([cst[:, None], findings], dim=1).cpu())
    return time.perf_counter() - started, torch.cat(answers).flatten().tolist()


def predict_ours(paths, options):
    rows, device = make_labels(options.count), select_device(options.device)
    model = ImageNetwork({}, device)
    model.load_state_dict(_module_to_predict_with(device).state_dict())
    started = time.perf_counter()
    answers = model.predict(rows, paths)
    seconds = time.perf_counter() - started
    return seconds, answers.assign(**{c.CST: answers[c.CST] / 100}).to_numpy().ravel().tolist()


# ---- Measure scans

def measure_baseline(paths, options):
    """One screen after the other through the same network."""
    device, thickness = select_device(options.device), []
    module = load_model(WEIGHTS, device).module.eval()
    files = screen_rows(paths, options.count)[c.SOURCE]
    started = time.perf_counter()
    with torch.no_grad():
        for file in files:
            scan = cv2.imread(str(paths.root / file))[:496, 496:, 0]
            image = torch.from_numpy(scan.copy())[None, None].to(device).float() / 255
            rows = find_rows(module(image).membranes).rows[0].cpu()
            thickness.append(_middle(np.repeat((rows[1] - rows[0]).numpy(), 2)))
    return time.perf_counter() - started, thickness


def measure_ours(paths, options):
    """Option 11, with everything that it measures of a scan."""
    network = load_model(WEIGHTS, select_device(options.device))
    rows = screen_rows(paths, options.count)
    started = time.perf_counter()
    thickness = [_middle(measured.reading.bm_row - measured.reading.ilm_row)
                 for measured in measure_each(network, rows[c.SOURCE], lambda file: read_bscan(paths.root / file))]
    return time.perf_counter() - started, thickness


def _middle(thickness):
    """Mean over the middle tenth of the columns, px."""
    count = len(thickness)
    return float(thickness[int(0.45 * count):int(0.55 * count)].mean())


def _module_to_predict_with(device):
    """Weights with batch statistics that are not those of the start, thicknesses above 0."""
    torch.manual_seed(SEED)
    module = ImageModule()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    nn.init.constant_(module.regression[-1].bias, 3.0)
    return module.eval().to(device)


# ---- Train Model-CSV

def train_csv_baseline(paths, options):
    cases, device = make_cases(options.count), select_device(options.device)
    cases = resample(cases, replace=False, random_state=CASE_ORDER_SEED)
    torch.manual_seed(SEED)
    module, loss, losses = CSVModule().to(device), CSVLoss(), []
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-5)
    started = time.perf_counter()
    for _ in range(options.epochs):
        sums = []
        for start in range(0, len(cases) - options.batch_size + 1, options.batch_size):
            part = cases.iloc[start:start + options.batch_size]
            features = torch.tensor(part[c.CSV_FEATURES].to_numpy(), dtype=torch.float32).to(device)
            va = torch.tensor(part[c.VA].to_numpy(), dtype=torch.float32).to(device)
            classes = torch.tensor(part[c.CONTINUE].to_numpy(), dtype=torch.int64).to(device)
            total = loss(module(features), (va, classes))[0]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            sums.append(total.item())
        losses.append(float(np.mean(sums)))
    return time.perf_counter() - started, losses


def train_csv_ours(paths, options):
    _train_cases(paths, options, epochs=1)          # what only a first training takes: see start_up
    once, _ = _train_cases(paths, options, epochs=1)
    seconds, losses = _train_cases(paths, options, options.epochs)
    return (seconds - once) * options.epochs / (options.epochs - 1), losses


def start_up_ours(paths, options):
    """A training of one epoch in a new process: what is paid once, however many epochs follow."""
    return _train_cases(paths, options, epochs=1)


def start_up_baseline(paths, options):
    """The same of the baseline, which saves and draws nothing."""
    return train_csv_baseline(paths, SimpleNamespace(**vars(options) | {"epochs": 1}))


def _train_cases(paths, options, epochs):
    cases, device = make_cases(options.count), select_device(options.device)
    config = CSVConfig(epochs=epochs, batch_size=options.batch_size, device=options.device, seed=SEED)
    torch.manual_seed(SEED)
    model = CSVNetwork({}, device)
    started = time.perf_counter()
    with Run.start(paths, config, model, data={}) as run:
        model.fit(cases, run, paths, held_out=cases.head(0))
    return time.perf_counter() - started, pd.read_csv(run.folder / "history.csv")["loss"].tolist()


# ---- One measurement

SIDES = {name: function for name, function in globals().items() if name.endswith(("_baseline", "_ours"))}


def peak_bytes():
    """The most memory that this process had: from /proc, since getrusage counts what it was started by."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class CardWatch:
    """How busy the graphics card is in the block, by nvidia-smi, five times a second; NaN where there is none.

    Attributes: busy: median of the samples, in per cent; a start-up shorter than half of the block does not move it.
    """

    busy = float("nan")

    def __enter__(self):
        words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
        there = torch.cuda.is_available() and shutil.which(words[0])
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True) if there else None
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.terminate()
            samples = [float(line) for line in self._process.communicate()[0].split() if line.strip().isdigit()]
            self.busy = float(np.median(samples)) if samples else self.busy


def main(stage, side, folder, options):
    """Print seconds, answer, peak memory (bytes) and how busy the card was in one measurement."""
    paths, options = Paths(Path(folder)), SimpleNamespace(**json.loads(options))
    make_screens(paths.root)
    with CardWatch() as card:
        seconds, answer = SIDES[f"{stage}_{side}"](paths, options)
    card_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps({"seconds": seconds, "answer": answer, "peak_bytes": peak_bytes(), "card_bytes": card_bytes,
                      "card_busy": card.busy}))


if __name__ == "__main__":
    main(*sys.argv[1:])
