"""Detect the kind of a file and describe it."""

from pathlib import Path

from dartjax._errors import DataError
from dartjax.cli.facts._documents import document_facts
from dartjax.cli.facts._facts import FileFacts
from dartjax.cli.facts._folders import MESHES, XRAYS, folder_facts

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_OTHER_IMAGES = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_READS = (
    "X-rays (.png, .tif, .npy), CTs and masks (.nii, .nii.gz), meshes (.ply, .stl, .obj), JSON, "
    "folders of runs, CTs, weights or shape models"
)


def read_facts(path: Path) -> FileFacts:
    """Describe any file or folder. DataError if it is missing, damaged, or of an unknown kind.

    The module for a kind of file is imported when needed: an import takes up to a second.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        return folder_facts(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    if _is_dicom(path):
        return _dicom_facts(path)
    return _file_facts(path)


def _file_facts(path: Path) -> FileFacts:
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix == ".json":
        facts = document_facts
    elif suffix in XRAYS:
        from dartjax.cli.facts._xray import xray_facts as facts  # noqa: PLC0415
    elif name.endswith((".nii", ".nii.gz")):
        from dartjax.cli.facts._volume import volume_facts as facts  # noqa: PLC0415
    elif suffix in MESHES:
        from dartjax.cli.facts._surface import surface_facts as facts  # noqa: PLC0415
    elif suffix == ".npz" and (path.parent / "card.json").is_file():
        return folder_facts(path.parent)
    elif suffix in _OTHER_IMAGES:
        raise DataError(f"{path}: images must be PNG, TIFF or .npy: save it as 16 bit PNG")
    else:
        raise DataError(f"{path}: dartjax does not read this kind of file; it reads {_READS}")
    return facts(path)


def _is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix or by "DICM" after the preamble."""
    try:
        with path.open("rb") as file:
            return path.suffix.lower() in _DICOM_SUFFIXES or file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _dicom_facts(path: Path) -> FileFacts:
    size = round(path.stat().st_size / 1e6, 2)
    problem = (
        "recognised as DICOM, which dartjax does not read yet: export the pixels as 16 bit PNG or "
        "TIFF and write the geometry into cameras.json"
    )
    return FileFacts(str(path), "DICOM", {"size_mb": size}, [problem])
