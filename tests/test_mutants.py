"""Do the proofs find defects? Each mutant is one, planted in a copy of the sources, with the proof that must find it.

Numbers go wrong in the simulator, machine code in the compilation. Where two threads race, a simulator that runs them
in turns may still give the right numbers: such mutants need the race detector of a virtual GPU
(``GPUPROP_TEST_DEVICE=cuda VGPU_CHECK=1``). Where two streams must wait for each other, it takes streams that really
are asynchronous (its ``VGPU_LAZY``). Without a virtual GPU both kinds are reported as skipped. All of them meet their
proofs in the background (`tests.conftest`).
"""

from __future__ import annotations

import os

import pytest

from gpuprop.measure.bench import sass
from tests.mutation import Mutant

KERNELS = "gpuprop_kernels"
TOGETHER = "tests/kernels/test_together.py::test_the_updates_of_two_networks"
BLOCK = "tests/kernels/test_block.py::test_the_updates_of_two_networks"
BLOCK_ORACLE = (
    "tests/kernels/test_cases.py::test_case[one block, one network: two hidden layers, dropout and penalties, float64]"
)
FORWARD, DELTA, GRADIENT, OUTPUT, UPDATE, TRAINING = (
    f"tests/kernels/test_{name}.py::test_" for name in ("forward", "delta", "gradient", "output", "update", "training")
)
TENSOR = "tests/kernels/test_tensor.py::test_"


def simulated(name: str, file: str, old: str, new: str, case: str) -> Mutant:
    """Return a mutant that a simulated test must find."""
    return Mutant(name, f"{KERNELS}/{file}", old, new, "simulator", case)


def compiled(name: str, file: str, old: str, new: str, case: str) -> Mutant:
    """Return a mutant whose machine code must violate a bound."""
    return Mutant(name, f"{KERNELS}/{file}", old, new, "compilation", case)


def raced(name: str, file: str, old: str, new: str, case: str) -> Mutant:
    """Return a mutant that only a race detector finds for sure."""
    return Mutant(name, f"{KERNELS}/{file}", old, new, "race detector", case)


def waited(name: str, file: str, old: str, new: str, case: str) -> Mutant:
    """Return a mutant that only streams in a random order find."""
    case = f"tests/gpu/test_streaming.py::test_{case}"
    return Mutant(name, f"gpuprop/backends/{file}", old, new, "lazy streams", case)


MUTANTS = [
    Mutant(
        "deltas from weights that have changed",
        "gpuprop/core/step.py",
        "        hidden_deltas(layers, part, accumulate=first > start)\n",
        "        layers.weights[-1][...] -= part.a[-2].T @ part.delta[-1]\n"
        "        hidden_deltas(layers, part, accumulate=first > start)\n",
        "simulator",
        "tests/test_step.py::test_deltas_are_formed_with_the_weights_as_they_were",
    ),
    # The multiply.
    simulated(
        "no barrier between storing a slab and reading it",
        "tile.py",
        "                put_b(shared, to_b, next_b)\n            sync()\n",
        "                put_b(shared, to_b, next_b)\n",
        FORWARD + "product_and_bias[(7, 17, 33)-8x8_2x2-float32]",
    ),
    simulated(
        "the last slab along k is left out",
        "tile.py",
        "        while k < k_end:\n            k = i32(k + depth)\n",
        "        while k < i32(k_end - depth):\n            k = i32(k + depth)\n",
        FORWARD + "product_and_bias[(7, 17, 33)-8x8_2x2-float32]",
    ),
    simulated(
        "both slabs lie in the same shared memory",
        "tile.py",
        "turn = i32(slabs)",
        "turn = i32(0)",
        FORWARD + "product_and_bias[(7, 17, 33)-8x8_2x2-float32]",
    ),
    simulated(
        "one slice of k is not added",
        "tile.py",
        "for q in range(slices - 1):",
        "for q in range(slices - 2):",
        FORWARD + "product_and_bias[(7, 17, 33)-8x8_2x2_sliced-float32]",
    ),
    simulated(
        "one k too many at the tail",
        "staging.py",
        "if not clear or at < k_end:",
        "if not clear or at <= k_end:",
        GRADIENT + "overwrite[17-8x8_2x2-float32]",
    ),
    simulated(
        "rows past the end of the batch",
        "tile.py",
        "        if row < n_rows:\n",
        "        if row <= n_rows:\n",
        FORWARD + "ragged_batch_leaves_the_rest",
    ),
    # The forward pass.
    simulated(
        "W transposed",
        "forward.py",
        "a_by_row=True, b_by_row=False",
        "a_by_row=True, b_by_row=True",
        FORWARD + "product_and_bias[(33, 7, 17)-8x8_2x2-float32]",
    ),
    simulated(
        "padding holds f(0)",
        "forward.py",
        "            acc[at + e] = value if column < n_out else zero\n        store(out",
        "            acc[at + e] = value\n        store(out",
        FORWARD + "activation[logistic-float32]",
    ),
    simulated(
        "rows of the data set in their own order",
        "staging.py",
        "ldg1(order, i32(start + row)) * ld",
        "i32(start + row) * ld",
        FORWARD + "gathered_rows[bytes-8x8_2x2-float32]",
    ),
    simulated(
        "the half of a sector is taken for all of it",
        "sectors.py",
        "half = k_end - last <= SECTOR // 2",
        "half = k_end - last < SECTOR // 2",
        FORWARD + "sectors_of_bytes[bytes-8x8_2x2-16]",
    ),
    simulated(
        "a slab is scaled as the one before it",
        "sectors.py",
        "held, taken, a, i32(deep_a + APART * taken))",
        "held, taken, a, deep_a)",
        FORWARD + "sectors_of_bytes[bytes_by_column-8x8_2x2-32]",
    ),
    simulated(
        "the scale is missed where rows are gathered",
        "tile.py",
        "acc[i] *= f\n",
        "acc[i] *= f / f\n",
        FORWARD + "gathered_rows[floats-8x8_2x2-float32]",
    ),
    # Dropout.
    simulated(
        "a stale mask",
        "dropout.py",
        "words = philox(u32(first >> 2), u32(row), layer, u32(step), key_0, key_1)",
        "words = philox(u32(first >> 2), u32(row), layer, u32(0), key_0, key_1)",
        FORWARD + "dropout[float32]",
    ),
    simulated(
        "the counter counts rows where it should count columns",
        "dropout.py",
        "words = philox(u32(first >> 2), u32(row), layer,",
        "words = philox(u32(row), u32(first >> 2), layer,",
        FORWARD + "dropout[float32]",
    ),
    simulated(
        "nine rounds of Philox",
        "dropout.py",
        "for _ in range(10):",
        "for _ in range(9):",
        UPDATE + "philox_known_answers[counter0-key0-words0]",
    ),
    simulated(
        "f' taken after dropout's scaling",
        "delta.py",
        "inner = source * ldg1(keep, keep_at) if rescale else source",
        "inner = source",
        DELTA + "dropout[tanh]",
    ),
    # The hidden delta.
    simulated(
        "no f'",
        "delta.py",
        "        return error * derivative(source)\n",
        "        return error\n",
        DELTA + "activation[tanh-float32]",
    ),
    simulated(
        "padding is not masked where f'(0) is not 0",
        "delta.py",
        "d = d if column < n_units else zero",
        "d = d if column < ld else zero",
        DELTA + "ragged_batch",
    ),
    simulated(
        "column sums without the block's last row of threads",
        "delta.py",
        "for y in range(down):",
        "for y in range(down - 1):",
        DELTA + "delta[(33, 7, 17)-8x8_2x2-float32]",
    ),
    simulated(
        "no barrier between the column sums' parts and their sum",
        "delta.py",
        "        sync()\n        column = t\n",
        "        column = t\n",
        DELTA + "delta[(7, 17, 33)-8x8_2x2-float32]",
    ),
    # The output layer.
    simulated(
        "no 1 / n in the output's delta",
        "head.py",
        "(weight * ldg1(scalars, i32(SCALARS * slot)))",
        "weight",
        OUTPUT + "head[softmax-categorical_cross_entropy-float32]",
    ),
    simulated(
        "loss and hits of rows past the batch count",
        "head.py",
        "weight = (ldg1(sample_weights, place) if weighted else one) if inside else zero",
        "weight = ldg1(sample_weights, place) if weighted else one\n        inside = True",
        OUTPUT + "head_ragged_batch",
    ),
    simulated(
        "the last of equal outputs wins",
        "rows.py",
        "if a > best:",
        "if a >= best:",
        OUTPUT + "first_of_equal_outputs_wins",
    ),
    simulated(
        "softmax without subtracting the peak",
        "rows.py",
        "total += exp(ld1(z, i32(at + column)) - peak)",
        "total += exp(ld1(z, i32(at + column)))",
        OUTPUT + "softmax_rows[float32]",
    ),
    simulated(
        "the loss of the first slot for every slot",
        "head.py",
        "st1(losses, i32(2 * (slot * grid_x() + block_x()) + t), total)",
        "st1(losses, i32(2 * block_x() + t), total)",
        OUTPUT + "head[softmax-categorical_cross_entropy-float32]",
    ),
    # Gradients and updates.
    simulated(
        "overwrites where it should accumulate",
        "finish.py",
        'accumulate = mode == "accumulate"',
        'accumulate = mode == "added"',
        GRADIENT + "accumulate_and_penalties",
    ),
    simulated(
        "accumulates where it should overwrite",
        "finish.py",
        'accumulate = mode == "accumulate"',
        'accumulate = mode != "slab"',
        GRADIENT + "overwrite[7-8x8_2x2-float32]",
    ),
    simulated(
        "the gradient misses the batch's last row",
        "gradient.py",
        "i32(k + part_rows)) if slabs else rows",
        "i32(k + part_rows)) if slabs else i32(rows - 1)",
        GRADIENT + "overwrite[7-8x8_2x2-float32]",
    ),
    simulated(
        "the bias gradient misses the last row of sums",
        "gradient.py",
        "    while row < rows:\n",
        "    while row < i32(rows - 1):\n",
        GRADIENT + "overwrite[7-8x8_2x2-float32]",
    ),
    simulated(
        "the parts of a split batch share a slab",
        "gradient.py",
        "parameters_at + block_y() * n_parameters",
        "parameters_at + 0 * n_parameters",
        GRADIENT + "split_batch[False-17]",
    ),
    simulated(
        "slabs are added in the wrong order",
        "update.py",
        "v = ld4(slabs, i32(z * n + o))",
        "v = ld4(slabs, i32((n_slabs - 1 - z) * n + o))",
        GRADIENT + "slabs_are_added_in_order",
    ),
    simulated(
        "penalties on biases",
        "finish.py",
        "        if not is_weight:\n            return g\n",
        "",
        GRADIENT + "accumulate_and_penalties",
    ),
    simulated(
        "weight decay on biases",
        "finish.py",
        "second if is_weight else zero",
        "second",
        UPDATE + "optimizer[adamw-float32]",
    ),
    simulated(
        "momentum has the wrong sign",
        "formulas/rules.py",
        "        return p + v, v, t\n",
        "        return p - v, v, t\n",
        UPDATE + "optimizer[momentum-float32]",
    ),
    simulated(
        "adam's second moment without the square",
        "formulas/rules.py",
        "(g * g)\n        return p - rate * (m / (sqrt(v) + epsilon)), m, v\n",
        "abs(g)\n        return p - rate * (m / (sqrt(v) + epsilon)), m, v\n",
        UPDATE + "optimizer[adam-float32]",
    ),
    simulated(
        "clips by the square of the norm",
        "update.py",
        "norm = sqrt(add(shared, total))",
        "norm = add(shared, total)",
        UPDATE + "clipping[0.5-float32]",
    ),
    simulated(
        "max-norm of too few rows",
        "max_norm.py",
        "for r in range(NORM_ROWS):",
        "for r in range(NORM_ROWS - 1):",
        UPDATE + "limit_incoming_norm[float32]",
    ),
    # Several networks in one launch.
    simulated(
        "a network takes the rows and the rate of its neighbour",
        "networks.py",
        "return i32(slot + block_z() * slots) if",
        "return slot if",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network multiplies with its neighbour's weights",
        "forward.py",
        "(weights, w_at, ldw), ldw, m0",
        "(weights, i32(0), ldw), ldw, m0",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network updates its neighbour's parameters and state",
        "gradient.py",
        "parameters_at = i32(parameters_at + w_at)",
        "parameters_at = i32(parameters_at)",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network drops its neighbour's units",
        "dropout.py",
        "return part_of(i32(4), slots)",
        "return i32(0)",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network without rows makes an update",
        "networks.py",
        "return is_int32(slots) and rows == 0",
        "return False",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network adds its penalty to its neighbour's",
        "gradient.py",
        "leave(shared, tally, i32(part_of(grid_x(), slots) + block_x()), penalties, squares)",
        "leave(shared, tally, block_x(), penalties, squares)",
        TOGETHER + "[fused]",
    ),
    simulated(
        "a network is clipped by its neighbour's norm",
        "update.py",
        "ldg1(squares, i32(first + i))",
        "ldg1(squares, i)",
        TOGETHER + "[clipped]",
    ),
    simulated(
        "max-norm shortens the first network only",
        "max_norm.py",
        "offset = i32(offset + part_of(parameters_apart, slots))",
        "offset = i32(offset)",
        TOGETHER + "[clipped]",
    ),
    simulated(
        "a network reads its neighbour's net inputs",
        "wide.py",
        "where = (order, start, rows, row, n_out, ldw, ldy, a_at)",
        "where = (order, start, rows, row, n_out, ldw, ldy, i32(0))",
        TOGETHER + "[wide]",
    ),
    Mutant(
        "a network reads its neighbour's rows",
        "gpuprop/backends/cuda/kernel_plan.py",
        "= epoch.order + self._first_rows[place]",
        "= epoch.order",
        "simulator",
        TOGETHER + "[fused]",
    ),
    Mutant(
        "a network counts its neighbour's updates",
        "gpuprop/backends/cuda/kernel_plan.py",
        "= epoch.steps_done + np.arange(n)[:, None]",
        "= next(iter(self._epochs.values())).steps_done + np.arange(n)[:, None]",
        "simulator",
        TOGETHER + "[fused]",
    ),
    # Machine code.
    compiled(
        "a float64 constant",
        "activations.py",
        "p = dt(form.parameter if activation.parameter is None else activation.parameter)",
        "p = form.parameter if activation.parameter is None else activation.parameter",
        "32x32_4x4/leaky_relu/leaky_relu",
    ),
    compiled(
        "four narrow loads in place of a wide one",
        "target/__init__.py",
        "    v = ld4(array, i)\n    registers[at] = v[0]\n    registers[at + 1] = v[1]\n    registers[at + 2] = v[2]\n"
        "    registers[at + 3] = v[3]\n",
        "    for e in range(4):\n        registers[at + e] = array[i + e]\n",
        "32x32_4x4/relu/relu",
    ),
    compiled(
        "registers for more blocks than fit",
        "shapes.py",
        "return 2 if self.thread_rows * self.thread_columns == 64 else 0",
        "return 8 if self.thread_rows * self.thread_columns == 32 else 0",
        "64x64_8x4/relu/relu",
    ),
    compiled(
        "a loop over k that is not written out",
        "fused_step.py",
        "        step(shared, at_a, at_b, acc)\n        step(",
        "        for q in range(8):\n"
        "            step(shared, i32(at_a + q * stride_a), i32(at_b + q * stride_b), acc)\n"
        "        return\n        step(",
        "32x32_4x4/relu/relu",
    ),
    compiled(
        "twice the shared memory that is used",
        "tile.py",
        "size = max(2 * slabs,",
        "size = max(4 * slabs,",
        "32x32_4x4/relu/relu",
    ),
    # Tensor cores.
    simulated(
        "the low part of an operand is dropped",
        "tensor_step.py",
        "add_product(part, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3, x_low, 0, y, 2 * g + q)",
        "add_product(part, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3, x, 0, y, 2 * g + q)",
        TENSOR + "product[(7, 17, 33)-tf32x3-whole]",
    ),
    simulated(
        "the low part is the high part again",
        "words.py",
        "return device(lambda x, y: high_tf32(x)), device(lambda x, y, high: x - high)",
        "return device(lambda x, y: high_tf32(x)), device(lambda x, y, high: high)",
        TENSOR + "product[(7, 17, 33)-tf32x3-whole]",
    ),
    simulated(
        "a fragment begins at the wrong row",
        "tensor_step.py",
        "ty = i32((warp >> warp_bits) * 8 + (lane >> 2))",
        "ty = i32((warp >> warp_bits) * 8 + (lane & 7))",
        TENSOR + "product[(7, 17, 33)-tf32-whole]",
    ),
    simulated(
        "columns of a fragment are those of its neighbour",
        "tensor_step.py",
        "(at ^ 2 if q & 1 else at)",
        "(at if q & 1 else at ^ 2)",
        TENSOR + "product[(7, 17, 33)-bf16-whole]",
    ),
    simulated(
        "results lie in the order of the fragment",
        "tensor_step.py",
        "add_product(acc, o, o + 2, o + size_n, o + size_n + 2, x, p, y, q)",
        "add_product(acc, o, o + 1, o + size_n, o + size_n + 1, x, p, y, q)",
        TENSOR + "product[(7, 17, 33)-tf32-whole]",
    ),
    simulated(
        "the slab of low parts lies on that of the high ones",
        "words.py",
        "store(shared, i32(at + low_at), words)",
        "store(shared, at, words)",
        TENSOR + "product[(7, 17, 33)-tf32x3-whole]",
    ),
    simulated(
        "the second slab is overwritten too early",
        "tile.py",
        "base_b, slabs = tile.planes * tile.depth * stride_a, tile.planes * tile.depth * (stride_a + stride_b)",
        "base_b, slabs = tile.planes * tile.depth * stride_a, tile.depth * (stride_a + stride_b)",
        TENSOR + "product[(7, 17, 33)-tf32x3-whole]",
    ),
    simulated(
        "two neighbours along k change places in one operand",
        "words.py",
        "return registers[at], registers[at + 4 * pack - 4]",
        "return registers[at + 4 * pack - 4], registers[at]",
        TENSOR + "product[(7, 17, 33)-bf16-whole]",
    ),
    simulated(
        "tf32 rounds NaN away",
        "words.py",
        "return device(lambda x, y: round_tf32(x)), None",
        "return device(lambda x, y: high_tf32(x)), None",
        TENSOR + "infinity_and_nan[tf32]",
    ),
    simulated(
        "ties of bfloat16 round up",
        "target/tensor_simulator.py",
        "(bits + 0x7FFF + (bits >> 16 & 1)) >> 16",
        "(bits + 0x8000) >> 16",
        TENSOR + "ties_round_as_numpy_says[bf16]",
    ),
    # Races.
    raced(
        "no wait for the other threads' words of a slab",
        "tile.py",
        "                put_b(shared, to_b, next_b)\n            sync()\n",
        "                put_b(shared, to_b, next_b)\n",
        TENSOR + "product[(17, 33, 7)-tf32-sliced]",
    ),
    raced(
        "no barrier after a row's sum has been read",
        "reduction.py",
        "            result = combine(result, ld1(shared, i32(at + q)))\n        sync()\n",
        "            result = combine(result, ld1(shared, i32(at + q)))\n",
        OUTPUT + "softmax_rows[float32]",
    ),
    raced(
        "no barrier after the last block has been found",
        "wide.py",
        "        before = ld1(shared, i32(0))\n        sync()\n",
        "        before = ld1(shared, i32(0))\n",
        OUTPUT + "wide[softmax-categorical_cross_entropy-class-18-float32]",
    ),
    raced(
        "no barrier after a block's sum has been read",
        "reduction.py",
        "            total += ld1(shared, i32(q))\n        sync()\n",
        "            total += ld1(shared, i32(q))\n",
        UPDATE + "flat_kernels_write_their_own_and_repeat[update-written0]",
    ),
    raced(
        "no barrier between the output's delta and rows of W in its place",
        "head.py",
        "        sync()\n        if t < ld_out:\n",
        "        if t < ld_out:\n",
        OUTPUT + "head[softmax-categorical_cross_entropy-float32]",
    ),
    # One block, one network.
    simulated(
        "a block goes on with the state of another",
        "block_epoch.py",
        "v = ld4(state, i32((array - 1) * n_all + own + place))",
        "v = ld4(state, i32((array - 1) * n_all + place))",
        BLOCK,
    ),
    simulated(
        "a block with a shorter epoch goes on",
        "block_epoch.py",
        "if rows == 0:",
        "if rows < 0:",
        BLOCK,
    ),
    simulated(
        "a block takes the rate of another",
        "block_epoch.py",
        "layers, layer, rows, n, scalars, slot, tally)",
        "layers, layer, rows, n, scalars, i32(slot - network), tally)",
        BLOCK,
    ),
    simulated(
        "a block draws the masks of another",
        "block_epoch.py",
        "drops = (mask, keep, i32(4 * n_layers * network))",
        "drops = (mask, keep, i32(0))",
        BLOCK,
    ),
    simulated(
        "biases decay in a block",
        "block_layers.py",
        "c = numbers(scalars, slot, is_weight)",
        "c = numbers(scalars, slot, True)",
        BLOCK_ORACLE,
    ),
    simulated(
        "a block loses the loss of the rows that it judges first",
        "block_epoch.py",
        "value += row_value",
        "value = row_value",
        BLOCK_ORACLE,
    ),
    raced(
        "no barrier between a delta and the update of its weights",
        "block_epoch.py",
        "                sync()\n                # W[l], b[l]",
        "                # W[l], b[l]",
        BLOCK,
    ),
    raced(
        "no barrier between a batch and the layer that reads it",
        "block_epoch.py",
        "            sync()\n            # a[l] =",
        "            # a[l] =",
        BLOCK,
    ),
    raced(
        "no barrier between two updates",
        "block_epoch.py",
        "            sync()\n            leave(",
        "            leave(",
        "tests/kernels/test_block.py::test_an_epoch_of_several_launches",  # without penalties, whose sums wait, too
    ),
    # Streams.
    waited(
        "updates do not wait for the copy of their rows",
        "cuda/runtime.py",
        "            self._stream.wait_event(copied)\n",
        "",
        "updates_wait_for_their_rows_and_copies_for_their_buffer",
    ),
    waited(
        "a copy does not wait for the updates that read its buffer",
        "cuda/runtime.py",
        "            self._copies.wait_event(after)\n",
        "",
        "updates_wait_for_their_rows_and_copies_for_their_buffer",
    ),
    waited(
        "the host overwrites what is still copied",
        "cuda/streaming.py",
        "            self._copied[place].synchronize()\n",
        "            pass\n",
        "the_host_waits_before_it_overwrites_what_is_copied",
    ),
    waited(
        "a chunk's end is not marked",
        "cuda/streaming.py",
        "        self._read[chunk % 2] = self._runtime.mark()\n",
        "",
        "the_host_waits_before_it_overwrites_what_is_copied",
    ),
]

FEWEST = 20
"""Mutants that the simulator and the compilation must find between them."""

ON_A_VIRTUAL_GPU = ("race detector", "lazy streams")
"""Proofs that nothing else offers."""

ON_DEVICE = os.environ.get("GPUPROP_TEST_DEVICE") == "cuda"


def unmet(mutant: Mutant) -> str | None:
    """Return why a mutant cannot meet its proof here, or None."""
    if mutant.proof in ON_A_VIRTUAL_GPU:
        checks = ON_DEVICE and os.environ.get("VGPU_CHECK")
        return None if checks else f"needs a virtual GPU, for its {mutant.proof}: GPUPROP_TEST_DEVICE=cuda VGPU_CHECK=1"
    if ON_DEVICE or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return "runs where the session itself neither simulates nor has a device"
    return sass.missing_tools() if mutant.proof == "compilation" else None


CASES = [
    pytest.param(mutant, id=mutant.name, marks=[pytest.mark.skipif(bool(why := unmet(mutant)), reason=why or "")])
    for mutant in MUTANTS
]


@pytest.mark.parametrize("mutant", CASES)
def test_mutant(mutant: Mutant, outcomes: dict[str, str]) -> None:
    assert outcomes[mutant.name] == "killed"


def test_enough_mutants() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(mutant.proof not in ON_A_VIRTUAL_GPU for mutant in MUTANTS) >= FEWEST
