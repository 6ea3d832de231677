"""How much each field of a search explains of its objective: Optuna's functional ANOVA of a fitted forest.

Hutter, Hoos, Leyton-Brown (2014). A grid needs no forest: see `anova`.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from experiments.report.effects import by_point
from experiments.sweeps import queue
from experiments.sweeps.queue import Plan
from experiments.sweeps.space import Axis

FEWEST = 8


def importances(rows: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, float]:
    """Shares by field, adding up to 1; none where there are too few points, or where nothing varies."""
    axes = tuple(Axis(name, tuple(values), is_range) for name, values, is_range in plan["axes"])
    names = ("experiment", "search", "trials", "objective", "options")
    whole = Plan(**{name: plan[name] for name in names}, axes=axes, seeds=tuple(plan["seeds"]))
    distributions = {name: value for name, value in whole.distributions().items() if name != queue.SEED}
    queue.quiet()
    study = optuna.create_study(direction=plan["direction"])
    points = by_point(rows, list(distributions))
    for point, group in points.items():
        value = statistics.fmean(float(row[whole.objective]) for row in group)
        params = {axis.name: _parameter(axis, text) for axis, text in zip(axes, point, strict=True)}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    if len(points) < FEWEST or len({trial.value for trial in study.get_trials(deepcopy=False)}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _parameter(axis: Axis, text: str) -> Any:
    """The parameter that a row's text stands for."""
    if axis.is_range:
        return int(text) if all(isinstance(end, int) for end in axis.values) else float(text)
    labels = [queue.label(value) for value in axis.values]
    return next(label for label in labels if text in (str(label), "none" if label is None else str(label)))
