"""A page as high as its content where there is room for it, and a scroll bar where there is none."""

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QWidget

LEAST_HEIGHT = 60
"""Pixels that a page can be shrunk to."""


class ScrollingPage(QScrollArea):
    """Shows a widget at its height where there is room, and scrolls where there is none."""

    def __init__(self, page: QWidget) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setWidget(page)
        self._page = page
        page.installEventFilter(self)
        self._wanted: QWidget | None = None
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self._scroll)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Of the content, whose sentences need the more height the narrower they are."""
        hint, view = self._page.sizeHint(), self.viewport()
        shown = view is not None and self.isVisible()
        width = view.width() if shown else hint.width()
        height = self._page.heightForWidth(width) if self._page.hasHeightForWidth() else hint.height()
        edges = self.height() - view.height() if shown else 0  # of a style sheet, whatever the frame is
        return QSize(hint.width(), height + edges)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Of the content's width, and a few rows' height."""
        return QSize(self._page.minimumSizeHint().width(), min(LEAST_HEIGHT, self.sizeHint().height()))

    def bring(self, widget: QWidget) -> None:
        """Scroll until a widget can be seen, once the layout has settled."""
        self._wanted = widget
        self._settled.start()

    def _scroll(self) -> None:
        if self._wanted is not None:
            self.ensureWidgetVisible(self._wanted, 0, 0)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """In another width sentences wrap elsewhere, and need another height."""
        super().resizeEvent(event)
        if event is not None and event.size().width() != event.oldSize().width():
            self.updateGeometry()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Ask for another height whenever the content needs one."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))
