"""Selects the images among the DICOM objects of a request or a folder, and reads them.

Objects other than images are skipped before grouping and decoding, so that they can neither become an answer nor spoil
one; each image says how many series were skipped. What the model is for (`scope`) decides first.
"""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from sagemaker_monai.budget import expect_work, lent, spend_work
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.choice import choose, meant
from sagemaker_monai.images.dicom.decoding import DECODERS, NS_A_VALUE
from sagemaker_monai.images.dicom.findings import Policy
from sagemaker_monai.images.dicom.grouping import Series, group_series
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.objects import IMAGES, names_of, subject_of
from sagemaker_monai.images.dicom.pixels import each_frame
from sagemaker_monai.images.dicom.series import expected_of, read_series
from sagemaker_monai.images.dicom.wanted import ALL, OF_ONE, ONLY, Choice
from sagemaker_monai.images.dicom.whole import whole_instances
from sagemaker_monai.images.expected import Expected, expect
from sagemaker_monai.images.sample import Held
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.images.volumes import Frame, Identity, Volume, check_voxels

REMEDY_OF_FOLDER = (
    "keep those of one in a folder of their own, or choose with the hyperparameters modality, series_description and "
    "series"
)
REMEDY_OF_REQUEST = "send those of one"
_NUMBERS = re.compile(r"[-+0-9.eE\\\\]{1,40}")

MAX_UID_CHARS = 64
_NS_A_SLICE = 100_000  # to sort it among the others

Source = Path | Sequence[bytes | Held]
_Image = TypeVar("_Image", Frame, Volume)


@dataclass(frozen=True)
class _Study:
    """The selected stacks of slices, and the number of others."""

    stacks: list[Series]
    passed_over: int


def read_study_frames(source: Source, scope: Scope | None) -> Iterator[Frame]:
    """Read every frame of the selected images, one at a time.

    Args:
        source: files, a folder, an archive.
        scope: of the model, or None.

    Yields:
        For one file, its frames in order; for several, the slices series by series.

    Raises:
        UnsuitableImage: no pixels, or nothing that the model is for.
        UndecodableImage, PayloadTooLarge: as `whole_instances` and `read_frames`.
    """
    objects = whole_instances(source)
    numbers = _numbers_of(objects)
    images = _fitting(objects, scope)
    if len(images) == 1:
        expect(_expected_frames(images[0], images[0].number_of_frames))
        _expect_work(images)
        with lent(2 * images[0].size_bytes, "the pixels of a DICOM file"):
            for frame in each_frame(images[0].read()):
                yield _named(frame, images[0], numbers, len(numbers) - 1, "")
        return
    check_voxels(sum(each.rows * each.columns * each.number_of_frames for each in images))
    study = _stacks_of(objects, images, Choice(series=ALL), are_volumes=False, remedy=REMEDY_OF_REQUEST)
    groups = [list(group) for stack in study.stacks
              for _, group in groupby(stack.slices, key=lambda each: id(each.instance))]  # fmt: skip
    expect(*(_expected_frames(slices[0].instance, len(slices)) for slices in groups))
    _expect_work(images)
    for slices in groups:
        instance = slices[0].instance
        with lent(2 * instance.size_bytes, "the pixels of a DICOM file"):
            for frame in each_frame(instance.read(), [each.frame for each in slices]):
                yield _named(frame, instance, numbers, study.passed_over, "")


def read_study_volumes(source: Source, policy: Policy, choice: Choice, scope: Scope | None) -> list[Volume]:
    """Read the selected volumes.

    Args:
        source: files of a request, each series a volume unless `choice` has a rule; or a folder, archive or file with
            one volume.
        policy: what to do about findings.
        choice: which series of a study.
        scope: of the model, or None.

    Raises:
        UnsuitableImage: no pixels, nothing that the model is for, several volumes instead of one, or a refused finding.
        UndecodableImage, PayloadTooLarge: as `whole_instances` and `read_series`.
    """
    objects = whole_instances(source)
    is_request = not isinstance(source, Path)
    if is_request and choice.series == ONLY:
        choice = replace(choice, series=ALL)  # each has an answer
    study = _stacks_of(
        objects, _fitting(objects, scope, choice.modality), choice, are_volumes=True,
        remedy=REMEDY_OF_REQUEST if is_request else REMEDY_OF_FOLDER,
    )  # fmt: skip
    stacks = study.stacks
    if not is_request and len(stacks) > 1:
        raise UnsuitableImage(f"the DICOM files hold {len(stacks)} series of several studies; {REMEDY_OF_FOLDER}")
    check_voxels(
        sum(each.slices[0].instance.rows * each.slices[0].instance.columns * len(each.slices) for each in stacks)
    )
    ahead_bytes = expect(*(expected_of(stack, policy) for stack in stacks))
    _expect_work([each for stack in stacks for each in stack.instances])
    last = {id(each): place for place, stack in enumerate(stacks) for each in stack.instances}
    counts = {stack.uid: sum(other.uid == stack.uid for other in stacks) for stack in stacks}
    numbers = _numbers_of(objects)
    volumes = []
    for place, stack in enumerate(stacks):
        done = [each for each in stack.instances if last[id(each)] == place]
        volume = read_series(stack, policy=policy, done=done, ahead_bytes=ahead_bytes)
        told = _told(stack) if counts[stack.uid] > 1 else ""
        volumes.append(_named(volume, stack.slices[0].instance, numbers, study.passed_over, told))
    return volumes


def _expected_frames(instance: Instance, count: int) -> Expected:
    return Expected(
        (max(instance.samples_per_pixel, 1), instance.columns, instance.rows),
        count=max(count, 1),
        decoding_bytes=2 * instance.size_bytes,
    )


def _expect_work(images: Sequence[Instance]) -> None:
    """Refuse more pixels than can be decoded in time, before the first one; other costs are counted while decoding."""
    work_ns, pixels = 0.0, 0
    for each in {id(each): each for each in images}.values():
        decoder = DECODERS.get(each.transfer_syntax_uid)
        size = each.rows * each.columns * each.number_of_frames * each.samples_per_pixel
        work_ns += size * (NS_A_VALUE + (0 if decoder is None else decoder.ns_a_sample))
        pixels += size
    expect_work(work_ns, f"{pixels} pixels of DICOM images")


def _fitting(objects: Sequence[Instance], scope: Scope | None, modality: Sequence[str] = ()) -> list[Instance]:
    """The objects with pixels that were asked for and that the model is for, of the highest-ranked kind."""
    pictures = [each for each in objects if each.has_pixels]
    subjects = {id(each): subject_of(each) for each in objects}
    held = names_of(subjects.values())
    if not pictures:
        only = f", only {held}" if objects else ""
        raise UnsuitableImage(f"no DICOM image with pixels was found{only}; send files with pixel data")
    if modality:
        wanted = {each.upper() for each in modality}
        pictures = [each for each in pictures if subjects[id(each)].modality in wanted]
        if not pictures:
            raise UnsuitableImage(f"no series of {', '.join(sorted(wanted))} was found, only {held}; send one")
    if scope is not None:
        fitting = [each for each in pictures if scope.takes(subjects[id(each)])]
        if not fitting:
            where = "study holds" if len(objects) > 1 else "file holds"
            raise UnsuitableImage(f"this model is for {scope.name}; the {where} {held}: send what it is for")
        trained = [each for each in fitting if subjects[id(each)].kind in scope.kinds]
        pictures = fitting if not trained or IMAGES & set(scope.kinds) else trained
    images = [each for each in pictures if subjects[id(each)].kind in IMAGES]
    first = min(subjects[id(each)].rank for each in pictures)
    return images or [each for each in pictures if subjects[id(each)].rank == first]


def _stacks_of(
    objects: list[Instance], images: Sequence[Instance], choice: Choice, *, are_volumes: bool, remedy: str
) -> _Study:
    frames = sum(each.number_of_frames for each in images)
    spend_work(frames * _NS_A_SLICE, f"{frames} slices to put in order")
    stacks = [each for each in group_series(images) if each.slices]
    if not stacks:
        raise UnsuitableImage("no DICOM series with pixels was found; send files with pixel data")
    if choice == Choice(series=ALL):
        taken = [stacks[place] for place in meant(stacks, are_volumes=are_volumes).taken]
    else:
        taken = _chosen(stacks, choice, remedy)
    series = {_key(stack.slices[0].instance) for stack in taken}
    others = sum(key not in series for key in _numbers_of(objects))
    stacks_of_them = sum(_key(stack.slices[0].instance) in series for stack in stacks) - len(taken)
    return _Study(taken, others + stacks_of_them)


def _chosen(stacks: Sequence[Series], choice: Choice, remedy: str) -> list[Series]:
    """Apply the rule to each study."""
    studies: dict[str, list[Series]] = {}
    for stack in stacks:
        studies.setdefault(stack.slices[0].instance.study_instance_uid, []).append(stack)
    if choice == OF_ONE:
        studies = {"": list(stacks)}
    taken = []
    for members in studies.values():
        chosen = choose(members, choice, remedy=remedy)
        if chosen.fault:
            raise UnsuitableImage(f"the DICOM files hold {chosen.fault}")
        taken += [members[place] for place in chosen.taken]
    return taken


def _key(instance: Instance) -> Hashable:
    return instance.series_instance_uid or id(instance)


def _numbers_of(objects: Sequence[Instance]) -> dict[Hashable, int]:
    """The series, numbered from 1 in the order of the files."""
    return {key: number for number, key in enumerate(dict.fromkeys(map(_key, objects)), start=1)}


def _named(image: _Image, instance: Instance, numbers: Mapping[Hashable, int], passed_over: int, told: str) -> _Image:
    """The image, with its kind and the number of its series in its identity."""
    subject = subject_of(instance)
    identity = replace(
        image.identity or Identity("", ()),
        kind=subject.kind,
        modality=subject.shown_modality,
        is_colour=subject.is_colour,
        sop_class_uid=instance.sop_class_uid.strip(" \0")[:MAX_UID_CHARS],
        series=numbers[_key(instance)],
        series_number=instance.series_number,
        passed_over=passed_over,
        volume=told,
    )
    return replace(image, identity=identity)


def _told(stack: Series) -> str:
    """What distinguishes a volume within its series: attribute names, and numeric values, which identify nobody."""
    parts = [name if not _NUMBERS.fullmatch(value) else f"{name} {value}" for name, value in stack.told_by]
    return f"{stack.stack + 1}: {', '.join(parts)}" if parts else str(stack.stack + 1)
