"""scikit-learn estimators: Bayesian networks and flows for its pipelines and searches.

They standardise their inputs (and continuous targets), compute in the dtype of ``X`` (float32 or
float64; others become float64) and are repeatable for a ``random_state``. Predictions of
continuous targets keep the digits of these: they are float64 if ``X`` or ``y`` is. torch's global
generators are left as they were. A fit that fails, or is interrupted, leaves an estimator that is
not fitted. The models are found in ``model_``, the course of the training
in ``history_`` (:class:`bslfast.training.History`). scikit-learn 1.6 or newer is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bslfast import _checks, flows, training
from bslfast.bnn import BayesianMLP
from bslfast.data import Standardizer
from bslfast.predict import Prediction, predict, seeded

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, DensityMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ModuleNotFoundError(
        "bslfast.sklearn: expected scikit-learn >= 1.6 to be installed: pip install scikit-learn",
        name="sklearn",
    ) from None

__all__ = ["BayesianMLPClassifier", "BayesianMLPRegressor", "FlowDensity"]

_DTYPES = (np.float64, np.float32)
_REGRESSIONS = (
    "normal",
    "heteroscedastic_normal",
    "laplace",
    "student_t",
    "poisson",
    "negative_binomial",
)
_FLOWS = ("NSF", "MAF", "RealNVP", "NICE")
# Arguments of flows that are the estimator's own, or have no meaning there.
_NO_OPTIONS = ("features", "context", "transforms", "hidden", "device", "dtype")
_CPU = torch.device("cpu")


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _tensor(array: Any) -> Tensor:
    """A copy: torch has neither the byte orders of other machines nor negative strides."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What all estimators share: they are fitted once the training has ended."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _forget(self) -> None:
        """Before a fit: what it leaves if it fails must not go with the model of another one."""
        self.__dict__.pop("model_", None)


class _BayesianMLP(_Estimator):
    """What regression and classification share: the training, and draws that stay the same."""

    def __init__(
        self,
        hidden: Sequence[int] = (50,),
        *,
        activation: str = "relu",
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        epochs: int = 200,
        batch_size: int = 100,
        lr: float = 0.01,
        schedule: str = "cosine",
        beta: float = 1.0,
        n_samples: int = 100,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior_scale = prior_scale
        self.init_scale = init_scale
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.schedule = schedule
        self.beta = beta
        self.n_samples = n_samples
        self.random_state = random_state

    def prediction(self, X: Any) -> Prediction:
        """Return the whole predictive distribution at ``X``, in the unit of the targets.

        Its parts, intervals and densities are torch tensors. The draws of the weights are the same
        in every call.

        Args:
            X: [rows, features].

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        scaler = self._input_scaler
        return predict(
            self.model_,
            scaler.transform(_tensor(X).to(scaler.mean.dtype)),
            self.n_samples,
            seed=self._prediction_seed,
            target_scaler=self._target_scaler,
        )

    def _train(self, x: Tensor, y: Tensor, targets: int, likelihood: str) -> None:
        random_state = check_random_state(self.random_state)
        seed, prediction_seed = _seed(random_state), _seed(random_state)
        _checks.integer("n_samples", self.n_samples)
        inputs = Standardizer._fit("X", x)
        with seeded(seed, _CPU):
            model = BayesianMLP(
                x.shape[1],
                self.hidden,
                targets,
                activation=self.activation,
                likelihood=likelihood,
                prior_scale=self.prior_scale,
                init_scale=self.init_scale,
                dtype=x.dtype,
            )
        scaler = None
        if model.likelihood.continuous:
            scaler = Standardizer._fit("y", y)
            y = scaler.transform(y)
        history = training.fit(
            model,
            (inputs.transform(x), y.to(x.dtype) if y.is_floating_point() else y),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            beta=self.beta,
            seed=seed,
        )
        self.model_, self.history_ = model, history
        self._input_scaler, self._target_scaler = inputs, scaler
        self._prediction_seed = prediction_seed


class BayesianMLPRegressor(RegressorMixin, _BayesianMLP):  # type: ignore[misc]
    """Regression by a dense network whose weights are distributions, with error bars.

    Args:
        hidden: widths of the hidden layers; may be empty.
        activation, prior_scale, init_scale: as of :class:`bslfast.bnn.BayesianMLP`.
        likelihood: law of the targets. "normal" (learned noise, the same for all inputs),
            "heteroscedastic_normal" (noise that depends on the input), "laplace" or "student_t",
            whose targets are standardised; "poisson" or "negative_binomial" for counts.
        epochs, batch_size, lr, schedule, beta: as of :func:`bslfast.training.fit`.
        n_samples: how many draws of the weights predictions are averaged over.
        random_state: an int, a ``numpy.random.RandomState``, or None for numpy's global one.

    Attributes:
        model_: the network, of standardised inputs and targets.
        history_: the course of the training.
        n_features_in_: number of features.
        feature_names_in_: their names, if ``X`` has names that are strings.

    Raises:
        TypeError, ValueError: from :meth:`fit`, naming the argument, what was expected and what
            came.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import numpy as np
    >>> from bslfast.sklearn import BayesianMLPRegressor
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> model = BayesianMLPRegressor(epochs=100, random_state=0).fit(x, np.sin(3 * x[:, 0]))
    >>> mean, std = model.predict([[0.5], [3.0]], return_std=True)
    >>> mean.shape, bool(std[0] < std[1])
    ((2,), True)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (50,),
        *,
        activation: str = "relu",
        likelihood: str = "normal",
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        epochs: int = 200,
        batch_size: int = 100,
        lr: float = 0.01,
        schedule: str = "cosine",
        beta: float = 1.0,
        n_samples: int = 100,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            hidden,
            activation=activation,
            prior_scale=prior_scale,
            init_scale=init_scale,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            schedule=schedule,
            beta=beta,
            n_samples=n_samples,
            random_state=random_state,
        )
        self.likelihood = likelihood

    def fit(self, X: Any, y: Any) -> BayesianMLPRegressor:
        """Train the network.

        Args:
            X: [rows, features], finite.
            y: [rows] or [rows, targets], finite.
        """
        self._forget()
        X, y = validate_data(self, X, y, dtype=_DTYPES, multi_output=True, y_numeric=True)
        likelihood = _checks.choice("likelihood", self.likelihood, _REGRESSIONS)
        x = _tensor(X)
        self._is_column = y.ndim == 1
        # The standardised targets alone are rounded to the dtype of the network.
        exact = np.float32 if X.dtype == y.dtype == np.float32 else np.float64
        targets = _tensor(y.astype(exact)).reshape(len(y), -1)
        self._train(x, targets, targets.shape[1], likelihood)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predictive means, and with ``return_std`` the standard deviations.

        Args:
            X: [rows, features].
            return_std: also return the standard deviation of a new target: of noise and of what is
                not known of the weights together.

        Returns:
            means shaped like ``y`` in training, or a pair of these and the standard deviations.
        """
        found = self.prediction(X)
        mean = self._shaped(found.mean)
        if not return_std:
            return mean
        return mean, self._shaped(torch.hypot(found.aleatoric, found.epistemic))

    def _shaped(self, y: Tensor) -> Any:
        return (y.squeeze(1) if self._is_column else y).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class BayesianMLPClassifier(ClassifierMixin, _BayesianMLP):  # type: ignore[misc]
    """Classification by a dense network whose weights are distributions.

    Args:
        hidden: widths of the hidden layers; may be empty.
        activation, prior_scale, init_scale: as of :class:`bslfast.bnn.BayesianMLP`.
        epochs, batch_size, lr, schedule, beta: as of :func:`bslfast.training.fit`.
        n_samples: how many draws of the weights probabilities are averaged over.
        random_state: an int, a ``numpy.random.RandomState``, or None for numpy's global one.

    Attributes:
        classes_: the labels, sorted; columns of :meth:`predict_proba` are in their order.
        model_: the network, of standardised inputs.
        history_: the course of the training.
        n_features_in_: number of features.
        feature_names_in_: their names, if ``X`` has names that are strings.

    Raises:
        TypeError, ValueError: from :meth:`fit`, naming the argument, what was expected and what
            came.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import numpy as np
    >>> from bslfast.sklearn import BayesianMLPClassifier
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> y = np.where(x[:, 0] > 0, "right", "left")
    >>> BayesianMLPClassifier(epochs=50, random_state=0).fit(x, y).predict([[-0.9], [0.9]]).tolist()
    ['left', 'right']
    """

    def fit(self, X: Any, y: Any) -> BayesianMLPClassifier:
        """Train the network.

        Args:
            X: [rows, features], finite.
            y: [rows], labels of any kind.
        """
        self._forget()
        X, y = validate_data(self, X, y, dtype=_DTYPES)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y: expected at least two classes, got 1 class")
        self._train(_tensor(X), _tensor(labels), len(self.classes_), "categorical")
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, [rows, classes].

        Args:
            X: [rows, features].
        """
        return self.prediction(X).mean.numpy()

    def predict(self, X: Any) -> Any:
        """Return the most probable label of each row.

        Args:
            X: [rows, features].
        """
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class FlowDensity(DensityMixin, _Estimator):  # type: ignore[misc]
    """The density of rows of numbers, by a normalizing flow.

    Args:
        flow: "NSF", "MAF", "RealNVP" or "NICE", see :mod:`bslfast.flows`.
        transforms: number of its transforms.
        hidden: widths of the hidden layers of each transform's network.
        flow_options: further arguments of the flow's class, such as ``{"autoregressive": True}``.
        epochs, batch_size, lr, schedule: as of :func:`bslfast.training.fit`.
        validation_fraction: share of the rows that are held out, at least one, to end with the
            weights of the epoch that scores best there; 0 trains on all.
        patience: stop after this many epochs without a better score; None never.
        random_state: an int, a ``numpy.random.RandomState``, or None for numpy's global one.

    Attributes:
        model_: the flow, of data as they came: its first transform standardises them.
        history_: the course of the training.
        n_features_in_: number of features.
        feature_names_in_: their names, if ``X`` has names that are strings.

    Raises:
        TypeError, ValueError: from :meth:`fit`, naming the argument, what was expected and what
            came; also for a constant column, which has no density.

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762).

    >>> import numpy as np
    >>> from bslfast.sklearn import FlowDensity
    >>> x = 5 + 2 * np.random.default_rng(0).normal(size=(500, 2))
    >>> density = FlowDensity("RealNVP", transforms=2, epochs=5, random_state=0).fit(x)
    >>> density.score_samples(x).shape, density.sample(3, random_state=0).shape
    ((500,), (3, 2))
    """

    def __init__(
        self,
        flow: str = "NSF",
        *,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        flow_options: Mapping[str, Any] | None = None,
        epochs: int = 100,
        batch_size: int = 256,
        lr: float = 5e-3,
        schedule: str = "cosine",
        validation_fraction: float = 0.1,
        patience: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.flow = flow
        self.transforms = transforms
        self.hidden = hidden
        self.flow_options = flow_options
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.schedule = schedule
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> FlowDensity:
        """Train the flow.

        Args:
            X: [rows, features], finite; at least two rows that are not held out.
            y: not used.
        """
        self._forget()
        X = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        kind = getattr(flows, _checks.choice("flow", self.flow, _FLOWS))
        fraction = _checks.number(
            "validation_fraction", self.validation_fraction, minimum=0.0, below=1.0
        )
        held = max(1, round(fraction * len(X))) if fraction else 0
        if len(X) - held < 2:
            raise ValueError(
                f"X: expected at least 2 rows beside those held out, which are {held} of {len(X)} "
                f"with validation_fraction={fraction:g}, got {len(X) - held}"
            )
        options = self._options(kind)
        seed = _seed(self.random_state)
        x = _tensor(X)
        with seeded(seed, _CPU):
            held_out, train = x[torch.randperm(len(x))].tensor_split([held])
            inner = kind(
                x.shape[1],
                transforms=self.transforms,
                hidden=self.hidden,
                dtype=x.dtype,
                **options,
            )
        # The training rows alone: those held out must not influence the model.
        scaled = flows.Standardize.from_data(train)
        model = flows.Flow(flows.Composite([scaled, inner.transform]), inner.base)
        history = training.fit(
            model,
            (train,),
            (held_out,) if held else None,
            objective=flows.Flow.log_prob,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            patience=self.patience,
            seed=seed,
        )
        self.model_, self.history_ = model, history
        return self

    def _options(self, kind: type) -> dict[str, Any]:
        """The further arguments of a flow's class; ValueError names one that it does not have."""
        options = {} if self.flow_options is None else self.flow_options
        if not isinstance(options, Mapping):
            raise TypeError(
                f"flow_options: expected a mapping or None, got {_checks.describe(options)}"
            )
        known = [k for k in inspect.signature(kind).parameters if k not in _NO_OPTIONS]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"flow_options: expected arguments of {self.flow}, {', '.join(known)}, got "
                    f"{name!r}"
                )
        return dict(options)

    def score_samples(self, X: Any) -> Any:
        """Return the log density at each row, in nats, [rows].

        Args:
            X: [rows, features].

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        dtype = next(self.model_.parameters()).dtype
        with torch.no_grad():
            return self.model_.log_prob(_tensor(X).to(dtype)).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log density of the rows, in nats.

        Args:
            X: [rows, features].
            y: not used.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw rows, [n_samples, features].

        Args:
            n_samples: number of rows.
            random_state: as of the estimator.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self)
        return self.model_.sample(n_samples, seed=_seed(random_state)).numpy()
