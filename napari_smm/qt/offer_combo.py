"""The runs that can propose, to choose from."""

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QWidget

from napari_smm.proposing import Offer

NO_RUNS = "no run with a checkpoint yet"
LOOKING = "looking for runs…"


class OfferCombo(QComboBox):
    """Offers runs, the best first, which is chosen as long as the user has chosen no other."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        """Look as if runs were looked for, until there is an answer."""
        super().__init__(parent)
        self.setObjectName(name)
        self.addItem(LOOKING)
        self.setEnabled(False)
        self._offers: list[Offer] = []

    @property
    def looking(self) -> bool:
        """Whether there was no answer yet."""
        return self.currentText() == LOOKING

    def chosen(self) -> Offer | None:
        """The run that is chosen, if there is one."""
        index = self.currentIndex()
        return self._offers[index] if 0 <= index < len(self._offers) else None

    def offer(self, found: list[Offer]) -> None:
        """Offer runs, instead of those before; tells nobody."""
        kept = self.chosen() if self.currentIndex() > 0 else None
        self._offers = found
        blocked = self.blockSignals(True)
        self.clear()
        for each in found:
            self.addItem(each.words)
            tip: Any = Qt.ItemDataRole.ToolTipRole
            self.setItemData(self.count() - 1, str(each.choice.path), tip)
        if not found:
            self.addItem(NO_RUNS)
        if kept is not None:
            self.choose(kept.choice.path)
        self.setEnabled(bool(found))
        self.blockSignals(blocked)

    def choose(self, run: Path) -> None:
        """Choose a run, if it is offered."""
        paths = [offer.choice.path for offer in self._offers]
        if run in paths:
            self.setCurrentIndex(paths.index(run))
