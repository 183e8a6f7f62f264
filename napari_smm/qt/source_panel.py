"""What to train on: a folder of images and masks, open layers, or the embedded set."""

from collections.abc import Callable, Mapping
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from engine.errors import InputError
from napari_smm.annotation import Pair, volumes_likely
from napari_smm.layers import MARK
from napari_smm.qt.fields import ChoiceField, FolderField
from napari_smm.qt.layer_combo import LayerCombo

SOURCES = {
    "folder": "A folder of images and masks",
    "layers": "Open layers",
    "demo": "The embedded demo set",
}
MEANINGS = {
    "classes": "Each label value is a class of its own.",
    "one class": "Every label above 0 is foreground, as where labels number objects.",
}
STACKS = {
    "slices": "Each plane of a stack is an image of its own, and a network of two axes is trained.",
    "volumes": "The last three axes are a volume, and a network of three axes is trained. In a volume that "
    "has labels, all that is not labelled is background, slices without any label too.",
}
UNLABELLED = {
    "leave out": "Planes of a stack without any label are not trained on.",
    "background": "Planes without any label are trained on as nothing but background.",
}


class SourcePanel(QWidget):
    """Lets the user choose where images and masks come from. What is wrong stands below the choice."""

    changed = Signal()
    """Something else is chosen."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        """Offer the layers of a viewer, beside folders and the embedded set."""
        super().__init__(parent)
        self.kind = QComboBox(self)
        self.kind.setObjectName("train-source")
        for key, words in SOURCES.items():
            self.kind.addItem(words, key)
        self.folder = FolderField("images/ and masks/, or a known layout")
        self.folder.setObjectName("train-folder")
        self.image = LayerCombo(viewer, _offered(Image), "no Image layer is open", self)
        self.image.setObjectName("train-image-layer")
        self.labels = LayerCombo(viewer, _offered(Labels), "no Labels layer is open", self)
        self.labels.setObjectName("train-labels-layer")
        self.meaning = ChoiceField(list(MEANINGS), MEANINGS)
        self.meaning.setObjectName("train-labels-meaning")
        self.stack = ChoiceField(list(STACKS), STACKS)
        self.stack.setObjectName("train-stack")
        self.unlabelled = ChoiceField(list(UNLABELLED), UNLABELLED)
        self.unlabelled.setObjectName("train-unlabelled")
        self.error = QLabel(self)
        self.error.setObjectName("train-source-error")
        self.error.setWordWrap(True)
        self.error.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.error.hide()
        about = QLabel("Thin branching structures, generated: 96 images of 128 × 128 pixels.")
        about.setWordWrap(True)
        layers = {
            "Image": self.image,
            "Labels": self.labels,
            "A stack is": self.stack,
            "Labels mean": self.meaning,
            "Empty planes": self.unlabelled,
        }
        self._pages = (_rows({"Folder": self.folder}), _rows(layers), about)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(_form({"Train on": self.kind}))
        for page in self._pages:
            column.addWidget(page)
        column.addWidget(self.error)
        self.kind.currentIndexChanged.connect(self._turn)
        self.folder.edited.connect(self._anew)
        self.image.chosen.connect(self._suit_stack)
        self.labels.chosen.connect(self._anew)
        self.stack.edited.connect(self._anew)
        self._turn()
        self._suit_stack()

    def source(self) -> str:
        """The chosen kind: "folder", "layers" or "demo"."""
        return str(self.kind.currentData())

    def has_layers(self) -> bool:
        """Whether an image and labels are open that could be trained on."""
        return self.image.layer() is not None and self.labels.layer() is not None

    def set_source(self, source: str) -> None:
        """Choose a kind."""
        self.kind.setCurrentIndex(list(SOURCES).index(source))

    def root(self) -> str:
        """The chosen folder, or "demo", for ``data.root``.

        Raises:
            InputError: no folder is given.
        """
        if self.source() == "demo":
            return "demo"
        if not self.folder.value().strip():
            raise InputError(
                "no folder is given: choose one that holds images/ and masks/, or train on open layers."
            )
        return str(self.folder.value().strip())

    def pair(self) -> Pair:
        """The chosen layers. Raises InputError for layers that cannot be trained on."""
        volumes = self.stack.isEnabled() and self.stack.value() == "volumes"
        return Pair.of_layers(self.image.layer(), self.labels.layer(), 3 if volumes else 2)

    def show_error(self, sentence: str) -> None:
        """Say below the choice what is wrong with it; nothing for ""."""
        self.error.setText(f"⚠ {sentence}" if sentence else "")
        self.error.setVisible(bool(sentence))

    def leave(self) -> None:
        """Let go of the viewer."""
        self.image.leave()
        self.labels.leave()

    def _suit_stack(self, *_: object) -> None:
        """Offer volumes where there is depth, and choose them where the layer says so."""
        layer = self.image.layer()
        self.stack.setEnabled(layer is not None and layer.ndim > 2)
        self.stack.blockSignals(True)
        self.stack.set_value("volumes" if volumes_likely(layer) else "slices")
        self.stack.blockSignals(False)
        self._anew()

    def _turn(self) -> None:
        for number, page in enumerate(self._pages):
            page.setVisible(number == self.kind.currentIndex())
        self._anew()

    def _anew(self, *_: object) -> None:
        self.show_error("")
        if self.source() == "layers" and self.has_layers():
            try:
                self.pair()
            except InputError as error:
                self.show_error(str(error))
        self.changed.emit()


def _offered(kind: type) -> Callable[[Any], bool]:
    """Whether a layer is of a kind, and not one that shows a run."""

    def wanted(layer: Any) -> bool:
        return isinstance(layer, kind) and MARK not in layer.metadata  # type: ignore[attr-defined]

    return wanted


def _form(fields: Mapping[str, QWidget]) -> QFormLayout:
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setSpacing(4)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for label, widget in fields.items():
        form.addRow(label, widget)
    return form


def _rows(fields: Mapping[str, QWidget]) -> QWidget:
    page = QWidget()
    page.setLayout(_form(fields))
    return page
