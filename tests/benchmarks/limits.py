"""What the machine could do at best: decoding, memory, arithmetic."""

import time

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.module import CSVModule, ImageModule
from processing.images import crop_image, decode_image
from processing.parallel import CORES
from tests.benchmarks.data import BSCAN


def estimate(paths, device):
    """Limits of each stage on this machine.

    Args:
        paths: config.Paths, with screens in data/source.
        device: torch.device.

    Returns:
        dict of stage -> (items a second at best, why).
    """
    screen = next(iter(sorted(paths.source.rglob("*.jpg")))).read_bytes()
    crop = np.ascontiguousarray(crop_image(decode_image(screen), BSCAN)[..., :1])
    encoded = cv2.imencode(".jpg", crop)[1].tobytes()
    decode_screen = _seconds(lambda: simplejpeg.decode_jpeg(screen, "BGR"))
    encode_crop = _seconds(lambda: cv2.imencode(".jpg", crop))
    decode_crop = _seconds(lambda: simplejpeg.decode_jpeg(encoded, "GRAY"))
    flops, csv_flops = _flops(ImageModule(), _black_crop()), _flops(CSVModule(), torch.zeros(1, 16))
    bytes_ = _activation_bytes()
    rate, bandwidth = _matrix_rate(device), _bandwidth(device)
    arithmetic, memory = 3 * flops / rate, 6 * bytes_ / bandwidth
    step = max(arithmetic, memory)
    why = (f"{3 * flops / 1e9:.2f} GFLOP at {rate / 1e9:.0f} GFLOP/s: {1e3 * arithmetic:.1f} ms; "
           f"{6 * bytes_ / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s: {1e3 * memory:.1f} ms")
    forward = max(flops / rate, 2 * bytes_ / bandwidth) + decode_crop / CORES
    return {
        "crop": (CORES / (decode_screen + encode_crop),
                 f"decode {1e3 * decode_screen:.2f} ms + encode {1e3 * encode_crop:.2f} ms on {CORES} cores"),
        "train_image": (1 / step, why),
        "predict": (1 / forward, f"a third of the arithmetic or memory, and decoding {1e3 * decode_crop:.2f} ms"),
        "train_csv": (rate / (3 * csv_flops), f"{3 * csv_flops / 1e3:.0f} kFLOP an eye at the matrix rate alone"),
    }


def _seconds(work, repeats=20):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _black_crop():
    return {"bscan": torch.zeros(1, 3, BSCAN.height, BSCAN.width)}


def _flops(module, inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(inputs)
    return counter.get_total_flops()


def _activation_bytes():
    """Bytes of all convolutions' outputs of one crop in float32."""
    sizes = []
    module = ImageModule().eval()
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda _part, _inputs, output: sizes.append(output.numel() * 4))
    with torch.no_grad():
        module(_black_crop())
    return sum(sizes)


def _matrix_rate(device, size=2048):
    left = torch.rand(size, size, device=device)
    return 2 * size**3 / _on_device(lambda: left @ left, device)


def _bandwidth(device, count=2**26):
    """Bytes read and written a second."""
    source, target = torch.zeros(count, device=device), torch.zeros(count, device=device)
    return 8 * count / _on_device(lambda: target.copy_(source), device)


def _on_device(work, device):
    def waited():
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    waited()
    return _seconds(waited, repeats=7)
