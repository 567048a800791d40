"""Views: what is cut out of a screen, where each crop of it lies, and its pixels.

Reads crops, their record (data/processed/csv/crops.csv) and, for a box that the crops on disk were not cut with, the
screens; writes nothing. C channels, H and W pixels.
"""

import numpy as np
import pandas as pd

from config import Paths, View
from processing import columns as c
from processing.crop_record import find_crops
from processing.errors import PipelineError
from processing.files import stat_files
from processing.images import MAX_PIXELS, ImageError, ImageFileError, cut_view, decode_pixels, read_image, read_pixels
from processing.terminal import say


def describe_view(view: View) -> str:
    """The box of a view as rows and columns.

    >>> describe_view(View(50, 450, 550, 1200))
    '50:450,550:1200'
    >>> describe_view(View(0, 496, 496, 1264, narrow=2))
    '0:496,496:1264:2'
    """
    return f"{view.top}:{view.bottom},{view.left}:{view.right}" + (f":{view.narrow}" if view.narrow > 1 else "")


def keep_views(views: dict[str, View]) -> dict[str, View]:
    """Those of the views whose crops are kept on the disk."""
    return {name: view for name, view in views.items() if view.folder}


def check_views(views: dict[str, View]) -> None:
    """Refuse views that cannot be cut or kept.

    Args:
        views: name -> View, as config.VIEWS.

    Raises:
        PipelineError: there is no view bscan, or it is not kept; a box that cuts nothing or wraps around; columns that
            cannot be drawn together; channels that are neither 1 nor 3; a folder that is no name, or another view's.
    """
    if "bscan" not in keep_views(views):
        raise PipelineError("config.VIEWS has no view 'bscan' with a folder; it names the images in the processed "
                            "tables.")
    folders: dict[str, str] = {}
    for name, view in views.items():
        where = f"config.VIEWS['{name}'] is {tuple(view)}"
        whole = all(isinstance(edge, int) for edge in view[:4])
        if not whole or not (0 <= view.top < view.bottom and 0 <= view.left < view.right):
            raise PipelineError(f"{where}; whole numbers are wanted, 0 <= top < bottom and 0 <= left < right.")
        if not isinstance(view.narrow, int) or view.narrow < 1 or (view.right - view.left) % view.narrow:
            raise PipelineError(f"{where}; its narrow is {view.narrow!r}, a whole number that divides its "
                                f"{view.right - view.left} columns is wanted.")
        if view.height * view.width > MAX_PIXELS:
            raise PipelineError(f"{where}: {view.height} x {view.width} pixels are more than any screen has.")
        if view.channels not in (1, 3):
            raise PipelineError(f"{where}; its channels are {view.channels!r}, 1 (grey) or 3 (coloured) are wanted.")
        if view.folder == "":
            continue
        if not str(view.folder).replace("-", "").replace("_", "").isalnum():
            raise PipelineError(f"{where}; its folder is {view.folder!r}, a name of letters and digits is wanted.")
        other = folders.setdefault(view.folder.lower(), name)
        if other != name:
            raise PipelineError(f"{where}; its folder is that of the view '{other}'. Each view needs its own.")


def view_paths(images: pd.DataFrame, view: View) -> list[str]:
    """Where the crop of each image lies: the one place that knows it.

    Args:
        images: DataFrame with patient ID, final, after, L0R1, image name and data_type.
        view: whose crops.

    Returns:
        Paths relative to the root, with forward slashes:
        data/processed/<folder>/<data_type>/<patient ID>_<final>_<after>_<L0R1>_<image name>.jpg; of a view that is not
        kept the screens themselves.
    """
    if not view.folder:
        return images[c.SOURCE].tolist()
    wanted = [c.DATA_TYPE, c.PATIENT, c.FINAL, c.AFTER, c.SIDE, c.IMAGE]
    return [f"data/processed/{view.folder}/{data_type}/{patient}_{final:.0f}_{after:.0f}_{side:.0f}_{image}.jpg"
            for data_type, patient, final, after, side, image
            in zip(*(images[column].tolist() for column in wanted), strict=True)]


class ViewReader:
    """Pixels of one view of the images of a table.

    A crop on disk is read where the record says that it was cut with this very view. Any other image is cut from its
    screen in memory, through JPEG as option 0 does it: the same pixels, so that a run with another box still predicts.

    Args:
        paths: config.Paths.
        images: DataFrame with the columns that view_paths needs, and source_path.
        view: the box and the channels that are wanted.
    """

    def __init__(self, paths: Paths, images: pd.DataFrame, view: View):
        self.view = view
        self.names = view_paths(images, view)       # what the user knows each image by: its crop, relative to the root
        self._root, self._sources = paths.root, images[c.SOURCE].tolist()
        cut = find_crops(paths.crop_record, describe_view(view), view.channels)
        self._has_crop = [name in cut for name in self.names]
        # What is read, relative to the root: the crop, or the screen where that was not cut with this view
        self.files = [name if has_crop else source
                      for name, source, has_crop in zip(self.names, self._sources, self._has_crop, strict=True)]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """The pixels of one image.

        Returns:
            uint8 array, C x H x W of the view, red first.

        Raises:
            PipelineError: crop or screen cannot be read, or the crop has another size.
        """
        has_crop = self._has_crop[index]
        file = self._root / self.files[index]
        try:
            if has_crop:
                pixels = read_pixels(file, self.view.channels)
            else:
                pixels = decode_pixels(cut_view(read_image(file), self.view)[0], self.view.channels)
        except ImageError as error:
            advice = f"Option 0 (processing_data) {'cuts it anew' if has_crop else 'leaves it out'}."
            if isinstance(error, ImageFileError):
                advice = "See that it can be read, and try again."
            raise PipelineError(f"{file}: {error}. {advice}") from error
        height, width = pixels.shape[1:]
        if (height, width) != (self.view.height, self.view.width):
            raise PipelineError(
                f"{file} has {height} x {width} rows and columns, the box {describe_view(self.view)} has "
                f"{self.view.height} x {self.view.width}. Option 0 (processing_data) cuts it anew."
            )
        return pixels

    def check(self) -> None:
        """Make sure before a long stage that every image can be had; say how many are cut from their screens.

        Raises:
            PipelineError: a crop is missing; or it was not cut with this view, and its screen is missing too.
        """
        absent = [index for index, state in enumerate(stat_files(self._root, self.files)) if state is None]
        crops = [self.files[index] for index in absent if self._has_crop[index]]
        screens = [self.files[index] for index in absent if not self._has_crop[index]]
        if crops:
            raise PipelineError(
                f"{len(crops)} of {len(self)} crops are not there, the first is {self._root / crops[0]}. "
                "Option 0 (processing_data) cuts them."
            )
        other = len(self) - sum(self._has_crop)
        wanted = f"were not cut with the box {describe_view(self.view)}"
        if screens:
            raise PipelineError(
                f"{other} of {len(self)} crops {wanted}, and {len(screens)} of their screens are not there, the first "
                f"is {self._root / screens[0]}. Put the screens back, or cut the crops with this box."
            )
        if other and self.view.folder:
            say(f"{other} of {len(self)} crops in data/processed/{self.view.folder} {wanted}; these images are cut "
                "from their screens: slower, with the same results.")
