"""Buttons, state and progress of the watched run."""

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_smm.status import Display

STEPS = 1000
"""Resolution of the progress bar."""


class RunPanel(QWidget):
    """Shows a :class:`Display`, and says which button was pressed."""

    start = Signal()
    stop = Signal()
    resume = Signal()
    log = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        """Show that no run is watched."""
        super().__init__(parent)
        self.train = self._button("Train", "train-start", "Train with these settings")
        self.halt = self._button("Stop", "train-stop", "Stop after the batch that the run is in")
        self.again = self._button("Resume", "train-resume", "Go on with the watched run where it ended")
        self.logs = self._button("Log…", "train-log-button", "What the trainer prints")
        self.state = QLabel(self)
        self.state.setObjectName("train-status")
        self.left = QLabel(self)
        self.left.setObjectName("train-time-left")
        self.left.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.bar = QProgressBar(self)
        self.bar.setObjectName("train-progress")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.detail = QLabel(self)
        self.detail.setObjectName("train-detail")
        self.detail.setWordWrap(True)
        self.detail.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        buttons = QHBoxLayout()
        for button in (self.train, self.halt, self.again, self.logs):
            buttons.addWidget(button)
        words = QHBoxLayout()
        words.addWidget(self.state, 1)
        words.addWidget(self.left)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(buttons)
        column.addLayout(words)
        column.addWidget(self.bar)
        column.addWidget(self.detail)
        self.train.clicked.connect(lambda: self.start.emit())
        self.halt.clicked.connect(lambda: self.stop.emit())
        self.again.clicked.connect(lambda: self.resume.emit())
        self.logs.clicked.connect(lambda: self.log.emit())

    def show_display(self, shown: Display, *, detail: str = "", has_log: bool = True) -> None:
        """Show a run.

        Args:
            shown: what is known of it.
            detail: a sentence that comes before the run's own.
            has_log: whether there is a log to look at.
        """
        _say(self.state, shown.status)
        _say(self.left, shown.time_left)
        text = "\n".join(part for part in (detail, shown.detail) if part)
        _say(self.detail, text)
        self.detail.setVisible(bool(text))
        self._move_bar(shown.done)
        self.train.setEnabled(shown.can_start)
        self.halt.setEnabled(shown.can_stop)
        self.again.setEnabled(shown.can_resume)
        self.logs.setEnabled(has_log)

    def _move_bar(self, done: float | None) -> None:
        # A progress bar repaints at once, and with it the OpenGL canvas; this lets it wait for its turn.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, 0 if done is None else STEPS)
        if done is not None:
            self.bar.setValue(round(done * STEPS))
        self.bar.setUpdatesEnabled(True)

    def _button(self, words: str, name: str, help_text: str) -> QPushButton:
        button = QPushButton(words, self)
        button.setObjectName(name)
        button.setToolTip(help_text)
        button.setAutoDefault(False)
        return button


def _say(label: QLabel, text: str) -> None:
    # Setting a label's text anew would lay the whole dock out again.
    if label.text() != text:
        label.setText(text)
