"""From where on something is called an illness: every number of the diagnosis, with its reason.

Shares are of 1. A healthy run of this project's own recipes stays on the good side of all of them (tests/illnesses).
"""

from typing import NamedTuple


class Threshold(NamedTuple):
    value: float
    because: str


OVERFIT_RISE = Threshold(
    0.05, "held-out losses of equal models differ by 1 or 2 % between evaluations; 5 % above the best is no such wobble"
)
OVERFIT_FALL = Threshold(0.05, "training loss still falls meanwhile, by more than it wobbles")
OVERFIT_SCORE = Threshold(
    0.005, "where the score still rises by half a point, a rising loss is overconfidence, not overfitting"
)
OVERFIT_LARGE = Threshold(0.5, "half as much again is told of even where the score did not suffer")
UNIGRAM_SHARE = Threshold(
    0.95, "a model that uses context passes the loss of word frequencies by 5 % in its first minutes, even a tiny one"
)
NOTHING_LEARNED = Threshold(
    0.8, "of the loss of label frequencies: a model that reads the text at all leaves a fifth of it behind"
)
STILL_FALLING = Threshold(0.0075, "training loss that falls by 1 % over the last third had not come to an end")
SLOW_FALL = Threshold(0.10, "a run whose training loss falls by less than a tenth in all has hardly moved")
FALL_ERRORS = Threshold(1.5, "standard errors of a third's median: less is noise of the batches")
FLAT_STEPS = Threshold(12, "fewer lines of a log say nothing of its shape")
HIGH_RISE = Threshold(0.10, "smoothed training loss does not rise by a tenth again unless updates are too large")
DIVERGED_RISE = Threshold(0.2, "above the loss at the beginning: worse than knowing nothing")
SKIPPED_SHARE = Threshold(0.05, "float16 skips a few updates at the beginning; one in twenty is another matter")
SPIKE_HEIGHT = Threshold(0.5, "of the median around it: ordinary noise of batches stays below")
SPIKE_OF_START = Threshold(
    0.3, "of the loss at the beginning: where less is left, one row doubles it, and a spike must be above that loss"
)
SPIKE_TIMES = Threshold(3.0, "as far from its neighbours as 19 of 20 lines of the log are at most: spikes are rare")
GRADIENT_VANISHED = Threshold(1e-3, "of the norm at the beginning, while the loss is still high")
CLIPPED_SHARE = Threshold(0.95, "of all updates")
CLIPPED_TIMES = Threshold(
    20.0, "BERT's limit of 1.0 clips healthy fine-tunings always, by 3 to 10 times; 20 times is another matter"
)
ONE_CLASS_SHARE = Threshold(0.995, "of the held-out rows")
ONE_CLASS_STEPS = Threshold(1000, "in pre-training whether sentences follow is learned long after the first words")
ONE_CLASS_LABELS = Threshold(0.95, "of training rows with one label: there, always saying it is nearly right")
LEAKED_SHARE = Threshold(0.02, "of the rows; public data sets have up to 1 %, and more than 2 % moves a score")
NOISE_CONFIDENT_ERRORS = Threshold(
    0.06,
    "errors among the surer half of the answers; of clean rows these are rare, of wrongly labelled ones as frequent",
)
NOISE_RATIO = Threshold(
    0.6, "errors among the surer half over errors among all: 1 where errors come by chance, near 0 where doubt tells"
)
NOISE_KNOWS = Threshold(
    0.6, "of the errors of the most frequent label: a model that does not know much more than that judges no labels"
)
NOISE_ROWS = Threshold(100, "fewer rows say nothing of shares of a few percent")
ECE = Threshold(0.10, "a model that says 0.9 is right in 0.8 of the cases or fewer")
REPEATED_SHARE = Threshold(0.10, "of the spans of 16 tokens; running text repeats 1 to 3 % of them")
UNKNOWN_SHARE = Threshold(0.02, "of the tokens; a vocabulary trained on the text has under 0.1 %")
TRUNCATED_SHARE = Threshold(0.10, "of the tokens")
PADDING_SHARE = Threshold(
    0.35, "of the tokens computed; batches sorted by length have 2 to 5 %, random ones up to 50 %"
)
BY_TOPIC_GAP = Threshold(
    0.25,
    "accuracy on all pairs less that on pairs of one document, whose topic is the same: near 0 where the text is read",
)
BY_LENGTH = Threshold(0.75, "accuracy of a single limit on the second text's length; 0.5 where lengths say nothing")
BY_LENGTH_AGREES = Threshold(0.9, "of the answers are those of that limit: the model knows no more than it does")
LOADER_SHARE = Threshold(0.10, "of the time; this project's recipes wait for less than a thousandth of it")
PEAK_SHARE = Threshold(0.05, "of the machine's own matrix products; even tiny models reach more")
SEED_TIMES = Threshold(2.0, "standard errors by which the best settings must be ahead of the next")
