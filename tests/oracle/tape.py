"""Reverse-mode differentiation over NumPy arrays in float64: a Var remembers its parents and, for
each, the vector-Jacobian product. Constants are plain arrays; what depends on no Var that wants a
gradient records nothing. Small and slow on purpose: it is the oracle, not the product.
"""
import itertools
import math

import numpy as np

_order = itertools.count()


def _fit(g, shape):
    """Sums a gradient over the axes along which its operand was broadcast."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    wide = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=wide, keepdims=True) if wide else g


def _swap(a):
    return np.swapaxes(a, -1, -2)


class Var:
    __array_priority__ = 100  # array * Var must become Var.__rmul__

    def __init__(self, v, parents=(), want=False):
        self.v = np.asarray(v, np.float64)
        self.parents = [(p, f) for p, f in parents if p.want]
        self.want = want or bool(self.parents)
        self.g = None
        self.id = next(_order)

    shape = property(lambda self: self.v.shape)

    def __add__(self, o):
        o = const(o)
        return Var(self.v + o.v, [(self, lambda g: _fit(g, self.shape)),
                                  (o, lambda g: _fit(g, o.shape))])

    def __mul__(self, o):
        o = const(o)
        return Var(self.v * o.v, [(self, lambda g: _fit(g * o.v, self.shape)),
                                  (o, lambda g: _fit(g * self.v, o.shape))])

    def __pow__(self, k):  # k is a number
        return Var(self.v ** k, [(self, lambda g: g * k * self.v ** (k - 1))])

    def __matmul__(self, o):
        o = const(o)
        return Var(self.v @ o.v, [(self, lambda g: _fit(g @ _swap(o.v), self.shape)),
                                  (o, lambda g: _fit(_swap(self.v) @ g, o.shape))])

    def __rmatmul__(self, o):
        return const(o) @ self

    def __neg__(self):
        return self * -1.0

    def __sub__(self, o):
        return self + -const(o)

    def __rsub__(self, o):
        return const(o) - self

    def __truediv__(self, o):
        return self * const(o) ** -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __getitem__(self, at):
        def back(g):
            d = np.zeros(self.shape)
            np.add.at(d, at, g)  # an index may occur twice (embedding)
            return d
        return Var(self.v[at], [(self, back)])

    def reshape(self, *shape):
        return Var(self.v.reshape(*shape), [(self, lambda g: g.reshape(self.shape))])

    def transpose(self, *axes):
        axes = axes or tuple(range(self.v.ndim))[::-1]
        return Var(self.v.transpose(axes), [(self, lambda g: g.transpose(np.argsort(axes)))])

    T = property(lambda self: self.transpose())

    def sum(self, axis=None):  # the axis stays, with size 1
        return Var(self.v.sum(axis=axis, keepdims=True),
                   [(self, lambda g: np.broadcast_to(g, self.shape))])

    def mean(self, axis=None):
        s = self.sum(axis)
        return s * (s.v.size / self.v.size)

    def max(self, axis):  # the gradient goes to the first maximum
        best = np.expand_dims(self.v.argmax(axis), axis)
        def back(g):
            d = np.zeros(self.shape)
            np.put_along_axis(d, best, g, axis)
            return d
        return Var(np.take_along_axis(self.v, best, axis), [(self, back)])

    def backward(self):
        assert self.v.size == 1
        seen, stack = {}, [self]
        while stack:
            n = stack.pop()
            if n.id not in seen:
                seen[n.id] = n
                n.g = np.zeros(n.shape)
                stack += [p for p, _ in n.parents]
        self.g = np.ones(self.shape)
        for i in sorted(seen, reverse=True):
            for p, f in seen[i].parents:
                p.g = p.g + f(seen[i].g)


def const(x):
    return x if isinstance(x, Var) else Var(x)


def param(x):
    return Var(np.array(x, np.float64), want=True)


def concat(parts, axis):
    parts = [const(p) for p in parts]
    ends = np.cumsum([p.shape[axis] for p in parts])
    def cut(i):
        lo = 0 if i == 0 else ends[i - 1]
        return lambda g: np.take(g, np.arange(lo, ends[i]), axis)
    return Var(np.concatenate([p.v for p in parts], axis),
               [(p, cut(i)) for i, p in enumerate(parts)])


def _unary(f, df):
    """f(x) and its derivative df(x, y), y = f(x)."""
    def op(x):
        x = const(x)
        y = f(x.v)
        return Var(y, [(x, lambda g: g * df(x.v, y))])
    return op


_erf = np.vectorize(math.erf, otypes=[np.float64])
exp = _unary(np.exp, lambda x, y: y)
log = _unary(np.log, lambda x, y: 1 / x)
tanh = _unary(np.tanh, lambda x, y: 1 - y * y)
erf = _unary(_erf, lambda x, y: 2 / math.sqrt(math.pi) * np.exp(-x * x))
absolute = _unary(np.abs, lambda x, y: np.sign(x))
relu = _unary(lambda x: np.maximum(x, 0), lambda x, y: (x > 0) * 1.0)
sigmoid = _unary(lambda x: 0.5 * (1 + np.tanh(0.5 * x)), lambda x, y: y * (1 - y))


def softmax(x, axis):
    e = exp(x - x.v.max(axis=axis, keepdims=True))  # the shift cancels, so it is a constant
    return e / e.sum(axis)


def logsumexp(x, axis):
    m = x.v.max(axis=axis, keepdims=True)
    return log(exp(x - m).sum(axis)) + m
