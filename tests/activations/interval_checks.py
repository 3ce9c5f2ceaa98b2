"""An independent check of the interval facts: adversarial queries, sampled secants, exact arithmetic, brute force."""

import math
from fractions import Fraction

import mpmath as mp
import torch


def _softplus(z, beta=1):
    return (mp.log1p(mp.exp(-abs(beta * z))) + max(beta * z, 0)) / beta


def _silu(z, beta=1):
    return z / (1 + mp.exp(-beta * z))


def _elu(z, alpha=1.0, scale=1.0):
    return mp.mpf(scale) * (z if z > 0 else mp.mpf(alpha) * mp.expm1(z))


def _staircase(z, temperature, levels=5):
    thresholds = [mp.mpf(2 * k + 1) / (levels - 1) - 1 for k in range(levels - 1)]
    return 2 * sum(1 / (1 + mp.exp((t - z) / mp.mpf(temperature))) for t in thresholds) / (levels - 1) - 1


def _pssilu(z, alpha, beta):
    return z * (1 / (1 + mp.exp(-mp.mpf(alpha) * z)) - mp.mpf(beta)) / (1 - mp.mpf(beta))


def _snake(z, frequency=1):
    return z + mp.sin(frequency * z) ** 2 / frequency


def _squareplus(z, b):
    root = mp.sqrt(z * z + b)
    return (z + root) / 2 if z > 0 else b / 2 / (root - z)


def _leaky(slope):
    return lambda z: z if z > 0 else mp.mpf(slope) * z


# Variants of catalogue entries: name and parameters.
VARIANTS = {
    "celu(0.1)": ("celu", {"alpha": 0.1}),
    "elu(2)": ("elu", {"alpha": 2.0}),
    "pssilu(2, 0.3)": ("pssilu", {"alpha": 2.0, "beta": 0.3}),
    "sigmoid_staircase(0.01)": ("sigmoid_staircase", {"temperature": 0.01}),
    "sin(7)": ("sin", {"frequency": 7.0}),
    "snake(3)": ("snake", {"frequency": 3.0}),
    "softplus(threshold=20)": ("softplus", {"threshold": 20.0}),
    "squareplus(0.01)": ("squareplus", {"b": 0.01}),
    "swish(50)": ("swish", {"beta": 50.0}),
    "tanh(20)": ("tanh", {"steepness": 20.0}),
}
# Parameters of psilu and prelu are float32.
_BETA, _BETA_3 = (float(torch.tensor(z)) for z in (0.1, 0.3))
# φ of the continuous activations, with the parameters used here.
FORMULAS = {
    "arctan": mp.atan,
    "celu": _elu,
    "celu(0.1)": lambda z: z if z > 0 else mp.mpf(0.1) * mp.expm1(z / mp.mpf(0.1)),
    "centred_softplus": lambda z: _softplus(z) - mp.log(2),
    "elu": _elu,
    "elu(2)": lambda z: _elu(z, alpha=2),
    "erf": mp.erf,
    "gaussian": lambda z: mp.exp(-z * z),
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": lambda z: z / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3))),
    "hardsigmoid": lambda z: min(max(z + 3, 0), 6) / 6,
    "hardswish": lambda z: z * min(max(z + 3, 0), 6) / 6,
    "hardtanh": lambda z: min(max(z, -1), 1),
    "identity": lambda z: z,
    "kinked_linear": lambda z: max(z, 0),
    "leaky_relu": _leaky(0.01),
    "logsigmoid": lambda z: -_softplus(-z),
    "mish": lambda z: z * mp.tanh(_softplus(z)),
    "prelu": _leaky(0.25),
    "psilu": _silu,
    "pssilu": lambda z: _pssilu(z, 1.0, _BETA),
    "pssilu(2, 0.3)": lambda z: _pssilu(z, 2.0, _BETA_3),
    "relu": lambda z: max(z, 0),
    "relu6": lambda z: min(max(z, 0), 6),
    "relu_squared": lambda z: max(z, 0) ** 2,
    "rrelu": _leaky((1 / 8 + 1 / 3) / 2),
    "selu": lambda z: _elu(z, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "sigmoid_staircase": lambda z: _staircase(z, 0.05),
    "sigmoid_staircase(0.01)": lambda z: _staircase(z, 0.01),
    "silu": _silu,
    "sin": mp.sin,
    "sin(7)": lambda z: mp.sin(7 * z),
    "smooth_relu": lambda z: z - mp.log1p(z) if z > 0 else z * 0,
    "snake": _snake,
    "snake(3)": lambda z: _snake(z, 3),
    "softplus": _softplus,
    "softplus(threshold=20)": lambda z: z if z > 20 else _softplus(z),
    "softshrink": lambda z: z - max(min(z, mp.mpf(0.5)), -mp.mpf(0.5)),
    "softsign": lambda z: z / (1 + abs(z)),
    "squareplus": lambda z: _squareplus(z, 4),
    "squareplus(0.01)": lambda z: _squareplus(z, mp.mpf(0.01)),
    "swish": _silu,
    "swish(50)": lambda z: _silu(z, 50),
    "tanh": mp.tanh,
    "tanh(20)": lambda z: mp.tanh(20 * z),
    "tanhshrink": lambda z: z - mp.tanh(z),
    "tent": lambda z: max(1 - abs(z), 0),
}
_ALGEBRAIC = ("arctan", "softsign", "squareplus", "smooth_relu")
EPSILON, MAX, DENORMAL = 2.0**-52, 1.7976931348623157e308, 5e-324


def largest_slope(facts):
    """The larger of 1 and sup |φ'|, or of 1 and its finite bound."""
    return max(1.0, *(abs(z) for z in (facts.slope_min, facts.slope_max) if math.isfinite(z)))


def width(facts):
    """The length over which φ' changes."""
    slope = max(abs(facts.slope_min), abs(facts.slope_max))
    return slope / facts.curvature if 0 < facts.curvature < math.inf and slope < math.inf else 1.0


def special_points(facts):
    """Breakpoints and turning points with their neighbours, zeros, tails."""
    marks = [b.position for b in facts.breakpoints] + [*facts.value_turns, *facts.slope_turns, 0.0]
    if facts.period:
        marks += [t + n * facts.period for t in marks for n in (-1000, -1, 1, 12345678)]
    near = [math.nextafter(t, side) for t in marks for side in (-math.inf, math.inf)]
    scaled = [
        t + side * width(facts) * 10.0**k for t in marks for side in (-1, 1) for k in (-9, -6, -3, -1, 0, 0.5, 1)
    ]
    plain = [
        side * z for side in (-1, 1) for z in (DENORMAL, 1e-310, 1e-160, 1e-9, 1.0, 20.0, 40.0, 1e6, 1e30, 1e300, MAX)
    ]
    return torch.tensor(sorted({*marks, *near, *scaled, *plain}), dtype=torch.float64)


def draw(facts, count, seed):
    """(at, lower, upper): ordinary, at special points, an ulp or a tiny offset apart, degenerate, infinite."""
    g = torch.Generator().manual_seed(seed)
    special = special_points(facts)

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, generator=g, dtype=torch.float64)

    def point():
        scale = width(facts) * 10 ** uniform(-2, 2)
        return _pick(g, [
            torch.randn(count, generator=g, dtype=torch.float64) * 3,
            torch.randn(count, generator=g, dtype=torch.float64) * scale,
            special[torch.randint(len(special), (count,), generator=g)],
            special[torch.randint(len(special), (count,), generator=g)],
        ])  # fmt: skip

    def beside(z):
        sign = torch.randint(2, (count,), generator=g) * 2.0 - 1
        return _pick(g, [
            z, torch.nextafter(z, sign * math.inf), z + sign * 10 ** uniform(-16, 1) * width(facts),
            z + sign * z.abs() * 10 ** uniform(-16, 0), z + sign * 10 ** uniform(-320, -17), point(), point(), point(),
        ])  # fmt: skip

    one = point()
    two = _pick(g, [beside(one), beside(one), point()])
    infinite = uniform(0, 1)
    one, two = torch.where(infinite < 0.03, -math.inf, one), torch.where(infinite > 0.97, math.inf, two)
    lower, upper = torch.minimum(one, two), torch.maximum(one, two)
    # No point but a limit lies in [inf, inf].
    lone = lower == upper
    lower, upper = torch.where(lone, lower.clamp(-MAX, MAX), lower), torch.where(lone, upper.clamp(-MAX, MAX), upper)
    share = uniform(0, 1)
    within = lower.clamp(-MAX, MAX) * (1 - share) + upper.clamp(-MAX, MAX) * share
    at = _pick(g, [beside(lower), beside(upper), lower, upper, within, within, point(), point()])
    return at.nan_to_num(0.0).clamp(-MAX, MAX), lower, upper


def sample(facts, at, lower, upper, seed, random=4):
    """(n, k) points of each interval: ends, inside neighbours, near `at`, special points, random."""
    g = torch.Generator().manual_seed(seed)
    special = special_points(facts)
    low, high, n = lower.clamp(-MAX, MAX), upper.clamp(-MAX, MAX), len(at)
    inf = torch.full_like(at, math.inf)
    columns = [low, high, torch.nextafter(low, inf), torch.nextafter(high, -inf), torch.nextafter(at, inf),
               torch.nextafter(at, -inf)]  # fmt: skip
    for _ in range(random):
        share = torch.rand(n, generator=g, dtype=torch.float64)
        columns.append(low * (1 - share) + high * share)
        columns.append(special[torch.randint(len(special), (n,), generator=g)])
        columns.append(at + torch.randn(n, generator=g, dtype=torch.float64) * width(facts) * 10 ** (-4 * share))
    columns += [
        torch.full_like(at, t) for b in facts.breakpoints[:3] for t in (b.position, math.nextafter(b.position, 9e9))
    ]
    return torch.minimum(torch.maximum(torch.stack(columns, 1), low[:, None]), high[:, None])


def sampled_excess(facts, value, slope, secant, at, lower, upper, seed):
    """How far sampled values and secants leave their ranges beyond float64's error, and the rows to check exactly.

    Returns (three largest excesses, rows, sample points).
    """
    s = sample(facts, at, lower, upper, seed).sort(dim=1).values
    phi, origin = facts.function(s), facts.function(at)[:, None]
    over = torch.maximum(value[0][:, None] - phi, phi - value[1][:, None])
    over = torch.where(phi.isfinite(), over, -math.inf)  # an overflow is no value of φ
    excess = [float(over.nan_to_num(-math.inf).max())]
    exact = facts.smoothness_class < 0 and facts.polynomial_pieces is not None
    unit = 0.0 if exact else largest_slope(facts) * width(facts)
    # Far out the last bit of frequency · z shifts a wave.
    shift = largest_slope(facts) if facts.period else 0.0
    pairs = ((s[:, 1:], s[:, :-1], phi[:, 1:], phi[:, :-1], slope), (s, at[:, None], phi, origin, secant))
    suspicion = torch.zeros(len(at), dtype=torch.float64)
    for a, b, phi_a, phi_b, (low, high) in pairs:
        scale = _scale(a, b)
        run = a * scale - b * scale
        quotient = (phi_a * scale - phi_b * scale) / run
        size = (phi_a * scale).abs() + (phi_b * scale).abs() + (unit + shift * (a.abs() + b.abs())) * scale
        error = 16 * EPSILON * (size / run.abs() + quotient.abs()) + 4 * DENORMAL / run.abs() + 1e-320
        over = torch.maximum(low[:, None] - quotient, quotient - high[:, None])
        over = torch.where(quotient.isnan() | (run == 0), -math.inf, over)
        excess.append(float((over - error).nan_to_num(-math.inf).max()))
        suspicion = torch.maximum(suspicion, (over / error).nan_to_num(0).clamp(min=-1).amax(1))
    return excess, suspicion.argsort(descending=True), s


def exact_phi(facts, formula=None):
    """φ in exact or 200-bit arithmetic: from the facts' pieces when it jumps, else from an mpmath formula."""
    if facts.polynomial_pieces is None and facts.period is None and not facts.name.startswith(_ALGEBRAIC):
        # Special functions overflow far out, where exponential tails are asymptotes.
        with mp.workprec(1500):
            far = {side: (formula(mp.mpf(1e5 * side)), formula(mp.mpf((1e5 + 1) * side))) for side in (-1, 1)}

        def asymptote(z):
            start, after = far[1 if z > 0 else -1]
            return start + (after - start) * (abs(z) - 1e5)

        return lambda z: formula(z) if abs(z) < 1e5 else asymptote(z)
    if facts.smoothness_class >= 0:
        return formula
    pieces = [[Fraction(c) for c in piece] for piece in facts.polynomial_pieces]
    positions = [Fraction(b.position) for b in facts.breakpoints]

    def phi(z):
        return sum(c * z**k for k, c in enumerate(pieces[sum(t < z for t in positions)]))

    return phi


def exact_violations(facts, formula, rows, ranges, at, samples):
    """Number of exactly computed values, pair secants and centre secants outside their ranges; the worst by size."""
    exact, count, worst = facts.smoothness_class < 0 and facts.polynomial_pieces is not None, 0, 0.0
    phi = exact_phi(facts, formula)
    value, slope, secant = ([(float(low[r]), float(high[r])) for r in rows] for low, high in ranges)
    for i, r in enumerate(rows):
        points, centre = samples[r].tolist(), float(at[r])
        gaps = [abs(a - b) for a in points for b in (centre, *points) if a != b]
        bits = 200 + max(0, math.ceil(-math.log2(max(min([1.0, *gaps]), DENORMAL))))
        with mp.workprec(bits + 1100 if max(map(abs, points)) > 1e60 or abs(centre) > 1e60 else bits):
            number = Fraction if exact else mp.mpf
            z = [number(p) for p in points]
            c = number(centre)
            v, origin = [phi(p) for p in z], phi(c)
            found = [(p, value[i]) for p in v]
            found += [((v[k + 1] - v[k]) / (z[k + 1] - z[k]), slope[i]) for k in range(len(z) - 1) if z[k] != z[k + 1]]
            found += [((p - origin) / (q - c), secant[i]) for p, q in zip(v, z, strict=True) if q != c]
            for q, (low, high) in found:
                over = max(
                    number(low) - q if math.isfinite(low) else -1, q - number(high) if math.isfinite(high) else -1
                )
                if over > 0 or low == math.inf or high == -math.inf:
                    count, worst = (
                        count + 1,
                        max(worst, float(mp.mpf(over) if not exact else min(over, Fraction(MAX)))),
                    )
    return count, worst


def looseness(facts, ranges, at, lower, upper):
    """Largest distance of a finite bound from the brute-force range, over max(1, |bound|), for each function."""
    low, high = lower.clamp(-MAX, MAX), upper.clamp(-MAX, MAX)
    steps = facts.smoothness_class < 0 and facts.affine_pieces is not None
    # A wave far out is noisy: neither is its brute force compared there, nor do its short secants grow.
    reach = 1e6 * width(facts) if facts.period else math.inf
    far = torch.stack([at, *(torch.minimum(torch.maximum(z, low), high) for z in (at, at * 0))]).abs().amax(0) > reach
    overflow = ~(facts.function(low).isfinite() & facts.function(high).isfinite())
    kinks = low.new_tensor([b.position for b in facts.breakpoints] or [math.nan])

    def secant(s):
        scale = _scale(s, at[:, None])
        run = s * scale - at[:, None] * scale
        direct = (facts.function(s) * scale - facts.function(at)[:, None] * scale) / run
        size = at.abs()[:, None].clamp(min=width(facts)) if not facts.period else 1e3 * width(facts)
        short = (not steps) & (run.abs() < 1e-6 * size) & (run != 0)
        return torch.where(short, mean_slope(at[:, None].expand_as(s), s), direct)

    def mean_slope(a, b):
        """By the midpoint rule, on both sides of the breakpoint between when there is one."""
        start, stop = torch.minimum(a, b), torch.maximum(a, b)
        total, first = torch.zeros_like(a), start
        for point in facts.breakpoints:
            t = torch.full_like(a, point.position)
            split = (start < t) & (t < stop)
            part = (t - start) / (stop - first) * facts.derivative(start / 2 + t / 2)
            part = part + (point.jump / (stop - first) if point.order == -1 else 0.0)
            total, start = torch.where(split, total + part, total), torch.where(split, t, start)
        middle = torch.nextafter(start / 2 + stop / 2, stop)
        return total + (stop - start) / (stop - first) * facts.derivative(middle)

    def slope(s):
        # Beside an end that is a breakpoint only the inner side counts.
        on_kink = (s[..., None] == kinks).any(-1) & (lower < upper)[:, None]
        inner = torch.nextafter(s, (low / 2 + high / 2)[:, None].expand_as(s))
        return facts.derivative(torch.where(on_kink, inner, s))

    gaps = []
    for measure, (bound_low, bound_high) in zip((facts.function, slope, secant), ranges, strict=True):
        gap = 0.0
        for sign, bound in ((1.0, bound_low), (-1.0, -bound_high)):
            best = _least(lambda s, sign=sign, measure=measure: sign * measure(s), facts, at, low, high)
            if measure is secant:
                # The limits s -> at: one-sided derivatives, but no slope beyond a jump.
                inner = facts.derivative(at.nextafter(torch.full_like(at, math.inf)))
                jump = (at[:, None] == at.new_tensor([b.position for b in facts.breakpoints if b.order < 0])).any(1)
                for inside, limit in (
                    ((lower < at) & (at <= upper), facts.derivative(at)),
                    ((lower <= at) & (at < upper) & ~jump, inner),
                ):
                    best = torch.where(inside, torch.minimum(best, sign * limit), best)
            # Not compared: a kink alone, where both derivatives count; `at` an ulp from a jump, whose limit no float64
            # reaches, or so near it that the rounding of curved pieces counts; where brute force overflows.
            skipped = far | overflow | (lower == upper) & (lower[:, None] == kinks).any(1)
            jumps = at.new_tensor([b.position for b in facts.breakpoints if b.order < 0] or [math.nan])
            gap_to_jump = (at[:, None] - jumps).abs()
            skipped |= ((gap_to_jump > 0) & (gap_to_jump < 1e-9) if steps else gap_to_jump < 1e-5).any(1)
            bounded = bound.isfinite() & (best.abs() < 1e290) & (at.abs() < 1e290) & ~skipped
            distance = torch.where(bounded, (best - bound) / bound.abs().clamp(min=1), 0.0)
            gap = max(gap, float(distance.max()))
        gaps.append(gap)
    return gaps


def _least(measure, facts, at, low, high, rounds=7):
    """The least value on the best of a grid of some 400 points, refined around it."""
    marks = special_points(facts)
    turns = [*(b.position for b in facts.breakpoints), *facts.value_turns, *facts.slope_turns, 0.0]
    core = min(turns) - 6 * width(facts), max(turns) + 6 * width(facts)
    share = torch.cat([torch.linspace(0, 1, 65, dtype=torch.float64), 10.0 ** torch.arange(-16, -1)])
    share = torch.cat([share, 1 - 10.0 ** torch.arange(-16, -1)])
    near = width(facts) * 10.0 ** torch.arange(-16, 2).double()
    near = torch.cat([end[:, None] + side * near for end in (low, high, at) for side in (-1, 1)], 1)
    if facts.period:
        wave = facts.period * torch.linspace(0, 1, 129, dtype=torch.float64)
        turns = low.new_tensor([*facts.value_turns, *facts.slope_turns])
        for end in (low, high, at):
            after = end[:, None] + (turns - end[:, None]) % facts.period
            near = torch.cat([near, after, after - facts.period], 1)
        near = torch.cat([near, *(end[:, None] + side * wave for end in (low, high, at) for side in (-1, 1))], 1)
    fixed = torch.cat([marks, torch.linspace(*core, 257, dtype=torch.float64)])
    grid = torch.cat([low[:, None] * (1 - share) + high[:, None] * share, near, fixed.expand(len(at), -1)], 1)
    best = torch.full_like(low, math.inf)
    for _ in range(rounds):
        grid = torch.minimum(torch.maximum(grid, low[:, None]), high[:, None]).sort(dim=1).values
        # Points met before go to the end, where they do not hide the neighbours of the best one.
        again = torch.cat([torch.zeros_like(grid[:, :1], dtype=torch.bool), grid[:, 1:] == grid[:, :-1]], 1)
        grid = grid.masked_fill(again, math.inf).sort(dim=1).values
        values = measure(grid).nan_to_num(math.inf, math.inf, -math.inf).masked_fill(grid.isinf(), math.inf)
        k = values.argmin(dim=1, keepdim=True)
        best = torch.minimum(best, values.gather(1, k).squeeze(1))
        offsets = torch.tensor([-8, -4, -2, -1, 0, 1, 2, 4, 8])
        around = grid.gather(1, (k + offsets).clamp(0, grid.shape[1] - 1))
        around = torch.where(around.isinf(), grid.gather(1, k), around)
        steps = torch.arange(8) / 8
        start, stop = around[:, :-1, None], around[:, 1:, None]
        grid = torch.cat([(start * (1 - steps) + stop * steps).flatten(1), around[:, -1:]], 1)
    return best


def _scale(a, b):
    """Keeps a difference of huge numbers finite, and of denormals exact."""
    return torch.where(torch.maximum(a.abs(), b.abs()) > 1e290, 2.0**-10, 1.0).double()


def _pick(g, choices):
    which = torch.randint(len(choices), (len(choices[0]),), generator=g)
    return torch.stack(choices).gather(0, which[None]).squeeze(0)
