"""Medical formats: NIfTI by nibabel; NRRD and MHA by SimpleITK. Reading them, and writing results like them.

Arrays have their axes in the order z, y, x, channels; files in the order x, y, z, channels. Voxels are
never reoriented. nibabel and SimpleITK are loaded when first used: each takes a third of a second.
"""

import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.axes import MOST_CHANNELS, Arrangement
from engine.data.raster import Array, Head, Raster, Source
from engine.disk import replacing
from engine.errors import InputError

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
"""By NIfTI's names of units; most writers that leave the unit out mean mm."""
NRRD_UNITS = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "nm": 1e-6}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's world points left and to the back, NIfTI's right and to the front."""
REVERSED = np.eye(4)[[2, 1, 0, 3]]
"""Index (z, y, x, 1) ↔ index (x, y, z, 1)."""


# ------------------------------------------------------------------ NIfTI


def nifti(source: Source) -> Raster:
    """Read a NIfTI file: (x, y, z[, channels]); (x, y) and (x, y, 1) are images.

    Where the header scales its values they come as float32, else in the file's own dtype.
    """
    image = _nifti(source.path)
    head, order = _nifti_head(image, source.path)
    proxy: Any = image.dataobj
    scaled = (proxy.slope, proxy.inter) != (1, 0)
    pixels = image.get_fdata(caching="unchanged", dtype=np.float32) if scaled else np.asanyarray(proxy)
    alpha = False
    if pixels.dtype.fields:  # colours as a record of R, G, B and perhaps A
        alpha = "A" in pixels.dtype.fields
        pixels = np.stack([pixels[name] for name in "RGB"], axis=-1)
        order = Arrangement((*order.order, pixels.ndim - 1), order.dims)
    pixels = order.of(pixels)
    return Raster(
        pixels.astype(pixels.dtype.newbyteorder("="), copy=False),
        None,
        alpha,
        head.dims,
        head.spacing,
        head.affine,
    )


def nifti_head(source: Source) -> Head:
    """What the header of a NIfTI file says."""
    return _nifti_head(_nifti(source.path), source.path)[0]


def _nifti(path: Path) -> Any:
    import nibabel

    return nibabel.load(path, mmap=False)


def _nifti_head(image: Any, path: Path) -> tuple[Head, Arrangement]:
    header, shape = image.header, tuple(image.shape)
    if len(shape) == 5 and shape[3] == 1:  # NIfTI's own place for vectors is behind time
        order = _nifti_order((*shape[:3], shape[4]), path)
        order = replace(order, order=tuple(4 if axis == 3 else axis for axis in order.order))
    else:
        order = _nifti_order(shape, path)
    unit = MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    world = np.diag([unit, unit, unit, 1.0]) @ np.asarray(image.affine, np.float64)
    zooms = [float(zoom) * unit for zoom in header.get_zooms()]
    spacing = order.along(zooms)
    placed = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    wanted = order.shape(shape)
    dtype = image.get_data_dtype()
    channels = len([name for name in "RGB" if name in dtype.fields]) if dtype.fields else 0
    if channels:
        dtype = np.dtype(np.uint8)
    elif (image.dataobj.slope, image.dataobj.inter) != (1, 0):
        dtype = np.dtype(np.float32)
    head = Head(
        shape=wanted[: order.dims],
        channels=channels or (wanted[-1] if len(wanted) > order.dims else 1),
        dims=order.dims,
        dtype=dtype.newbyteorder("="),
        spacing=spacing,
        affine=world @ REVERSED if placed and _is_a_place(world) else None,
    )
    return head, order


def _is_a_place(world: NDArray[np.float64]) -> bool:
    """Whether an affine tells voxels apart; headers that were never filled in hold zeros."""
    return bool(np.isfinite(world).all() and np.linalg.det(world) != 0)


def _nifti_order(shape: tuple[int, ...], path: Path) -> Arrangement:
    """x, y, z, channels → z, y, x, channels."""
    long = len(shape)
    while long > 2 and shape[long - 1] == 1:
        long -= 1
    if not 2 <= long <= 4 or (long == 4 and shape[3] > MOST_CHANNELS):
        times = f"{shape[3]} volumes, of times or channels" if long >= 4 else "no image"
        raise InputError(
            f"{path} holds an array of shape {shape} ({times}): (x, y, z), or (x, y, z, channels) with up to "
            f"{MOST_CHANNELS} channels, would work."
        )
    if long < 4:
        return Arrangement(tuple(range(long))[::-1], long)
    return Arrangement((1, 0, 3), 2) if shape[2] == 1 else Arrangement((2, 1, 0, 3), 3)


# ------------------------------------------------------------------ NRRD and MHA


def itk(source: Source) -> Raster:
    """Read an NRRD or MHA file, with a header of its own (.nhdr, .mhd) or in one: x, y[, z][, channels].

    Raises:
        InputError: it cannot be read.
    """
    import SimpleITK as sitk  # noqa: N813

    head, order = _itk_head(source.path)
    try:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(source.path)))
    except RuntimeError as error:
        raise _itk_error(source.path, error) from error
    return Raster(order.of(pixels), dims=head.dims, spacing=head.spacing, affine=head.affine)


def itk_head(source: Source) -> Head:
    """What the header of an NRRD or MHA file says."""
    return _itk_head(source.path)[0]


def _itk_head(path: Path) -> tuple[Head, Arrangement]:
    """The head, and how SimpleITK's array (its axes already in reverse, channels last) becomes ours."""
    import SimpleITK as sitk  # noqa: N813

    reader = _itk_information(path)
    shape = tuple(reader.GetSize())[::-1]
    components = reader.GetNumberOfComponents()
    if len(shape) == 4 and components == 1 and shape[0] <= MOST_CHANNELS:  # a fourth axis of channels
        order = Arrangement((1, 2, 3, 0), 3)
    elif len(shape) in (2, 3):
        flat = len(shape) == 3 and shape[0] == 1
        space = (1, 2) if flat else tuple(range(len(shape)))
        order = Arrangement((*space, len(shape)) if components > 1 else space, len(space))
    else:
        raise InputError(
            f"{path} holds an array of {len(shape)} axes of lengths {shape[::-1]}: x, y, z, and up to "
            f"{MOST_CHANNELS} channels, would work."
        )
    stored = (*shape, components) if components > 1 else shape
    fields, wanted = _fields(path), order.shape(stored)
    unit = _itk_unit(fields)
    spaced = {"spacings", "space directions", "elementspacing", "elementsize"} & set(fields)
    placed = {"space directions", "transformmatrix", "rotation", "orientation"} & set(fields)
    probe = sitk.Image([1] * len(shape), reader.GetPixelID(), components if components > 1 else 0)
    head = Head(
        shape=wanted[: order.dims],
        channels=wanted[-1] if len(wanted) > order.dims else 1,
        dims=order.dims,
        dtype=np.dtype(sitk.GetArrayViewFromImage(probe).dtype),
        spacing=order.along([each * unit for each in reader.GetSpacing()[::-1]] + [None]) if spaced else None,
        affine=_itk_affine(reader, unit) if placed else None,
    )
    return head, order


def _itk_information(path: Path) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _itk_error(path, error) from error
    return reader


def _itk_affine(reader: Any, unit: float) -> NDArray[np.float64]:
    """Index (z, y, x, 1) → mm in RAS+, from ITK's direction, spacing and origin of two or three axes."""
    size = reader.GetDimension()
    dims = min(size, 3)
    direction = np.array(reader.GetDirection()).reshape(size, size)[:dims, :dims]
    world = np.eye(4)
    world[:dims, :dims] = direction * np.array(reader.GetSpacing()[:dims]) * unit
    world[:dims, 3] = np.array(reader.GetOrigin()[:dims]) * unit
    return np.asarray(LPS @ world @ REVERSED)


def _fields(path: Path) -> dict[str, str]:
    """The fields of an NRRD's or MHA's header, which is text, by names in small letters."""
    with path.open("rb") as file:
        text = file.read(1 << 16).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = re.sub(r"\s*(:=?|=)\s*", "\0", line, count=1).partition("\0")
        fields[name.strip().lower()] = value.strip()
        if not line.strip() or "elementdatafile" in fields:  # NRRD's header ends with an empty line, MHA's so
            break
    return fields


def _itk_unit(fields: dict[str, str]) -> float:
    """mm in a unit of length of the file: NRRD may name one, MHA means mm."""
    named = re.findall(r'"([^"]*)"', fields.get("space units", "") or fields.get("units", ""))
    return NRRD_UNITS.get(named[0].strip().lower(), 1.0) if named else 1.0


def _itk_error(path: Path, error: RuntimeError) -> InputError:
    """One sentence from the many lines of ITK's, the last of which says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = re.sub(r"^(sitk::|ITK )?ERROR:\s*|^\[nrrd\]\s*", "", lines[-1]) if lines else "no reason given"
    short = "the file ends too early" if "No such file" in reason and path.is_file() else reason
    return InputError(
        f"{path} cannot be read as {path.suffix.lstrip('.').upper()} ({short}): "
        "it may be corrupt; replace it or take it out of the folder."
    )


# ------------------------------------------------------------------ the way back


def result_ending(like: Path) -> str:
    """The ending with which results of a file are written: of its format, in one file."""
    name = like.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        return ".nrrd"
    return ".mha" if name.endswith((".mha", ".mhd")) else ".nii.gz"


def write_like(path: Path, array: Array, like: Path) -> None:
    """Write an array as NIfTI, NRRD or MHA, by the ending of ``path``, with the place of the file ``like``.

    Of a NIfTI like a NIfTI the header is kept: affines bit for bit, codes of qform and sform, units. Between
    formats the affine is converted, or the spacing alone where ``like`` has no affine. The file appears whole
    or not at all.

    Args:
        path: ends in .nii, .nii.gz, .nrrd or .mha.
        array: (*S) or (C, *S), S as of ``like``; bool becomes uint8 and float16 float32, which the
            formats lack.
        like: any file that is read.

    Raises:
        InputError: another ending, or ``like`` cannot be read.
    """
    from engine.data.decode import ending, probe  # which reads by this module

    head = probe(Source(like))
    assert array.shape[-head.dims :] == head.shape, (array.shape, head.shape)
    array = array.view(np.uint8) if array.dtype == bool else array
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    kind = ending(path)
    if kind in NIFTI:
        _write_nifti(path, array, like, head)
    elif kind in (".nrrd", ".mha"):
        _write_itk(path, array, like, head)
    else:
        raise InputError(
            f"{path} cannot be written as {kind or 'nothing'}: .nii.gz, .nrrd or .mha would work."
        )


def write_placed(path: Path, array: Array, head: Head) -> None:
    """Write an array (*S) of numbers as NIfTI, NRRD or MHA, by the ending of ``path``, where ``head`` lies.

    Its affine is taken, or its spacing alone where it has none. The file appears whole or not at all.
    """
    write = _write_nifti if path.name.lower().endswith(NIFTI) else _write_itk
    write(path, array, Path(), head)


def _write_nifti(path: Path, array: Array, like: Path, head: Head) -> None:
    import nibabel

    several = array.ndim > head.dims
    data = array.transpose(
        *range(array.ndim - 1, -1, -1)
    )  # the channels of (C, *S) come last, as they should
    if like.name.lower().endswith(NIFTI):
        old = _nifti(like)
        kind, header = type(old), old.header.copy()
        if head.dims == 2 and (several or len(old.shape) > 2):
            data = data[:, :, None]
        header.extensions.clear()
        header["cal_min"], header["cal_max"] = 0, 0  # how the image was shown
    else:
        kind, header = nibabel.Nifti1Image, nibabel.Nifti1Header()
        data = data[:, :, None] if head.dims == 2 and several else data
        header.set_data_shape(data.shape)
        header.set_xyzt_units("mm")
        header.set_zooms((*(head.spacing or (1.0,) * head.dims)[::-1], *[1.0] * (data.ndim - head.dims)))
        if head.affine is not None:
            header.set_sform(head.affine @ REVERSED, 1)
            header.set_qform(head.affine @ REVERSED, 1)
    header.set_data_dtype(array.dtype)
    image = kind(data, None, header)
    with replacing(path) as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=4, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def _write_itk(path: Path, array: Array, like: Path, head: Head) -> None:
    import SimpleITK as sitk  # noqa: N813

    several = array.ndim > head.dims
    pixels = np.ascontiguousarray(np.moveaxis(array, 0, -1) if several else array)
    world = np.eye(4) if head.affine is None else LPS @ head.affine @ REVERSED
    plane = head.dims == 2 and np.array_equal(world[2], np.eye(4)[2]) and not world[:2, 2].any()
    dims = 2 if plane else 3  # an image that lies anywhere else in the world is a volume of one slice
    image = sitk.GetImageFromArray(pixels[None] if dims > head.dims else pixels, isVector=several)
    if head.affine is not None:
        world = world[:dims, [*range(dims), 3]]
        spacing = np.linalg.norm(world[:, :-1], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(world[:, -1].tolist())
        image.SetDirection((world[:, :-1] / spacing).ravel().tolist())
    elif head.spacing is not None:
        image.SetSpacing(head.spacing[::-1])
    unfinished = path.with_name(f".{path.stem}.new{path.suffix}")  # ITK goes by the ending
    try:
        sitk.WriteImage(image, str(unfinished), useCompression=True)
        unfinished.replace(path)
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written: {str(error).splitlines()[-1]}") from error
    finally:
        unfinished.unlink(missing_ok=True)
