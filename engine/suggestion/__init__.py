"""Suggestion: which images, and which places in them, are worth annotating next, and why. No torch.

An *order* (:mod:`engine.suggestion.specs`) measures each image by what the current model predicts of it;
an *arrangement* makes an order of the scores; *places* are boxes of the image in which there is most doubt.
"""

from engine.suggestion.appearance import appearance as appearance
from engine.suggestion.places import Place as Place
from engine.suggestion.ranking import Candidate as Candidate
from engine.suggestion.ranking import Suggestion as Suggestion
from engine.suggestion.ranking import arranged as arranged
from engine.suggestion.ranking import candidate as candidate
from engine.suggestion.ranking import ranked as ranked
from engine.suggestion.seen import Doubt as Doubt
from engine.suggestion.seen import Seen as Seen
