"""One reader for each kind of label: numbers, columns of findings, and names (classes, grades, lists of findings).

All follow the same rules for missing, uncertain and similar labels; `label_values` chooses the reader.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sagemaker_monai.data.label_names import (
    alike_key,
    alike_names,
    findings_of,
    grades_in_order,
    in_order,
    lists_among,
    shown_pairs,
)
from sagemaker_monai.data.label_rules import UNCERTAIN, Cells, LabelRules, ReadLabels, names_of
from sagemaker_monai.data.measurements import far_off, numbers_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import is_missing
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.row import Form
from sagemaker_monai.tasks.tasks import TASKS

_ANSWERS = {
    **dict.fromkeys(("true", "t", "yes", "y", "x", "\u2713", "\u2714", "positive", "pos", "present", "ja"), True),
    **dict.fromkeys(("false", "f", "no", "n", "negative", "neg", "absent", "nein"), False),
}
_UNCERTAIN = frozenset({"u", "uncertain", "unsure", "unclear", "equivocal", "indeterminate"})


@dataclass
class Reader:
    """What the readers of a data set share, and the remarks that they collect."""

    rules: LabelRules
    task: str
    declared: tuple[str, ...]
    known: tuple[str, ...]
    places: tuple[str, ...]
    is_ordered: bool
    remarks: list[Remark] = field(default_factory=list)
    has_plus: bool = False  # then - is a class, too
    has_commas: bool = False  # between findings, if there is no other mark

    @property
    def form(self) -> Form:
        """The form of the task's labels."""
        return TASKS[self.task].form

    def read_numbers(self, values: Sequence[Label | Cells], names: tuple[str, ...]) -> ReadLabels:
        """Regression: texts as numbers, numbers, and objects of numbers."""
        texts = [value if isinstance(value, str) and not is_missing(value) else "" for value in values]
        numbers = numbers_of(texts)
        if numbers.unclear:
            raise DatasetError(
                f"{self._place(numbers.unclear)} could be a number with decimals or thousands; write it without "
                "thousands separators"
            )
        labels: list[Label | None] = []
        odd, coded = [], 0
        for position, (value, number) in enumerate(zip(values, numbers.values, strict=True)):
            label: Label | None = (
                number if isinstance(value, str) else value if isinstance(value, float | dict) else None
            )
            if label is None and not (isinstance(value, str) and is_missing(value)):
                odd.append(position)
            if isinstance(label, float) and label in self.rules.missing_codes:
                label, coded = None, coded + 1
            labels.append(label)
        if odd:
            raise DatasetError(
                f"labels that do not suit regression: {len(odd)} ({self._place(odd)}: regression needs a finite "
                "number); correct them, or leave them empty"
            )
        self._missing(values, labels)
        told = [label for label in labels if isinstance(label, float)]
        if far := far_off(told):
            self._far_off(far, [value for value in told if value not in far])
        return ReadLabels(self.task, names, tuple(labels), tuple(self.remarks))

    def read_columns(self, values: Sequence[Label | Cells], columns: tuple[str, ...]) -> ReadLabels:
        """Findings with a column each: 1, 0, empty for no finding, codes for uncertain."""
        rows = [value.texts if isinstance(value, Cells) else {} for value in values]
        writes_no = any(_yes_no(row.get(column, "")) is False for row in rows for column in columns)
        labels: list[Label | None] = []
        odd, uncertain, blank = [], [], 0
        for position, row in enumerate(rows):
            found: list[str] = []
            is_known = not (writes_no and not any(row.get(column, "") for column in columns))
            for column in columns:
                cell = row.get(column, "")
                answer = _yes_no(cell)
                if answer is None and _is_uncertain(cell):
                    uncertain.append(position)
                    answer = {"positive": True, "negative": False}.get(self.rules.uncertain_labels)
                    is_known = is_known and answer is not None
                elif answer is None and is_missing(cell):
                    blank += not cell
                    is_known = is_known and not cell
                elif answer is None:
                    odd.append((position, cell, column))
                if answer:
                    found.append(column)
            labels.append(tuple(found) if is_known else None)
        if odd:
            position, cell, column = odd[0]
            raise DatasetError(
                f"{self.places[position]} has {cell[:40]!r} in {column}; columns of findings hold 0 or 1, and "
                f"{len(odd)} cells hold something else"
            )
        self._uncertain(uncertain)
        self._missing(values, labels, besides=set(uncertain))
        if blank and writes_no:
            self.remarks.append(remark("empty_findings", blank))
        is_one_hot = len(columns) > 1 and all(
            label is None or len(label) == 1 for label in labels if not isinstance(label, float)
        )
        if self.form == "class":
            if not is_one_hot:
                raise DatasetError("images with none or several of the label columns cannot be classes; set "
                                   f"{self.rules.task_option('findings')}")  # fmt: skip
            one = tuple(label[0] if isinstance(label, tuple) else None for label in labels)
            return ReadLabels(self.task, columns, one, tuple(self.remarks))
        if is_one_hot:
            self.remarks.append(remark("findings_are_classes", len(columns), option=self.rules.task_option("class")))
        return ReadLabels(self.task, columns, tuple(labels), tuple(self.remarks))

    def read_names(self, values: Sequence[Label | Cells]) -> ReadLabels:
        """Classes, grades, and findings in one cell or list."""
        self.has_plus = any(isinstance(value, str) and value.strip() == "+" for value in values)
        texts = [value for value in values if isinstance(value, str) and value not in {*self.declared, *self.known}]
        if self.form == "findings" and not any(len(findings_of(text)) > 1 for text in texts):
            self.has_commas = lists_among(texts, has_commas=True)
        labels = [self._named(value) for value in self._without_codes(values)]
        self._missing(values, labels)
        used = _count(labels)
        preferred = (*self.rules.grades, *self.declared, *self.known)
        if self.rules.similar_labels == "merge":
            best, said = _canonical(used, preferred, self.rules, is_scored=bool(self.known))
            labels = [_renamed(label, best) for label in labels]
            used = _count(labels)
            self._refuse_unknown(used)
        else:
            self._refuse_unknown(used)
            _, said = _canonical(used, preferred, self.rules, is_scored=bool(self.known))
        self.remarks.extend(said)
        if self.form == "findings" and self.rules.task == "auto" and not preferred:
            lists = sum(len(label) > 1 for label in labels if isinstance(label, tuple))
            self.remarks.append(remark("labels_are_lists", lists))
        if self.form != "findings":
            self._say_odd_numbers(labels)
        if self.form != "findings" and not preferred:
            if self.rules.task == "auto":
                _refuse_commas(list(used), self.rules)
            if barred := [name for name in used if len(findings_of(name)) > 1]:
                option = self.rules.task_option("findings")
                self.remarks.append(remark("bars_in_names", len(barred), names=some_of(sorted(barred)), option=option))
        words = {value for value in values if isinstance(value, str) and value[:1].isalpha()}  # "none" may be a grade
        return ReadLabels(self.task, self._classes(used, words), tuple(labels), tuple(self.remarks))

    def _say_odd_numbers(self, labels: Sequence[Label | None]) -> None:
        """Remark on classes whose numbers look like codes: 9 or 99 beside 0 to 4."""
        names = [label for label in labels if isinstance(label, str) and label not in self.declared]
        numbers = [number for number in numbers_of(names).values if number is not None]
        if not names or len(numbers) < len(names) or self.rules.grades or self.known:
            return
        rest = [number for number in numbers if number != 9]
        far = far_off(numbers) or ({9.0: numbers.count(9)} if rest and 9 in numbers and max(rest) < 9 / 2 else {})
        if set(far) - {-1, 1} or (-1 in far and len(set(numbers)) > 2):
            self._far_off(far, [number for number in numbers if number not in far])

    def _far_off(self, far: Mapping[float, int], rest: Sequence[float]) -> None:
        self.remarks.append(
            remark(
                "labels_far_off", sum(far.values()),
                values=", ".join(f"{value:.12g} {count} times" for value, count in list(far.items())[:5]),
                low=min(rest, default=0), high=max(rest, default=0),
                option=self.rules.option("missing_codes", ",".join(f"{value:.12g}" for value in list(far)[:5])),
            )
        )  # fmt: skip

    def _without_codes(self, values: Sequence[Label | Cells]) -> list[Label | Cells | None]:
        """Replace codes for missing or uncertain labels as the rules say."""
        exact = {*self.declared, *self.known, *self.rules.grades}
        texts = {value for value in values if isinstance(value, str) and value not in exact}
        answers = {text: answer for text in texts if (answer := _yes_no(text)) is not None}
        codes = {text for text in texts if _is_uncertain(text)}
        rest = {text for text in texts - codes - set(answers) if not is_missing(text)}
        cleaned: list[Label | Cells | None] = list(values)
        if codes and not rest and len(set(answers.values())) > 1 and self.rules.uncertain_labels != "class":
            counts = Counter(value for value in values if isinstance(value, str))
            usual = {answer: max(sorted(text for text in answers if answers[text] is answer), key=counts.__getitem__)
                     for answer in (True, False)}  # fmt: skip
            meant = {"positive": usual[True], "negative": usual[False]}.get(self.rules.uncertain_labels)
            self._uncertain([position for position, value in enumerate(values) if value in codes])
            cleaned = [meant if isinstance(value, str) and value in codes else value for value in values]
        if self.rules.missing_codes:
            coded = {text for text in texts if numbers_of([text]).values[0] in self.rules.missing_codes}
            cleaned = [None if isinstance(value, str) and value in coded else value for value in cleaned]
        return cleaned

    def _named(self, value: Label | Cells | None) -> Label | None:
        if not isinstance(value, str) or value in self.declared or value in self.known or value in self.rules.grades:
            if isinstance(value, str) and self.form == "findings":
                return (value,)
            return None if isinstance(value, Cells) else value
        if self.form == "findings":
            parts = findings_of(value, has_commas=self.has_commas)
            return None if (value and is_missing(value)) or any(map(is_missing, parts)) else parts
        return None if is_missing(value) and not (value.strip() == "-" and self.has_plus) else value

    def _refuse_unknown(self, used: Counter[str]) -> None:
        """Refuse names that were not declared."""
        allowed = self.rules.grades or self.declared
        unknown = sorted(set(used) - set(allowed))
        if not allowed or not unknown:
            return
        alike = [pair for pair in alike_names({*unknown, *allowed}) if set(pair) & set(unknown)]
        hint = (
            f"; some look alike ({shown_pairs(alike)}): {self.rules.option('similar_labels', 'merge')}" if alike else ""
        )
        if self.rules.grades:
            raise DatasetError(
                f"labels that are not in {self.rules.option('grades')}: {len(unknown)} ({some_of(unknown)}); correct "
                f"one of them{hint}"
            )
        raise DatasetError(
            f"classes that are not in labels: {len(unknown)} ({some_of(unknown)}); labels has "
            f"{some_of(self.declared)}: add or correct them{hint}"
        )

    def _classes(self, used: Counter[str], words: set[str]) -> tuple[str, ...]:
        """The classes in the order of the model's outputs.

        Raises:
            ConfigError: grades whose order is not known.
        """
        if self.rules.grades:
            return self.rules.grades
        if self.declared and self.is_ordered:
            return self.declared
        if self.known:
            return (*self.known, *in_order(set(used) - set(self.known)))
        names = {*self.declared, *used}
        if not TASKS[self.task].has_order:
            return in_order(names)
        ordered = grades_in_order(names)
        if not ordered and names:
            raise ConfigError(
                f"the order of {some_of(sorted(names | words))} is not known; give {self.rules.option('grades')}, the "
                "lowest first, with commas"
            )
        return ordered

    def _missing(
        self, values: Sequence[Label | Cells], labels: Sequence[Label | None], *, besides: Iterable[int] = ()
    ) -> None:
        """Count missing labels, or refuse them."""
        positions = [position for position, label in enumerate(labels) if label is None]
        if len(positions) == len(labels) and labels:
            raise DatasetError("no image has a label; name the column with the labels, or fill it in")
        passed = set(besides)
        bare = [position for position in positions if position not in passed]
        if not bare:
            return
        cells = Counter(value.strip() if isinstance(value := values[position], str) else "" for position in bare)
        written = ", ".join(
            f"{cell[:20]!r} {count}" if cell else f"empty {count}" for cell, count in cells.most_common(5)
        )
        if self.rules.missing_labels == "refuse":
            raise DatasetError(
                f"{self._place(bare)} has no label, one of {len(bare)} ({written}); fill them in, or leave them out "
                f"with {self.rules.option('missing_labels', 'drop')}"
            )
        self.remarks.append(
            remark("missing_labels", len(bare), written=written, option=self.rules.option("missing_labels", "refuse"))
        )

    def _uncertain(self, positions: Sequence[int]) -> None:
        if not positions:
            return
        count, meant = len(set(positions)), self.rules.uncertain_labels
        if meant in ("refuse", "class"):
            others = f"{', '.join(UNCERTAIN[1:4])}, or {UNCERTAIN[4]} where it is one"
            raise DatasetError(
                f"{self._place(positions)} has an uncertain finding (-1, u), one of {count}; say what they mean "
                f"with {self.rules.option('uncertain_labels')}: {others}"
            )
        self.remarks.append(remark("uncertain_labels", count, meant=meant))

    def _place(self, positions: Sequence[int]) -> str:
        return self.places[positions[0]]


def _count(labels: Iterable[Label | None]) -> Counter[str]:
    return Counter(name for label in labels for name in names_of(label))


def _renamed(label: Label | None, best: Mapping[str, str]) -> Label | None:
    if isinstance(label, str):
        return best.get(label, label)
    if isinstance(label, tuple):
        return tuple(dict.fromkeys(best.get(name, name) for name in label))
    if isinstance(label, dict):
        shares: dict[str, float] = defaultdict(float)
        for name, share in label.items():
            shares[best.get(name, name)] += share
        return dict(shares)
    return label


def _yes_no(cell: str) -> bool | None:
    """Whether a cell of findings says yes or no; None for neither."""
    text = cell.strip().lower()
    [number] = numbers_of([text]).values
    return _ANSWERS.get(text) if number is None else {1.0: True, 0.0: False}.get(number)


def _is_uncertain(cell: str) -> bool:
    text = cell.strip().lower()
    return text in _UNCERTAIN or numbers_of([text]).values[0] == -1


def _refuse_commas(texts: Sequence[str], rules: LabelRules) -> None:
    """Refuse `A, B` beside `A` and `B`, which may be two findings or one name."""
    whole = {alike_key(text) for text in texts}
    odd = [text for text in set(texts) if "," in text and all(alike_key(part) in whole for part in text.split(","))]
    if odd:
        raise DatasetError(
            f"labels with commas whose parts are labels too: {len(odd)} ({some_of(sorted(odd))}); set "
            f"{rules.task_option('findings')} if they are findings, {rules.task_option('class')} if "
            "they are names"
        )


def _canonical(
    used: Counter[str], preferred: Sequence[str], rules: LabelRules, *, is_scored: bool
) -> tuple[dict[str, str], tuple[Remark, ...]]:
    """The common name of similar names: a declared one, else the most frequent, else the first by alphabet."""
    pairs = alike_names({*used, *preferred})
    if not pairs:
        return {}, ()
    if rules.similar_labels == "keep":
        return {}, (remark("similar_labels_kept", len(pairs), names=shown_pairs(pairs)),)
    if rules.similar_labels == "refuse" and is_scored:
        raise DatasetError(
            f"labels that look alike: {len(pairs)} ({shown_pairs(pairs)}); write them as the model's classes are called"
        )
    if rules.similar_labels == "refuse":
        raise DatasetError(
            f"labels that look alike: {len(pairs)} ({shown_pairs(pairs)}), which differ in case, blanks, Unicode form "
            f"or as 1 and 1.0 only; correct them, or set {rules.option('similar_labels', 'merge')} if they mean the "
            f"same, {rules.option('similar_labels', 'keep')} if not"
        )
    told = set(preferred)
    best = {
        name: min(names, key=lambda each: (each not in told, -used[each], each)) for names in pairs for name in names
    }
    return best, (remark("similar_labels_merged", len(pairs), names=shown_pairs(pairs)),)
