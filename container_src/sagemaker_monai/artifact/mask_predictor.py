"""A Bundle that segments, on a device: images in, label maps on their own grids out."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_monai.artifact.activations import counting
from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.artifact.predictor import Answered, Predictor
from sagemaker_monai.artifact.probabilities import collecting, probability_costs
from sagemaker_monai.artifact.sliding_window import (
    count_windows,
    label_map,
    mirrored,
    needed_bytes,
    windows_at_once,
)
from sagemaker_monai.budget import expect_bytes, expect_time, expect_work, lent, returned, spend_bytes, spend_work
from sagemaker_monai.images.expected import Expected, Watcher, watching
from sagemaker_monai.images.sample import PICTURE, PROBABILITIES, Held, Instances, Sample
from sagemaker_monai.images.several import name_picture, split_arrays
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.preprocessing.shown import SHOWING_BYTES, shown_of_each
from sagemaker_monai.preprocessing.ways import labels_back, with_size
from sagemaker_monai.tasks.components import BYTES_A_VOXEL, NS_A_VOXEL, keep_largest
from sagemaker_monai.tasks.mask_scores import voxel_size
from sagemaker_monai.tasks.regions import Regions, is_inside, numbers_of_structures
from sagemaker_monai.tasks.segmentation import OVERLAP, MaskPrediction, Segmentation, Structure
from sagemaker_monai.tasks.task import Prediction
from sagemaker_monai.tasks.tasks import TASKS

Labels = NDArray[np.uint8]
OnBlock = Callable[[tuple[slice, ...], torch.Tensor], None]
_UNITS = {2: "mm2", 3: "ml"}
_SLOW = (
    "send it to an asynchronous endpoint or a batch transform, which may take longer, raise SAGEMAKER_MODEL_SERVER_"
    "TIMEOUT_SECONDS, or train at a coarser spacing_mm"
)
_LONG_S = 5.0  # to run the network, which is then not run a second time
_COPIES = 3  # of a label map on the image's grid: picked, in the image's order of axes, and in the answer
# For each pixel of a picture to show: alone, with structures, and in the answer; and to draw and pack it.
_PICTURE_BYTES, _NS_A_PICTURE = 9, 200
_NS_A_VOXEL = 10  # to turn a label map to the image's grid and find the boxes of structures


def _nothing(_place: tuple[slice, ...], _logits: torch.Tensor) -> None:
    """What is done with a block unless something is."""


class MaskPredictor(Predictor):
    """Answers for images, each with a label map."""

    task: Segmentation
    _working_bytes = 0  # of the network while it runs, and the least time of a window; unknown before `rehearse`
    _window_s = 0.0

    def rehearse(self) -> int:
        """Run the network once or twice on what it will get at once, for `foresee`.

        Returns:
            The bytes that it takes on the host, whatever the image; 0 on a GPU.
        """
        preprocessing = self.bundle.preprocessing
        count = windows_at_once(preprocessing.size)
        windows = torch.zeros(
            (count, preprocessing.channels, *preprocessing.size), dtype=getattr(torch, preprocessing.dtype)
        )
        times_s: list[float] = []
        with counting(self._network) as most_bytes:
            while not times_s or (len(times_s) == 1 and times_s[0] < _LONG_S):  # the first run also prepares the next
                start = time.perf_counter()
                self._logits(windows)
                times_s.append(time.perf_counter() - start)
        self._window_s = min(times_s) / count
        self._working_bytes = most_bytes() if self._device.type == "cpu" else 0
        return self._working_bytes

    def answer(self, samples: Sequence[Sample]) -> list[Answered]:
        """As `Predictor.answer`; one image after the other, so that no two are held prepared."""
        answered = []
        for index, sample in enumerate(samples):
            predictions: list[Prediction] = []
            known: list[Traits] = []
            with name_picture(index, len(samples)):
                for part in split_arrays([sample], spatial_dims=self.bundle.preprocessing.spatial_dims):
                    foresee = partial(self.foresee, extras=sample.extras, releasable_bytes=_releasable(part))
                    pictures = self._pictures(part, foresee) if PICTURE in sample.extras else []
                    with returned(), watching(foresee):
                        loaded = self._load_each(part)
                    with lent(sum(image.nbytes for image, _ in loaded), f"{len(loaded)} prepared images"):
                        while loaded:
                            image, traits = loaded.pop(0)
                            known.append(with_size(part, traits))
                            segmented = self.segment(image, known[-1], sample.extras)
                            picture = pictures.pop(0) if pictures else None
                            predictions.append(replace(segmented, picture=picture))
            answered.append(Answered(tuple(predictions), tuple(known)))
        return answered

    def _pictures(self, sample: Sample, foresee: Watcher) -> list[NDArray[np.uint8]]:
        """Every image of a sample as it is displayed; before it is loaded, which may release its files."""
        with returned(), watching(foresee), self._noticing_volumes(sample):
            pictures = list(shown_of_each(sample, self.bundle.preprocessing.load_pixels, self.bundle.scope))
        pixels = sum(each.shape[0] * each.shape[1] for each in pictures)
        spend_bytes(_PICTURE_BYTES * pixels, f"pictures of {pixels} pixels")
        spend_work(_NS_A_PICTURE * pixels, f"pictures of {pixels} pixels")
        return pictures

    def foresee(
        self, images: Sequence[Expected], *, extras: frozenset[str] = frozenset(), releasable_bytes: int = 0
    ) -> int:
        """The most bytes that images will take at once, from decoding to the answer, by their headers.

        Args:
            images: of one sample: all are loaded, then segmented one after the other.
            extras: of the sample.
            releasable_bytes: of the request's body, which is released if there is no room otherwise.

        Raises:
            PayloadTooLarge: the request's budget does not allow it.
            UnsuitableImage: their geometry is broken.
        """
        load, each_bytes = self.bundle.preprocessing.load_pixels, np.dtype(self.bundle.preprocessing.dtype).itemsize
        costs = probability_costs(self.task, is_asked=PROBABILITIES in extras)
        loading = prepared = answers = most = work_ns = runs = 0
        for image in images:
            needs, pixels = load.needs(image), math.prod(image.shape[1:])
            if PICTURE in extras:
                loading += (SHOWING_BYTES + 3 * image.count) * pixels
                answers += image.count * _PICTURE_BYTES * pixels
                work_ns += image.count * _NS_A_PICTURE * pixels
            loading += needs.loading_bytes + (image.count - 1) * each_bytes * math.prod(needs.prepared)
            prepared += image.count * each_bytes * math.prod(needs.prepared)
            answers += image.count * (self._copies + costs.own_bytes) * pixels
            extents = needs.prepared[1:]
            windows = self._window_bytes(needs.prepared, costs.block_bytes)
            ruled = (1 + BYTES_A_VOXEL * bool(self.task.largest)) * math.prod(extents)
            back = math.prod(extents) + costs.bytes_back(extents, image.shape[1:])
            kept = costs.prepared_bytes * math.prod(extents)
            most = max(most, kept + max(windows, ruled, back), costs.file_bytes * pixels, BYTES_A_VOXEL * pixels)
            work_ns += needs.work_ns + image.count * (_NS_A_VOXEL + costs.own_ns) * pixels
            runs += image.count * count_windows(extents, self.bundle.preprocessing.size, OVERLAP)
        total = max(loading, prepared + answers + most)
        about = _told(images)
        expect_bytes(total, about, freed=releasable_bytes)
        expect_work(work_ns, about)
        expect_time(runs * self._window_s, f"{about} in {runs} windows", _SLOW)
        return total

    @property
    def _copies(self) -> int:
        """Of a label map, with a mask for each of structures that overlap, as DICOM SEG has them."""
        return _COPIES + (0 if self.task.regions is None else len(self.labels))

    def _window_bytes(self, prepared: Sequence[int], bytes_on_block: int) -> int:
        """What `label_map` and the network hold beside a prepared image (C, ...); arguments as of `needed_bytes`."""
        preprocessing = self.bundle.preprocessing
        value_bytes = np.dtype(preprocessing.dtype).itemsize
        held = needed_bytes(
            prepared[0], prepared[1:], preprocessing.size, self.task.outputs, value_bytes, bytes_on_block,
            is_mirrored=bool(self.bundle.mirrored_axes),
        )  # fmt: skip
        return self._working_bytes + held

    def segment(self, image: torch.Tensor, traits: Traits, extras: frozenset[str] = frozenset()) -> MaskPrediction:
        """Segment one image.

        Args:
            image: from `load`, (C, *shape).
            traits: of the image, with its size.
            extras: of the sample.

        Raises:
            PayloadTooLarge: the sums of the windows, the label maps or the probabilities exceed the request's budget;
                before they are made.
        """
        voxels, extents = math.prod(traits.size), image.shape[1:]
        spend_bytes(self._copies * voxels, f"the labels of {voxels} voxels")
        spend_work(_NS_A_VOXEL * voxels, f"the labels of {voxels} voxels")
        costs = probability_costs(self.task, is_asked=PROBABILITIES in extras)
        with collecting(self.task, costs, extents, traits.size) as collected:
            needed = self._window_bytes(image.shape, costs.block_bytes)
            with lent(needed, f"segmenting an image of {' x '.join(map(str, extents))}"):
                labels = self._decided(image, collected.keep if collected else _nothing)
            with lent(labels.nbytes, "a label map"):
                own = self.on_own_grid(self.ruled(labels), traits)
                way = self.bundle.preprocessing.load_pixels.way(traits)
                back = collected.back(way, traits.size) if collected else None
        return replace(describe(own, self.labels, traits, self.task.regions), probabilities=back)

    def on_own_grid(self, labels: Labels, traits: Traits) -> Labels:
        """A label map of the prepared grid on the image's own."""
        back = labels_back(labels, self.bundle.preprocessing.load_pixels.way(traits), traits.size)
        return back.astype(np.uint8, copy=False)

    def prepared_labels(self, image: torch.Tensor, on_block: OnBlock = _nothing) -> Labels:
        """The label of each voxel of a prepared image (C, *shape), uint8 (*shape); `on_block` as of `label_map`."""
        return self.ruled(self._decided(image, on_block))

    def ruled(self, labels: Labels) -> Labels:
        """A label map of the prepared grid, in place with the task's rule of the largest component."""
        keep_largest(labels, self.task.largest, _components_of)
        return labels

    def _decided(self, image: torch.Tensor, on_block: OnBlock = _nothing) -> Labels:
        """As `prepared_labels`, before the rule."""
        return label_map(
            self._logits,
            image,
            self.bundle.preprocessing.size,
            self.task.answers,
            overlap=OVERLAP,
            outputs=self.task.outputs,
            on_block=on_block,
        )

    def _logits(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            network = mirrored(self._network, self.bundle.mirrored_axes)
            logits = network(self.bundle.preprocessing.scale(windows.to(self._device)))
        return logits.float().cpu()


def _releasable(sample: Sample) -> int:
    """The bytes of a request's files that are freed once they are read, if there is no room otherwise."""
    files = sample.source.files if isinstance(sample.source, Instances) else ()
    return sum(len(each.data) for each in files if isinstance(each, Held))


def _told(images: Sequence[Expected]) -> str:
    count, shape = sum(image.count for image in images), " x ".join(map(str, images[0].shape[1:]))
    return f"segmenting an image of {shape}" if count == 1 else f"segmenting {count} images, the first of {shape},"


def describe(
    mask: NDArray[np.uint8], labels: Sequence[str], traits: Traits, regions: Regions | None = None
) -> MaskPrediction:
    """What is said of a label map.

    Args:
        mask: on the image's grid.
        labels: of its values from 1 on, or of the regions.
        traits: of the image.
        regions: of structures that overlap.
    """
    from scipy import ndimage

    spacing = traits.spacing_mm or (1.0,) * mask.ndim
    unit = "px" if traits.spacing_mm is None else _UNITS[mask.ndim]
    size = voxel_size(traits.spacing_mm, traits.affine)
    numbers = numbers_of_structures(len(labels), regions)
    boxes = ndimage.find_objects(mask, max_label=max(map(max, numbers)))
    structures = {}
    for label, own in zip(labels, numbers, strict=True):
        box = _around([boxes[number - 1] for number in own])
        if box is None:
            structures[label] = Structure(0, 0.0, 0, (0.0,) * mask.ndim, None)
            continue
        inside = math.prod(part.stop - part.start for part in box)
        with _components_of(inside):
            is_there = is_inside(mask[box], own)
            voxels = int(is_there.sum())
            components = ndimage.label(is_there, structure=np.ones((3,) * mask.ndim))[1]
        places = []
        for axis, part in enumerate(box):
            along = is_there.sum(axis=tuple(other for other in range(mask.ndim) if other != axis), dtype=np.int64)
            places.append(part.start + float(along @ np.arange(len(along))) / voxels)
        if traits.affine is not None:
            places = (np.asarray(traits.affine) @ [*places, 1.0])[:3].tolist()
        extent = tuple((part.stop - part.start) * mm for part, mm in zip(box, spacing, strict=True))
        structures[label] = Structure(voxels, voxels * size, int(components), extent, tuple(places))
    return MaskPrediction(mask, structures, unit, traits.affine, regions)


@contextmanager
def _components_of(voxels: int) -> Iterator[None]:
    """Count what it takes to find components, and a centre, in a box of so many voxels."""
    spend_work(NS_A_VOXEL * voxels, f"the components of {voxels} voxels")
    with lent(BYTES_A_VOXEL * voxels, f"the components of {voxels} voxels"):
        yield


def _around(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The box around boxes; None if there is none."""
    sides = [box for box in boxes if box is not None]
    if not sides:
        return None
    return tuple(
        slice(min(part.start for part in along), max(part.stop for part in along)) for along in zip(*sides, strict=True)
    )


def read_predictor(folder: Path, device: str = "cpu") -> Predictor:
    """Read the artifact in `folder`, whatever its task.

    Raises:
        BundleError: it is not sound.
    """
    bundle = read_bundle(folder)
    return (MaskPredictor if TASKS[bundle.task.name].has_masks else Predictor)(bundle, device)
