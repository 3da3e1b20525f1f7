"""Images: data sets by name or path, split in three, in memory or streamed from disk.

`load` is the way in (`load_data`, `ImageData`). Where images come from: `sets` (data sets by name), `files` and
`folder` (a person's own), `dataset` (torch Datasets of plug-ins). How they are held: `images` (in memory), `stream`
(read from disk, by `workers`). `split` holds images out.
"""

from nas.data.images import Images, fitting_batch_size
from nas.data.load import Augmentation, ImageData, ImageSet, load_data, load_data_of
from nas.data.sets import DATASETS, DatasetSource, Source
from nas.data.stream import StreamedImages

__all__ = [
    "DATASETS",
    "Augmentation",
    "DatasetSource",
    "ImageData",
    "ImageSet",
    "Images",
    "Source",
    "StreamedImages",
    "fitting_batch_size",
    "load_data",
    "load_data_of",
]
