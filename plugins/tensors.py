"""Tensors: types and shapes, indexing, joining, arithmetic.

Small pairs of an expression and its result, in the order of the document's three chapters: what a
tensor is (2-1), its structure (4-1), arithmetic (4-2). Nothing is trained here. The pairs are data,
one line each if they fit; to find out what a function does, look it up in the tables below.

Source: 20-days, chapters 2-1, 4-1 and 4-2.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, tensor

from refimpl import Erratum, Exact, Example, Failure, hookimpl


def after_seed_0(draw: Callable[[], Tensor]) -> Tensor:
    """``draw()`` with torch's generator at seed 0; its state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return draw()


def parts(result: tuple[Tensor, ...]) -> list:
    """A result of several tensors, such as values and indices, as lists."""
    return [part.tolist() for part in result]


def types(*tensors: Tensor) -> list[str]:
    """The dtype of each tensor."""
    return [str(t.dtype) for t in tensors]


def shape(t: Tensor) -> tuple[int, ...]:
    """The shape as a plain tuple."""
    return tuple(t.shape)


# --- chapter 2-1: what a tensor is ---------------------------------------------------------------

VECTOR = [1.0, 2.0, 3.0, 4.0]
MATRIX = [[1.0, 2.0], [3.0, 4.0]]
CUBE = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]


def array_changed() -> tuple[list, list]:
    """An array and the tensor made from it, after 1 is added to the array."""
    array = np.zeros(3)
    shared = torch.from_numpy(array)
    np.add(array, 1, out=array)
    return array.tolist(), shared.tolist()


def tensor_changed(made_from: Callable[[Tensor], Tensor]) -> tuple[list, list]:
    """A tensor, and the array of what is made from it, after 1 is added to the tensor."""
    t = torch.zeros(3)
    array = made_from(t).numpy()
    t.add_(1)
    return t.tolist(), array.tolist()


def made_contiguous_and_viewed() -> Tensor:
    """A transpose made contiguous and viewed; −1 where ``reshape`` gives anything else."""
    transposed = torch.arange(12).view(2, 6).t()
    viewed = transposed.contiguous().view(3, 4)
    return torch.where(viewed == transposed.reshape(3, 4), viewed, -1)


CHAPTER_2_1 = (
    Exact(
        "types inferred from 1, 2.0 and True",
        lambda: types(tensor(1), tensor(2.0), tensor(True)),
        ["torch.int64", "torch.float32", "torch.bool"],
    ),
    Exact(
        "types asked for",
        lambda: types(tensor(1, dtype=torch.int32), tensor(2.0, dtype=torch.double)),
        ["torch.int32", "torch.float64"],
    ),
    Exact(
        "types of the typed constructors",
        lambda: types(torch.IntTensor(1), torch.Tensor(np.array(2.0)), torch.BoolTensor([1, 0])),
        ["torch.int32", "torch.float32", "torch.bool"],
    ),
    Exact(
        "types of two names",
        lambda: types(
            *(tensor(1, dtype=t) for t in (torch.double, torch.float, torch.long, torch.int))
        ),
        ["torch.float64", "torch.float32", "torch.int64", "torch.int32"],
    ),
    Exact("Tensor of an array", lambda: torch.Tensor(np.array(2.0)).item(), 2.0),
    Exact(
        "BoolTensor of an array",
        lambda: torch.BoolTensor(np.array([1, 0, 2, 0])).tolist(),
        [True, False, True, False],
    ),
    Exact(
        "types converted",
        lambda: types(
            tensor(1).float(), tensor(1).type(torch.float), tensor(1).type_as(tensor(2.0))
        ),
        ["torch.float32", "torch.float32", "torch.float32"],
    ),
    Exact(
        "dimensions: the depth of the brackets",
        lambda: [tensor(t).dim() for t in (True, VECTOR, MATRIX, CUBE, [CUBE, CUBE])],
        [0, 1, 2, 3, 4],
    ),
    Exact("size of a scalar", lambda: tuple(tensor(True).size()), ()),
    Exact(
        "types of 8, 16 and 64 bits",
        lambda: types(
            tensor(1, dtype=torch.int8),
            tensor(1, dtype=torch.uint8),
            tensor(1, dtype=torch.int16),
            tensor(1.0, dtype=torch.float16),
        ),
        ["torch.int8", "torch.uint8", "torch.int16", "torch.float16"],
    ),
    Exact("size of a vector", lambda: tuple(tensor(VECTOR).size()), (4,)),
    Exact("size of a matrix", lambda: tuple(tensor(MATRIX).size()), (2, 2)),
    Exact("size of three rows of two", lambda: tuple(tensor(TALL).size()), (3, 2)),
    Exact(
        "view",
        lambda: torch.arange(12).view(3, 4),
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
    ),
    Exact(
        "view with one length left open",
        lambda: torch.arange(12).view(4, -1),
        [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]],
    ),
    Exact(
        "a transpose is contiguous", lambda: torch.arange(12).view(2, 6).t().is_contiguous(), False
    ),
    Exact(
        "view of a transpose made contiguous",
        made_contiguous_and_viewed,
        [[0, 6, 1, 7], [2, 8, 3, 9], [4, 10, 5, 11]],
    ),
    Exact(
        "reshape where view cannot",
        lambda: torch.arange(12).view(2, 6).t().reshape(3, 4),
        [[0, 6, 1, 7], [2, 8, 3, 9], [4, 10, 5, 11]],
    ),
    Exact("type of from_numpy", lambda: types(torch.from_numpy(np.zeros(3))), ["torch.float64"]),
    Exact("from_numpy shares memory", array_changed, ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])),
    Exact(
        "numpy() shares memory",
        lambda: tensor_changed(lambda t: t),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
    ),
    Exact(
        "clone() does not",
        lambda: tensor_changed(torch.clone),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
    ),
    Exact("type of item()", lambda: type(tensor(1.0).item()).__name__, "float"),
    Exact("type of tolist()", lambda: type(tensor(MATRIX).tolist()).__name__, "list"),
)

# --- chapter 4-1: structure ----------------------------------------------------------------------


def digits() -> Tensor:
    """The document's table t: ⌊10·rand(5, 5)⌋ after seed 0."""
    return after_seed_0(lambda: torch.floor(10 * torch.rand(5, 5)).int())


def scores() -> Tensor:
    """The document's marks, drawn next: 4 classes, 10 pupils in each, 7 subjects."""

    def draw() -> Tensor:
        torch.rand(5, 5)
        return torch.floor(100 * torch.rand(4, 10, 7)).int()

    return after_seed_0(draw)


PRINTED_SCORES = """
55 95 3 18 37 30 93 17 26 15 3 20 92 72 74 52 24 58 3 13 24 81 79 27 48 81 99 69 56 83 20 59 11
15 24 72 70 20 65 77 43 51 61 81 98 11 31 69 91 93 94 59 6 54 18 3 94 88 0 59 41 41 27 69 20 68
75 85 68 0

17 74 60 10 21 97 83 28 37 2 49 12 11 47 57 29 79 19 95 84 7 37 52 57 61 69 52 25 73 2 20 37 25
32 9 39 60 17 47 85 44 51 45 60 81 97 81 97 46 5 26 84 49 25 11 3 7 39 77 77 1 81 10 39 29 40 40
5 6 42

50 27 68 4 46 93 29 95 68 4 81 44 27 89 9 55 39 85 63 74 67 37 39 8 77 89 84 14 52 14 22 20 67
20 48 52 82 12 15 20 84 32 92 68 56 49 40 56 38 49 56 10 23 90 9 46 99 68 51 6 74 14 35 33 42 50
91 56 94 80

18 72 14 28 64 66 87 33 50 75 1 86 8 50 41 23 56 91 35 20 31 0 72 25 16 21 78 76 88 68 33 36 64
91 63 26 26 2 60 21 5 93 17 44 64 51 16 9 89 58 91 33 64 38 47 19 66 65 48 38 19 84 12 70 33 25
58 24 61 59
"""


def printed_scores() -> np.ndarray:
    """All 280 marks as they are printed."""
    return np.array(PRINTED_SCORES.split(), dtype=int).reshape(4, 10, 7)


def image() -> Tensor:
    """The document's image: 255·rand(1, 3, 3, 2) after seed 0, as integers."""
    return after_seed_0(lambda: (255 * torch.rand(1, 3, 3, 2)).int())


def take_three_marks() -> Tensor:
    """``take`` indexes the flattened table: class 0, pupil 0, subject 0; 2, 4, 1; 3, 9, 6."""
    return scores().take(tensor([0, 2 * 70 + 4 * 7 + 1, 3 * 70 + 9 * 7 + 6]))


def row_set_to_zero() -> Tensor:
    """Elements of a leaf are changed through ``data``, which autograd does not record."""
    x = tensor(MATRIX, requires_grad=True)
    x.data[1, :] = tensor([0.0, 0.0])
    return x


def normals_further_along() -> list[float]:
    """The document's two tables of normal numbers, after seed 0 and 184 uniform numbers.

    The first number of the first table is missing: it was left over from an earlier draw.
    """

    def draw() -> Tensor:
        torch.rand(184)
        return torch.cat([torch.randn(8), 5 * torch.randn(9) + 2])

    return after_seed_0(draw).tolist()


def permutation_further_along() -> Tensor:
    """The document's permutation of 0 … 19, after seed 0 and 357 uniform numbers."""

    def draw() -> Tensor:
        torch.rand(357)
        return torch.randperm(20)

    return after_seed_0(draw)


MARKS = [[55, 95, 3], [81, 79, 60]]
A, B, C = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], [[9.0, 10.0], [11.0, 12.0]]


STACKED = [[[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]], [[3.0, 4.0], [7.0, 8.0], [11.0, 12.0]]]
"""The three along axis 1."""


def abc() -> list[Tensor]:
    """Three tables to put together."""
    return [tensor(A), tensor(B), tensor(C)]


CREATION = (
    Exact("tensor", lambda: tensor([1, 2, 3], dtype=torch.float), [1.0, 2.0, 3.0]),
    Exact("arange", lambda: torch.arange(1, 10, step=2), [1, 3, 5, 7, 9]),
    Exact(
        "linspace",
        lambda: torch.linspace(0.0, 2 * 3.14, 10),
        [0.0, 0.6978, 1.3956, 2.0933, 2.7911, 3.4889, 4.1867, 4.8844, 5.5822, 6.28],
        digits=4,
    ),
    Exact("zeros", lambda: torch.zeros(3, 3), [[0.0] * 3] * 3),
    Exact("ones", lambda: torch.ones((3, 3), dtype=torch.int), [[1] * 3] * 3),
    Exact("zeros_like", lambda: torch.zeros_like(torch.ones(3, 3)), [[0.0] * 3] * 3),
    Exact(
        "zeros_like of another type",
        lambda: types(torch.zeros_like(torch.ones(3, 3, dtype=torch.int), dtype=torch.float)),
        ["torch.float32"],
    ),
    Exact("fill_", lambda: torch.fill_(torch.zeros(3, 3), 5), [[5.0] * 3] * 3),
    Exact(
        "10·rand(5) after seed 0",
        lambda: after_seed_0(lambda: 10 * torch.rand(5)),
        [4.9626, 7.6822, 0.8848, 1.3203, 3.0742],
        digits=4,
    ),
    Exact(
        "the normal numbers printed come further along in the stream of seed 0",
        normals_further_along,
        [
            0.2459, -0.1312, -0.1785, -0.5959, 0.2739, 0.5679, -0.6731, -1.2095,
            8.7204, 13.9161, -0.8323, -3.7681, -10.5115, 6.3778, -11.3628, 1.8433, 4.4939,
        ],
        digits=4,
    ),
    Exact(
        "so does the permutation",
        permutation_further_along,
        [5, 15, 19, 10, 7, 17, 0, 4, 12, 16, 14, 13, 1, 3, 9, 6, 18, 2, 8, 11],
    ),
    Exact("eye", lambda: torch.eye(3, 3), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    Exact("diag", lambda: torch.diag(tensor([1, 2, 3])), [[1, 0, 0], [0, 2, 0], [0, 0, 3]]),
)  # fmt: skip

INDEXING = (
    Exact(
        "⌊10·rand(5, 5)⌋ after seed 0",
        digits,
        [[4, 7, 0, 1, 3], [6, 4, 8, 4, 6], [3, 4, 0, 1, 2], [5, 6, 8, 1, 2], [6, 9, 3, 8, 4]],
    ),
    Exact("first row", lambda: digits()[0], [4, 7, 0, 1, 3]),
    Exact("last row", lambda: digits()[-1], [6, 9, 3, 8, 4]),
    Exact("row 1, column 3", lambda: [digits()[1, 3].item(), digits()[1][3].item()], [4, 4]),
    Exact(
        "rows 1 to 3",
        lambda: digits()[1:4, :],
        [[6, 4, 8, 4, 6], [3, 4, 0, 1, 2], [5, 6, 8, 1, 2]],
    ),
    Exact("rows 1 to 3, every other column", lambda: digits()[1:4, :4:2], [[6, 8], [3, 0], [5, 8]]),
    Exact("a row set through data", row_set_to_zero, [[1.0, 2.0], [0.0, 0.0]]),
    Exact(
        "dots for all other dimensions",
        lambda: torch.arange(27).view(3, 3, 3)[..., 1],
        [[1, 4, 7], [10, 13, 16], [19, 22, 25]],
    ),
    Exact(
        "index_select of pupils",
        lambda: scores().index_select(1, tensor([0, 5, 9]))[0],
        [[55, 95, 3, 18, 37, 30, 93], [72, 70, 20, 65, 77, 43, 51], [69, 20, 68, 75, 85, 68, 0]],
    ),
    Exact(
        "index_select of pupils and subjects",
        lambda: scores().index_select(1, tensor([0, 5, 9])).index_select(2, tensor([1, 3, 6])),
        [
            [[95, 18, 93], [70, 65, 51], [20, 75, 0]],
            [[74, 10, 83], [60, 47, 51], [29, 40, 42]],
            [[27, 4, 29], [82, 15, 32], [42, 91, 80]],
            [[72, 28, 87], [26, 60, 93], [33, 58, 59]],
        ],
    ),
    Exact("all 280 marks", scores, printed_scores().tolist()),
    Exact("size of the marks", lambda: [*scores().shape], [4, 10, 7]),
    Exact(
        "index_select of a class",
        lambda: torch.equal(scores().index_select(0, tensor([0]))[0], scores()[0]),
        True,
    ),
    Exact("take", take_three_marks, [55, 14, 59]),
    Exact(
        "gather, one of each row",
        lambda: tensor(MARKS).gather(1, tensor([[1], [0]])),
        [[95], [81]],
    ),
    Exact("masked_select", lambda: tensor(MARKS).masked_select(tensor(MARKS) >= 80), [95, 81]),
    Exact("nonzero", lambda: torch.nonzero(tensor(MARKS) >= 80), [[0, 1], [1, 0]]),
    Exact(
        "where",
        lambda: torch.where(tensor(MARKS) > 60, tensor(1), tensor(0)),
        [[0, 1, 0], [1, 1, 0]],
    ),
    Exact(
        "index_fill",
        lambda: tensor(MARKS).index_fill(dim=1, index=tensor([0, 2]), value=100),
        [[100, 95, 100], [100, 79, 100]],
    ),
    Exact(
        "masked_fill",
        lambda: tensor(MARKS).masked_fill(tensor(MARKS) < 60, 60),
        [[60, 95, 60], [81, 79, 60]],
    ),
)

SHAPES = (
    Exact(
        "255·rand(1, 3, 3, 2) after seed 0",
        image,
        [[[[126, 195], [22, 33], [78, 161]], [[124, 228], [116, 161], [88, 102]],
          [[5, 43], [74, 132], [177, 204]]]],
    ),
    Exact(
        "view as a table",
        lambda: image().view(3, 6),
        [[126, 195, 22, 33, 78, 161], [124, 228, 116, 161, 88, 102], [5, 43, 74, 132, 177, 204]],
    ),
    Exact(
        "reshape undoes view",
        lambda: torch.equal(torch.reshape(image().view(3, 6), (1, 3, 3, 2)), image()),
        True,
    ),
    Exact("squeeze", lambda: torch.squeeze(tensor([[1.0, 2.0]])), [1.0, 2.0]),
    Exact("unsqueeze", lambda: torch.unsqueeze(tensor([1.0, 2.0]), dim=0), [[1.0, 2.0]]),
    Exact(
        "transpose twice: channels from last to second",
        lambda: shape(torch.zeros(10, 6, 5, 4).transpose(1, 2).transpose(1, 3)),
        (10, 4, 6, 5),
    ),
    Exact(
        "t() is transpose(0, 1)",
        lambda: torch.equal(tensor(MARKS).t(), torch.transpose(tensor(MARKS), 0, 1)),
        True,
    ),
    Exact("t()", lambda: tensor([[1, 2, 3], [4, 5, 6]]).t(), [[1, 4], [2, 5], [3, 6]]),
)  # fmt: skip

JOINING = (
    Exact("cat by rows", lambda: torch.cat(abc(), dim=0), [*A, *B, *C]),
    Exact("stack in front", lambda: torch.stack(abc(), dim=0), [A, B, C]),
    Exact(
        "cat by columns",
        lambda: torch.cat(abc(), dim=1),
        [[1.0, 2.0, 5.0, 6.0, 9.0, 10.0], [3.0, 4.0, 7.0, 8.0, 11.0, 12.0]],
    ),
    Exact(
        "stack in the middle",
        lambda: torch.stack(abc(), dim=1),
        STACKED,
    ),
    Exact(
        "axis is another word for dim",
        lambda: torch.stack(abc(), axis=1).tolist() == STACKED,
        True,
    ),
    Exact("split in equal parts", lambda: parts(torch.cat(abc()).split(2)), [A, B, C]),
    Exact(
        "split in given parts",
        lambda: parts(torch.cat(abc()).split([4, 1, 1])),
        [[*A, *B], [C[0]], [C[1]]],
    ),
)

# --- chapter 4-2: arithmetic ---------------------------------------------------------------------

NAN = float("nan")
X, Y = [[1.0, 2.0], [-3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]
TENTHS, SPREAD = [2.6, -2.7], [0.9, -0.8, 100.0, -20.0, 0.7]

ELEMENTWISE = (
    # x is [[1, 2], [−3, 4]] and y [[5, 6], [7, 8]].
    Exact("x + y", lambda: tensor(X) + tensor(Y), [[6.0, 8.0], [4.0, 12.0]]),
    Exact("x − y", lambda: tensor(X) - tensor(Y), [[-4.0, -4.0], [-10.0, -4.0]]),
    Exact("x × y", lambda: tensor(X) * tensor(Y), [[5.0, 12.0], [-21.0, 32.0]]),
    Exact("x / y", lambda: tensor(X) / tensor(Y), [[0.2, 0.3333], [-0.4286, 0.5]], digits=4),
    Exact("x to the power of 2", lambda: tensor(X) ** 2, [[1.0, 4.0], [9.0, 16.0]]),
    Exact(
        "x to the power of one half",
        lambda: tensor(X) ** 0.5,
        [[1.0, 1.4142], [NAN, 2.0]],
        digits=4,
    ),
    Exact("square root of x", lambda: torch.sqrt(tensor(X)), [[1.0, 1.4142], [NAN, 2.0]], digits=4),
    Exact("x % 3", lambda: tensor(X) % 3, [[1.0, 2.0], [0.0, 1.0]]),
    Exact("x // 3", lambda: tensor(X) // 3, [[0.0, 0.0], [-1.0, 1.0]]),
    Exact("x ≥ 2", lambda: tensor(X) >= 2, [[False, True], [False, True]]),
    Exact(
        "x ≥ 2 and x ≤ 3",
        lambda: (tensor(X) >= 2) & (tensor(X) <= 3),
        [[False, True], [False, False]],
    ),
    Exact(
        "x ≥ 2 or x ≤ 3", lambda: (tensor(X) >= 2) | (tensor(X) <= 3), [[True, True], [True, True]]
    ),
    Exact(
        "ge and eq are ≥ and =",
        lambda: [
            torch.equal(torch.ge(tensor(X), 2), tensor(X) >= 2),
            torch.equal(torch.eq(tensor(X), 5), tensor(X) == 5),
        ],
        [True, True],
    ),
    Exact("x = 5", lambda: tensor(X) == 5, [[False, False], [False, False]]),
    Exact(
        "sum of three",
        lambda: tensor([1.0, 8.0]) + tensor([5.0, 6.0]) + tensor([6.0, 7.0]),
        [12.0, 21.0],
    ),
    Exact("larger of two", lambda: torch.max(tensor([1.0, 8.0]), tensor([5.0, 6.0])), [5.0, 8.0]),
    Exact("smaller of two", lambda: torch.min(tensor([1.0, 8.0]), tensor([5.0, 6.0])), [1.0, 6.0]),
    Exact("round", lambda: torch.round(tensor(TENTHS)), [3.0, -3.0]),
    Exact("floor", lambda: torch.floor(tensor(TENTHS)), [2.0, -3.0]),
    Exact("ceil", lambda: torch.ceil(tensor(TENTHS)), [3.0, -2.0]),
    Exact("trunc", lambda: torch.trunc(tensor(TENTHS)), [2.0, -2.0]),
    Exact("fmod: sign of x", lambda: torch.fmod(tensor(TENTHS), 2), [0.6, -0.7], digits=4),
    Exact("remainder: sign of 2", lambda: torch.remainder(tensor(TENTHS), 2), [0.6, 1.3], digits=4),
    Exact(
        "clamp on both sides",
        lambda: torch.clamp(tensor(SPREAD), min=-1, max=1),
        [0.9, -0.8, 1.0, -1.0, 0.7],
        digits=4,
    ),
    Exact(
        "clamp from above",
        lambda: torch.clamp(tensor(SPREAD), max=1),
        [0.9, -0.8, 1.0, -20.0, 0.7],
        digits=4,
    ),
)


def one_to_nine() -> Tensor:
    """1, 2, …, 9, as floats."""
    return torch.arange(1, 10).float()


SHUFFLED = [[9.0, 7.0, 8.0], [1.0, 3.0, 2.0], [5.0, 6.0, 4.0]]

ALONG_AN_AXIS = (
    Exact("sum", lambda: one_to_nine().sum(), 45.0),
    Exact("mean", lambda: one_to_nine().mean(), 5.0),
    Exact("max", lambda: one_to_nine().max(), 9.0),
    Exact("min", lambda: one_to_nine().min(), 1.0),
    Exact("prod", lambda: one_to_nine().prod(), 362880.0),
    Exact("std", lambda: one_to_nine().std(), 2.7386, digits=4),
    Exact("var", lambda: one_to_nine().var(), 7.5, digits=4),
    Exact("median", lambda: one_to_nine().median(), 5.0),
    Exact(
        "max of each column, and where",
        lambda: parts(one_to_nine().view(3, 3).max(dim=0)),
        [[7.0, 8.0, 9.0], [2, 2, 2]],
    ),
    Exact(
        "max of each row, and where",
        lambda: parts(one_to_nine().view(3, 3).max(dim=1)),
        [[3.0, 6.0, 9.0], [2, 2, 2]],
    ),
    Exact("cumsum", lambda: torch.arange(1, 10).cumsum(0), [1, 3, 6, 10, 15, 21, 28, 36, 45]),
    Exact(
        "cumprod",
        lambda: torch.arange(1, 10).cumprod(0),
        [1, 2, 6, 24, 120, 720, 5040, 40320, 362880],
    ),
    Exact(
        "cummax, and where",
        lambda: parts(torch.arange(1, 10).cummax(0)),
        [[1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ),
    Exact("cummin, and where", lambda: parts(torch.arange(1, 10).cummin(0)), [[1] * 9, [0] * 9]),
    Exact(
        "topk by columns",
        lambda: parts(tensor(SHUFFLED).topk(2, dim=0)),
        [[[9.0, 7.0, 8.0], [5.0, 6.0, 4.0]], [[0, 0, 0], [2, 2, 2]]],
    ),
    Exact(
        "topk by rows",
        lambda: parts(tensor(SHUFFLED).topk(2, dim=1)),
        [[[9.0, 8.0], [3.0, 2.0], [6.0, 5.0]], [[0, 2], [1, 2], [1, 0]]],
    ),
    Exact(
        "sort by rows",
        lambda: parts(tensor(SHUFFLED).sort(dim=1)),
        [
            [[7.0, 8.0, 9.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
            [[1, 2, 0], [0, 2, 1], [2, 0, 1]],
        ],
    ),
)

TALL = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
TURNING = [[1.0, 2.0], [-5.0, 4.0]]


def eigenvectors_stretched() -> float:
    """The largest element of A·V − V·Λ in magnitude: A only scales its eigenvectors."""
    a = tensor(TURNING)
    values, vectors = torch.linalg.eig(a)
    return (a.to(vectors.dtype) @ vectors - vectors * values).abs().max().item()


def positive_below(vectors: Tensor) -> Tensor:
    """Eigenvectors in columns, (2, 2), each times ±1 so that its second number is positive.

    They have length 1 and that number is real; their sign is left to the build of LAPACK.
    """
    return vectors * vectors[1].real.sign()


def q_and_r() -> tuple[Tensor, Tensor]:
    """The QR decomposition of a square matrix."""
    return torch.linalg.qr(tensor(MATRIX))


def u_s_v() -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of a tall matrix: u (3, 2), s (2), v (2, 2)."""
    u, s, vh = torch.linalg.svd(tensor(TALL), full_matrices=False)
    return u, s, vh.t()


def svd_agrees() -> bool:
    """Whether the function of the document gives the same u, s and v."""
    return all(map(torch.equal, torch.svd(tensor(TALL)), u_s_v()))


MATRICES = (
    Exact(
        "matrix product",
        lambda: tensor([[1, 2], [3, 4]]) @ tensor([[2, 0], [0, 2]]),
        [[2, 4], [6, 8]],
    ),
    Exact(
        "matmul and mm are @",
        lambda: [
            torch.equal(product(tensor(A), tensor(B)), tensor(A) @ tensor(B))
            for product in (torch.matmul, torch.mm)
        ],
        [True, True],
    ),
    Exact("transpose", lambda: tensor(MATRIX).t(), [[1.0, 3.0], [2.0, 4.0]]),
    Exact("inverse", lambda: torch.inverse(tensor(MATRIX)), [[-2.0, 1.0], [1.5, -0.5]], digits=4),
    Exact("trace", lambda: torch.trace(tensor(MATRIX)), 5.0),
    Exact("norm", lambda: torch.norm(tensor(MATRIX)), 5.4772, digits=4),
    Exact("determinant", lambda: torch.det(tensor(MATRIX)), -2.0, digits=4),
    Exact(
        "eigenvalues",
        lambda: torch.linalg.eigvals(tensor(TURNING)),
        [2.5 + 2.7839j, 2.5 - 2.7839j],
        digits=4,
    ),
    Exact(
        "eigenvectors, if their second row is positive",
        lambda: torch.view_as_real(positive_below(torch.linalg.eig(tensor(TURNING))[1])),
        [[[0.2535, -0.4706], [0.2535, 0.4706]], [[0.8452, 0.0], [0.8452, 0.0]]],
        digits=4,
    ),
    Exact("A·V − V·Λ", eigenvectors_stretched, 0.0, digits=4),
    Exact("Q·R", lambda: torch.matmul(*q_and_r()), MATRIX, digits=4),
    Exact("Qᵀ·Q", lambda: q_and_r()[0].t() @ q_and_r()[0], [[1.0, 0.0], [0.0, 1.0]], digits=4),
    Exact("R below its diagonal", lambda: q_and_r()[1][1, 0].item(), 0.0),
    Exact("singular values", lambda: u_s_v()[1], [9.5255, 0.5143], digits=4),
    Exact(
        "singular vectors on the right",
        lambda: u_s_v()[2],
        [[-0.6196, -0.7849], [-0.7849, 0.6196]],
        digits=4,
    ),
    Exact(
        "singular vectors on the left",
        lambda: u_s_v()[0],
        [[-0.2298, 0.8835], [-0.5247, 0.2408], [-0.8196, -0.4019]],
        digits=4,
    ),
    Exact("torch.svd gives V as linalg.svd gives its transpose", svd_agrees, True),
    Exact(
        "U·S·Vᵀ",
        lambda: torch.linalg.multi_dot([u_s_v()[0], u_s_v()[1].diag(), u_s_v()[2].t()]),
        TALL,
        digits=4,
    ),
)

ROW, COLUMNS = [1, 2, 3], [[0, 0, 0], [1, 1, 1], [2, 2, 2]]

BROADCASTING = (
    Exact("table + row", lambda: tensor(COLUMNS) + tensor(ROW), [[1, 2, 3], [2, 3, 4], [3, 4, 5]]),
    Exact(
        "lengths after broadcasting, and NumPy's",
        lambda: [torch.broadcast_shapes((4, 1), (3,)), np.broadcast_shapes((4, 1), (3,))],
        [(4, 3), (4, 3)],
    ),
    Exact(
        "broadcast_tensors",
        lambda: parts(torch.broadcast_tensors(tensor(ROW), tensor(COLUMNS))),
        [[ROW, ROW, ROW], COLUMNS],
    ),
)

CHAPTER_4_1 = CREATION + INDEXING + SHAPES + JOINING
CHAPTER_4_2 = ELEMENTWISE + ALONG_AN_AXIS + MATRICES + BROADCASTING

# --- what does not hold --------------------------------------------------------------------------

FROM_THE_START = "torch>=1.5"
"""The version the document was written with: its code never gave what it prints."""

REMOVED = (AttributeError, RuntimeError)
"""What torch raises for a function that it no longer has, or of which it only has the name."""


def normals_as_printed() -> bool:
    """Whether the first row of normal numbers, after seed 0 and 5 uniform ones, is as printed."""

    def draw() -> Tensor:
        torch.rand(5)
        return torch.normal(mean=torch.zeros(3, 3), std=torch.ones(3, 3))

    return torch.allclose(after_seed_0(draw)[0], tensor([-1.3836, 0.2459, -0.1312]), atol=1e-4)


def permutation_as_printed() -> bool:
    """Whether a permutation, after seed 0, 5 uniform and 18 normal numbers, is as printed."""

    def draw() -> Tensor:
        torch.rand(5)
        torch.normal(mean=torch.zeros(3, 3), std=torch.ones(3, 3))
        torch.randn(3, 3)
        return torch.randperm(20)

    return after_seed_0(draw)[:5].tolist() == [5, 15, 19, 10, 7]


def int_tensor_is_five() -> bool:
    """Uninitialised memory may hold a five by chance, but not in a hundred places."""
    return all(t.item() == 5 for t in [torch.IntTensor(1) for _ in range(100)])


ERRATA = (
    Erratum(
        "torch.eig",
        says="torch.eig gives eigenvalues and eigenvectors as real tables",
        today="removed; torch.linalg.eig gives complex tensors",
        since="torch>=1.13",
        holds=lambda: torch.eig(tensor(TURNING), eigenvectors=True),
        raises=REMOVED,
    ),
    Erratum(
        "torch.qr",
        says="torch.qr gives Q and R",
        today="removed; torch.linalg.qr gives them",
        since="torch>=2.14",
        holds=lambda: torch.qr(tensor(MATRIX)),
        raises=REMOVED,
    ),
    Erratum(
        "normal numbers after seed 0",
        says="normal(zeros, ones) after seed 0 and rand(5) starts −1.3836, 0.2459, −0.1312",
        today="starts 0.5507, 0.2704, 0.6472; the generator was further on when it was printed",
        since=FROM_THE_START,
        holds=normals_as_printed,
    ),
    Erratum(
        "permutation after seed 0",
        says="randperm(20) next starts 5, 15, 19, 10, 7",
        today="starts 3, 17, 9, 19, 1; the generator was further on when it was printed",
        since=FROM_THE_START,
        holds=permutation_as_printed,
    ),
    Erratum(
        "IntTensor(1)",
        says="IntTensor(1) is the tensor [5]",
        today="1 is its length; its content is whatever the memory held",
        since=FROM_THE_START,
        holds=int_tensor_is_five,
    ),
    Erratum(
        "take",
        says="take of three positions gives a table of 3 × 7",
        today="gives the three marks; the output shown is another library's, of another tensor",
        since=FROM_THE_START,
        holds=lambda: shape(take_three_marks()) == (3, 7),
    ),
    Erratum(
        "shape of a scalar",
        says="the shape of tensor(True) is [4] (another edition; the one at hand prints [])",
        today="it is [], as its size() is",
        since=FROM_THE_START,
        holds=lambda: shape(tensor(True)) == (4,),
    ),
    Erratum(
        "array of data",
        says="t.data.numpy() has memory of its own, as t.clone().numpy() has",
        today="it shares the tensor's: after t.add_(1) the array is 1 too",
        since=FROM_THE_START,
        holds=lambda: tensor_changed(lambda t: t.data)[1] == [0.0, 0.0, 0.0],
    ),
    Erratum(
        "rows of a slice",
        says="a comment: t[1:4, :4:2] goes from row 1 to the last row, and to the last column",
        today="row 4 and column 4 are left out: (3, 2) of a table of (5, 5)",
        since=FROM_THE_START,
        holds=lambda: shape(digits()[1:4, :4:2]) == (4, 3),
    ),
    Erratum(
        "number of parts",
        says="split takes the number of equal parts",
        today="it takes the length of a part: six rows split by 2 are three parts",
        since=FROM_THE_START,
        holds=lambda: len(parts(torch.cat(abc()).split(2))) == 2,
    ),
    Erratum(
        "halves rounded",
        says="round rounds halves away from zero, as at school",
        today="it rounds them to the even neighbour: 2.5 to 2",
        since=FROM_THE_START,
        holds=lambda: torch.round(tensor(2.5)).item() == 3,
    ),
    Erratum(
        "sign of the remainder",
        says="remainder is never negative",
        today="it has the sign of the divisor: remainder(2.6, −2) is −1.4",
        since=FROM_THE_START,
        holds=lambda: torch.remainder(tensor(2.6), -2).item() >= 0,
    ),
    Erratum(
        "first eigenvalue",
        says="a comment gives the eigenvalue −2.5 + 2.7839j",
        today="it is 2.5 + 2.7839j, as the code beside it prints",
        since=FROM_THE_START,
        holds=lambda: torch.linalg.eigvals(tensor(TURNING))[0].real.item() < 0,
    ),
)


EXAMPLE = Example(
    name="tensors",
    title="Tensors: what they are, their structure, arithmetic",
    document="20-days",
    section="2-1, 4-1, 4-2",
    values=CHAPTER_2_1 + CHAPTER_4_1 + CHAPTER_4_2,
    failures=(
        Failure(
            "view of a transpose",
            lambda: torch.arange(12).view(2, 6).t().view(3, 4),
            RuntimeError,
            "view size is not compatible",
        ),
        Failure("a tensor of text", lambda: tensor(["hello"]), ValueError, "str"),
        Failure(
            "lengths that do not broadcast",
            lambda: torch.zeros(2, 3) + torch.zeros(2),
            RuntimeError,
            "must match",
        ),
        Failure(
            "inverse of integers",
            lambda: torch.inverse(tensor([[1, 2], [3, 4]])),
            RuntimeError,
            "floating point",
        ),
    ),
    errata=ERRATA,
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
