"""Every number against the literature's, or against another route to it."""

import math

import numpy as np
import pytest

from gradprobe.theory import meanfield
from gradprobe.theory.activations import Function, named
from gradprobe.theory.gaussian import Correlated, moments

NAMES = ("sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu", "softplus", "hardtanh", "identity")
#: activation, σ_w², σ_b², q*, χ₁, ξ, χ₁¹⁰; NaN where the table has none.
TABLE = [
    ("relu", 1 / 3, 0.0, 0.0, 0.16667, 0.5581, 1.65e-8),
    ("relu", 1.0, 0.0, 0.0, 0.5, 1.4427, 9.77e-4),
    ("relu", 2.0, 0.0, math.nan, 1.0, math.inf, 1.0),
    ("relu", 1.5, 0.05, 0.2, 0.75, 3.476, 5.63e-2),
    ("tanh", 1 / 3, 0.0, 0.0, 0.33333, 0.9102, 1.69e-5),
    ("tanh", 1.0, 0.0, 0.0, 1.0, math.inf, 1.0),
    ("tanh", 25 / 9, 0.0, 1.17848, 1.20983, -5.250, 6.72),
    ("tanh", 2.0, 0.0, 0.61797, 1.10553, -9.968, 2.73),
    ("tanh", 1.0, 0.05, 0.1936, 0.7590, 3.627, math.nan),
    ("tanh", 1.25, 0.05, 0.2921, 0.8632, 6.800, math.nan),
    ("tanh", 1.5, 0.05, 0.4180, 0.93864, 15.791, 0.531),
    ("tanh", 2.0, 0.05, 0.7218, 1.0477, -21.48, math.nan),
    ("tanh", 2.5, 0.05, 1.0640, 1.13352, -7.979, 3.50),
    ("tanh", 4.0, 0.05, 2.1955, 1.34240, -3.396, 19.0),
    ("sigmoid", 1 / 3, 0.0, 0.08503, 0.020008, 0.2556, 1.03e-17),
    ("sigmoid", 1.0, 0.0, 0.26469, 0.055721, 0.3463, 2.9e-13),
    ("sigmoid", 16.0, 0.0, 5.8554, 0.39888, 1.0880, 1.0e-4),
    ("gelu", 1.0, 0.0, 0.0, 0.25, 0.7213, 9.5e-7),
    ("silu", 1.0, 0.0, 0.0, 0.25, 0.7213, 9.5e-7),
    ("gelu", 2.0, 0.0, 0.0, 0.5, 1.4427, 9.8e-4),
    ("silu", 2.0, 0.0, 0.0, 0.5, 1.4427, 9.8e-4),
    ("selu", 1.0, 0.0, 1.0, 1.07160, -14.46, 2.00),
]


@pytest.mark.parametrize("row", TABLE)
def test_fixed_points(row: tuple[str, float, float, float, float, float, float]) -> None:
    name, weight, bias, q, chi, xi, ten_layers = row
    point = meanfield.fixed_point(named(name), weight, bias)
    if not math.isnan(q):
        assert point.q == pytest.approx(q, rel=3e-4, abs=1e-12)
    assert point.chi == pytest.approx(chi, rel=5e-5)
    assert point.xi == pytest.approx(xi, rel=1e-3)
    if not math.isnan(ten_layers):
        assert point.chi**10 == pytest.approx(ten_layers, rel=2e-2)
    assert point.phase == ("critical" if chi == 1.0 else "ordered" if chi < 1 else "chaotic")


@pytest.mark.parametrize(
    ("weight", "xi", "c"), [(2.0, 25.21, 0.744), (2.5, 11.80, 0.447), (4.0, 6.980, 0.165), (1.5, 15.791, 1.0)]
)
def test_where_the_correlation_of_two_inputs_settles(weight: float, xi: float, c: float) -> None:
    point = meanfield.fixed_point(named("tanh"), weight, 0.05)
    found = meanfield.correlation_point(named("tanh"), weight, 0.05, point.q)
    assert found.c == pytest.approx(c, abs=6e-4)
    assert found.xi == pytest.approx(xi, rel=5e-4)


@pytest.mark.parametrize(
    ("bias", "weight", "q"),
    [
        (0.01, 1.42421, 0.2733),
        (0.05, 1.76095, 0.5701),
        (0.1, 1.98607, 0.8058),
        (0.3, 2.50513, 1.4612),
        (1.0, 3.44321, 3.0364),
        (2.01e-5, 1.05000, math.nan),
    ],
)
def test_the_critical_line_of_tanh(bias: float, weight: float, q: float) -> None:
    found = meanfield.critical_weight(named("tanh"), bias)
    assert found[0] == pytest.approx(weight, abs=6e-6)
    if not math.isnan(q):
        assert found[1] == pytest.approx(q, abs=6e-5)
    assert meanfield.fixed_point(named("tanh"), found[0], bias).chi == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("relu", math.pi / (math.pi - 1)),
        ("relu", 1.466942),
        ("tanh", 1.17781),
        ("sigmoid", 1.03359),
        ("hardtanh", 1.32289),
        ("gelu", 1.31884),
        ("silu", 1.21208),
        ("elu", 1.07901),
        ("selu", 1.07160),
        ("leaky_relu", 1.45337),
        ("identity", 1.0),
    ],
)
def test_growth_through_batch_normalization(name: str, rate: float) -> None:
    assert meanfield.batch_normalized_rate(named(name)) == pytest.approx(rate, rel=3e-5)


def test_batch_normalization_of_erf() -> None:
    erf = Function("erf", np.vectorize(math.erf, otypes=[float]), lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x))
    assert meanfield.batch_normalized_rate(erf) == pytest.approx(1.22570, rel=5e-6)


@pytest.mark.parametrize(("name", "rate"), [("relu", 1.0), ("tanh", 1.178), ("sigmoid", 0.1528), ("gelu", 1.072)])
def test_growth_through_layer_normalization(name: str, rate: float) -> None:
    assert meanfield.layer_normalized_rate(named(name)) == pytest.approx(rate, abs=5e-4)


def test_glorot_and_bengios_mean_jacobian_singular_values() -> None:
    """0.8 and 0.5 in the paper: the quarter circle's mean 8/3π times √χ₁, of tanh at its start."""
    quarter_circle = 8 / (3 * math.pi)
    assert quarter_circle * math.sqrt(meanfield.chi(named("tanh"), 0.0, 1.0)) == pytest.approx(0.8488, abs=5e-5)
    assert quarter_circle * math.sqrt(meanfield.chi(named("tanh"), 0.0, 1 / 3)) == pytest.approx(0.4901, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "orthogonal", "spread"),
    [("identity", False, 1.0), ("relu", False, 2.0), ("relu", True, 1.0), ("identity", True, 0.0)],
)
def test_penningtons_spread_of_singular_values(name: str, orthogonal: bool, spread: float) -> None:
    assert meanfield.singular_value_spread(named(name), 1.0, orthogonal=orthogonal) == pytest.approx(spread, abs=1e-12)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_spread_of_a_real_jacobians_singular_values(orthogonal: bool) -> None:
    """Width 500, four layers of ReLU: s² has mean χ₁⁴ and a relative variance of four times a layer's spread."""
    random, width, depth = np.random.default_rng(0), 500, 4
    jacobian, signal = np.eye(width), random.normal(size=width)
    for _ in range(depth):
        weights = random.normal(size=(width, width))
        weights = np.sqrt(2) * np.linalg.qr(weights)[0] if orthogonal else weights * np.sqrt(2 / width)
        z = weights @ signal
        jacobian, signal = (z > 0)[:, None] * (weights @ jacobian), np.maximum(z, 0)
    squares = np.linalg.svd(jacobian, compute_uv=False) ** 2
    spread = meanfield.singular_value_spread(named("relu"), 1.0, orthogonal=orthogonal)
    assert squares.mean() == pytest.approx(meanfield.chi(named("relu"), 1.0, 2.0) ** depth, rel=0.15)
    assert squares.var() / squares.mean() ** 2 == pytest.approx(depth * spread, rel=0.15)


def test_a_sigmoidal_network_can_be_isometric_and_a_relu_network_can_not() -> None:
    """Orthogonal weights and a small q: tanh's slope is 1 almost everywhere there, ReLU's 0 for one half anywhere."""
    spreads = [meanfield.singular_value_spread(named("tanh"), q, orthogonal=True) for q in (1.0, 0.1, 0.01)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 1e-3
    assert meanfield.singular_value_spread(named("relu"), 0.01, orthogonal=True) == pytest.approx(1.0)


def test_xavier_on_relu_loses_half_the_variance_a_layer() -> None:
    q = 1.0
    for _ in range(30):
        q = meanfield.length_map(named("relu"), q, 1.0)
    assert math.sqrt(q) == pytest.approx(2.0**-15, rel=1e-12)


def test_he_and_sons_example_of_a_network_that_does_not_start() -> None:
    """Standard deviation 0.01 where √(2/n) would be 1/5.9, 1/4.2, 1/2.9 and 1/2.1 of … : the product is 1.7·10⁴."""
    product = 5.9 * 4.2**2 * 2.9**2 * 2.1**4
    assert product == pytest.approx(17022.5, abs=0.1)
    for factor in (5.9, 4.2, 2.9, 2.1):
        chi = meanfield.chi(named("relu"), 1.0, 2.0 / factor**2)
        assert math.sqrt(chi) == pytest.approx(1 / factor, rel=1e-12)


@pytest.mark.parametrize(("slope", "critical"), [(0.0, 2.0), (0.01, 2 / 1.0001), (0.2, 2 / 1.04), (1.0, 1.0)])
def test_closed_forms_of_leaky_relu(slope: float, critical: float) -> None:
    assert meanfield.chi(named("leaky_relu", slope), 0.7, critical) == pytest.approx(1.0, rel=1e-12)


def test_sigmoids_chi_stays_below_a_sixteenth_of_the_weights() -> None:
    for weight in (0.3, 1.0, 4.0, 16.0):
        assert meanfield.fixed_point(named("sigmoid"), weight).chi < weight / 16


def test_over_how_many_layers_the_variance_settles() -> None:
    """By finite differences of the length map at the fixed point."""
    function, weight, bias = named("tanh"), 2.0, 0.05
    q = meanfield.fixed_point(function, weight, bias).q
    step = 1e-5
    slope = (
        meanfield.length_map(function, q + step, weight, bias) - meanfield.length_map(function, q - step, weight, bias)
    ) / (2 * step)
    assert meanfield.variance_length(function, q, weight) == pytest.approx(-1 / math.log(slope), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("variance", "mean"), [(1e-8, 0.0), (0.3, 0.0), (1.0, -0.7), (400.0, 2.0)])
def test_quadrature_against_a_fine_sum(name: str, variance: float, mean: float) -> None:
    """Another route: a hundred thousand equal steps."""
    z = np.linspace(-10, 10, 100_001)
    weight = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    function, x = named(name), mean + math.sqrt(variance) * z
    value, slope = function.value(x), function.slope(x)
    found = moments(function, variance, mean)
    assert found.second == pytest.approx(weight @ value**2, rel=1e-4)
    assert found.slope_second == pytest.approx(weight @ slope**2, rel=5e-3)
    assert found.mean == pytest.approx(weight @ value, rel=1e-5, abs=1e-9 * math.sqrt(variance))


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_the_derivatives(name: str) -> None:
    x = np.linspace(-4.03, 4.03, 400)
    step = 1e-6
    function = named(name)
    numeric = (function.value(x + step) - function.value(x - step)) / (2 * step)
    assert function.slope(x) == pytest.approx(numeric, abs=1e-8)
    assert np.abs(function.slope(x)).max() <= function.largest_slope * 1.0001


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.5, 0.99, 1.0])
def test_correlated_relu_against_the_arc_cosine_kernel(c: float) -> None:
    """Cho & Saul 2009."""
    angle = math.acos(c)
    kernel = (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi)
    assert Correlated.of(named("relu"), 1.0).at(c) == pytest.approx(kernel, abs=1e-4)


def test_the_expected_share_of_saturated_units() -> None:
    assert moments(named("relu"), 1.0).saturated == pytest.approx(0.5, abs=1e-12)
    edge = math.atanh(math.sqrt(0.95))
    for variance in (0.5, 4.0, 100.0):
        wanted = math.erfc(edge / math.sqrt(2 * variance))
        assert moments(named("tanh"), variance).saturated == pytest.approx(wanted, abs=2e-2)
