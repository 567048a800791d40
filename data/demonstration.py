"""Option 10: a synthetic data set, and everything done with it, from the first option to two submissions.

Writes a root of its own, demo/<size>-<seed> or demo/<N>eyes-<seed>, so that nothing of it mixes with real data or
checkpoints, or with another demonstration: source, processed data, runs, submissions, and the known answers.
"""

from pathlib import Path

import model_config
from config import PATHS, Paths
from data.predict import predict_all, predict_before_after
from data.scorer import describe_match
from model.training import train
from processing.data_factory import processing_data
from processing.demo import SIZES, share_eyes, write_demo
from processing.terminal import say


def run_demo(root: Path = PATHS.root, *, size: str = "default", eyes: int | None = None, seed: int = 2021) -> None:
    """Invent eyes, process them, train all models shortly, predict both ways, and say how near the answers are.

    Args:
        root: folder that demo/ is made in.
        size: a key of processing.demo.SIZES.
        eyes: how many eyes to invent in all, in place of the size's number.
        seed: whole number, 0 or more; with size and eyes it determines the eyes.

    Raises:
        ConfigError: too few or too many eyes.
        PipelineError: a file could not be written, or a model not be trained.
    """
    demo_size, name = SIZES[size], size
    if eyes is not None:
        demo_size, name = share_eyes(eyes, images=demo_size.images), f"{eyes}eyes"
        name += "" if size == "default" else f"-{size}"         # fewer images of each
    paths = Paths(root / "demo" / f"{name}-{seed}")
    write_demo(paths, demo_size, seed=seed)
    processing_data(paths)
    train([model_config.DEMO_CSV_MODEL, *model_config.DEMO_IMAGE_MODELS], paths)
    results = predict_before_after(paths), predict_all(paths)
    say(f"Scans and tables:  {paths.source} (synthetic), crops and tables made of them: {paths.processed}")
    say(f"Models and plots:  {paths.ckpt}")
    say(f"Submissions:       {results[0]} (Before and After), {results[1]} (All)")
    say(f"Before and After against the known answers: {describe_match(results[0], paths.truth)}")
    say(f"All against the known answers: {describe_match(results[1], paths.truth)}")
