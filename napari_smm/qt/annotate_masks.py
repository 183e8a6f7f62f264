"""Masks that are there already, for the image that is annotated: earlier versions, and what to import."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QPushButton, QWidget

from engine.data import annotated
from engine.data.annotated import Entry, Version
from engine.data.raster import Source
from engine.errors import InputError
from napari_smm.annotating import Annotator, earlier
from napari_smm.annotating_image import MARK, import_all, masks_left
from napari_smm.annotating_masks import from_values, read_beside, read_file
from napari_smm.qt.annotate_layers import AnnotateLayers
from napari_smm.qt.jobs import Jobs

Found = NDArray[np.uint8] | Exception


class MaskMenus(QWidget):
    """Two buttons whose menus bring a mask back or in, each as one edit that can be undone.

    Attributes:
        versions: the menu of earlier masks, as it was offered last.
        imports: the menu of masks to import.
    """

    said = Signal(str)
    """Why something could not be taken, in a sentence; empty when it was."""

    def __init__(
        self,
        viewer: Any,
        annotator: Annotator,
        layers: AnnotateLayers,
        jobs: Jobs,
        apply: Callable[[NDArray[np.uint8]], None],
        parent: QWidget | None = None,
    ) -> None:
        """Build the buttons.

        Args:
            viewer: whose Labels layers are offered.
            annotator: of the folder.
            layers: of the image in view.
            jobs: for what takes its time.
            apply: puts labels in place of those in view.
            parent: the owner.
        """
        super().__init__(parent)
        self._viewer, self._annotator, self._layers = viewer, annotator, layers
        self._jobs, self._apply = jobs, apply
        self.versions, self.imports = QMenu(self), QMenu(self)
        self._back = self._button("versions", "Versions…", "Earlier masks of this image, to go back to")
        self._back.clicked.connect(partial(_call, self.list_versions))
        self._in = self._button("import", "Import…", "Take a mask that is there for this image")
        self._in.clicked.connect(partial(_call, self.offer_imports))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self._back)
        row.addWidget(self._in)

    def list_versions(self) -> None:
        """Offer the earlier masks of the image in view."""
        image, root = self._layers.image, self._annotator.root
        if image is not None and root is not None:
            entry = self._annotator.entry(image)
            self._jobs.ask("versions", lambda ended: earlier(root, entry, ended), self._offer_versions)

    def _offer_versions(self, found: list[tuple[Version, float]]) -> None:
        self.versions.clear()
        for version, share in found:
            words = f"{version.saved.astimezone():%d %b %Y, %H:%M:%S}, {100 * share:.0f} % labelled"
            self._entry(self.versions, words, partial(self.restore, version.path))
        if not found:
            self.versions.addAction("No earlier version yet").setEnabled(False)
        self.versions.popup(self._back.mapToGlobal(self._back.rect().bottomLeft()))

    def restore(self, version: Path) -> None:
        """Bring an earlier mask back."""
        self._read(partial(annotated.read_mask, version), imported=False)

    def offer_imports(self) -> None:
        """Offer what can be taken for the image in view."""
        layer = self._layers.labels
        if layer is None:
            return
        self.imports.clear()
        if self._masks():
            self._entry(self.imports, "The mask beside the image", self.import_beside)
        if left := self.left():
            words = f"All masks beside images that were not touched ({len(left)})"
            self._entry(self.imports, words, self.import_all)
        self._entry(self.imports, "A file…", self._ask)
        for other in reversed(self._viewer.layers):
            if isinstance(other, Labels) and MARK not in other.metadata:
                self._entry(self.imports, f"The layer {other.name}", partial(self.import_layer, other))
        self.imports.popup(self._in.mapToGlobal(self._in.rect().bottomLeft()))

    def import_layer(self, other: Any) -> None:
        """Take a Labels layer for the image in view."""
        layer = self._layers.labels
        if layer is None:
            return
        data = other.data[0] if other.multiscale else other.data
        beyond = data.ndim - layer.ndim
        if beyond > 0 and all(length == 1 for length in data.shape[:beyond]):
            data = data[(0,) * beyond]
        shape, classes, what = layer.data.shape, self._annotator.classes, f"the layer {other.name}"
        self._read(lambda: from_values(np.asarray(data), shape, classes, what))

    def import_file(self, path: Path) -> None:
        """Take a mask file for the image in view."""
        layer = self._layers.labels
        if layer is not None:
            self._read(partial(read_file, Source(path), layer.data.shape, self._annotator.classes))

    def import_beside(self) -> None:
        """Take the masks that lie beside the image in view."""
        image, folder, masks = self._layers.image, self._annotator.folder, self._masks()
        if image is not None and folder is not None and masks:
            sources = [Source(folder.root / name) for name in self._annotator.entry(image).files]
            self._read(partial(read_beside, sources, masks, folder.meaning, self._annotator.classes))

    def left(self) -> list[Entry]:
        """Images that were not touched, and have a mask beside them."""
        folder, annotator = self._annotator.folder, self._annotator
        if folder is None:
            return []
        return masks_left(folder, map(annotator.entry, annotator.images))

    def import_all(self) -> None:
        """Take the masks beside all images that were not touched, so that they are trained on."""
        folder, left = self._annotator.folder, self.left()
        if folder is None or not left:
            return
        name = self._annotator.name
        self.said.emit(f"Taking {len(left)} masks…")
        self._jobs.ask(
            "all masks",
            lambda ended: import_all(folder, left, name, ended=ended),
            partial(self._take_all, folder.root),
        )

    def _take_all(self, root: Path, found: tuple[list[Entry], list[str]]) -> None:
        if root != self._annotator.root:
            return  # another folder meanwhile
        made, refused = found
        self._annotator.take(made)
        words = f"{len(made)} masks were taken."
        self.said.emit(f"{words} {len(refused)} were not, such as {refused[0]}" if refused else words)

    def _read(self, job: Callable[[], NDArray[np.uint8]], *, imported: bool = True) -> None:
        """Let a thread read a mask, and take it for the image in view."""
        then = partial(self._take, self._layers.image, imported)
        self._jobs.ask("mask", lambda ended: caught(job), then)

    def _take(self, image: str | None, imported: bool, found: Found) -> None:
        if image is None or image != self._layers.image:
            return  # gone on meanwhile
        try:
            if isinstance(found, Exception):
                raise found
            self._apply(found)
        except (InputError, OSError) as error:
            self.said.emit(str(error))
            return
        if imported:
            labels, status = self._annotator.labels(image), self._annotator.entry(image).status
            self._annotator.imported(image, labels, "started" if status == "untouched" else status)
        self.said.emit("")

    def _masks(self) -> tuple[Source, ...]:
        image, folder = self._layers.image, self._annotator.folder
        if image is None or folder is None:
            return ()
        return folder.listing.masks.get(self._annotator.entry(image).files[0], ())

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "A mask for this image", str(self._annotator.root or ""))
        if path:
            self.import_file(Path(path))

    def _button(self, name: str, text: str, about: str) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(f"annotate-{name}")
        button.setToolTip(about)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return button

    def _entry(self, menu: QMenu, text: str, act: Callable[[], None]) -> None:
        menu.addAction(text).triggered.connect(partial(_call, act))


def caught(job: Callable[..., Any], *given: Any) -> Any:
    """What a job returns, or why it could not: to be said beside what it was for."""
    try:
        return job(*given)
    except (InputError, OSError) as error:
        return error
    except MemoryError:
        return InputError("there is not enough memory for this image: a smaller one would work.")


def _call(act: Callable[[], None], *_: object) -> None:
    act()
