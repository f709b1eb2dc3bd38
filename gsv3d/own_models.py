# SPDX-License-Identifier: Apache-2.0
"""Add, convert and remove models of your own, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from gsv3d.errors import ModelError
from gsv3d.models import (
    CARD,
    NAME,
    PUBLISHED,
    SV3D_LICENSE,
    available,
    is_model_folder,
    no_model_in,
    own_models_folder,
)
from gsv3d.outputs import whole_folder


def add(folder: Path, name: str) -> Path:
    """Copy a model's folder to your own models.

    Raises:
        ModelError: the folder holds no model, or the name cannot be one or is taken.
        OutputError: the copy cannot be written.
    """
    if not is_model_folder(folder):
        raise no_model_in(folder)
    target = free_place(name)
    with whole_folder(target) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
    return target


def convert(
    source: Path,
    name: str,
    version: str | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Make a model of your own of a file that SV3D was published as.

    Args:
        source, progress: see ``gsv3d.multiview.convert.convert``.
        name: what the model is called.
        version: "p" or "u", where it must be that one; the name of a published model implies it.
        texts: contents of files to put beside the model, by their names.

    Raises:
        ModelError: the name cannot be one or is taken, or the file cannot be used.
        OutputError: the model cannot be written, as on a full disk.
    """
    target = free_place(name)
    from gsv3d.multiview.convert import convert as convert_file

    card = f"---\nlicense: {SV3D_LICENSE}\n---\n"
    version = version or PUBLISHED.get(name)
    convert_file(source, target, version, progress, {CARD: card, **texts})
    return target


def remove(name: str) -> Path:
    """Delete a model of your own, or the incomplete download of one.

    Returns:
        The folder that was deleted.

    Raises:
        ModelError: there is no such model, or a file of it is in use.
    """
    path = own_models_folder() / name
    if NAME.fullmatch(name) and not path.exists() and download_folder(name).is_dir():
        path = download_folder(name)
    if not NAME.fullmatch(name) or not path.is_dir():
        if name in {model.name for model in available() if model.installed}:
            raise ModelError(f"The model '{name}' comes with the package and stays.")
        own = own_models_folder()
        raise ModelError(f"There is no model '{name}' in {own}.", "See 'gsv3d models'.")
    leaving = path.with_name(f".{name}.part")
    try:
        shutil.rmtree(leaving, ignore_errors=True)
        # Either all of it goes or, where a program holds one of its files on Windows, nothing.
        os.rename(path, leaving)
        leaving.unlink() if leaving.is_symlink() else shutil.rmtree(leaving)
    except OSError as error:
        raise ModelError(
            f"The model in {path} cannot be deleted ({error.strerror or error}).",
            "Close the programs that use it, and try again.",
        ) from error
    return path


def download_folder(name: str) -> Path:
    """Return where the files of a published model lie while they are fetched."""
    return own_models_folder() / f".{name}.download"


def free_place(name: str) -> Path:
    """Return where a new model of your own goes.

    Raises:
        ModelError: the name cannot be one or is taken.
    """
    if not NAME.fullmatch(name):
        raise ModelError(
            f"A model cannot be called '{name}'.",
            "Take 1 to 64 letters, digits, '.', '-' or '_', the first a letter or a digit.",
        )
    target = own_models_folder() / name
    if target.exists() or name in {"blockout", *(m.name for m in available() if m.installed)}:
        raise ModelError(
            f"There is a model '{name}' already.",
            f"Take another name or, where it is your own, 'gsv3d models remove {name}' first.",
        )
    return target
