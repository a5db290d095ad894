"""Every option of a recipe against steps that NumPy takes in float64, from the formulas."""

import keras
import numpy as np
import pytest
from small_networks import CLASSES, STEPS, assert_equal, batches_of, recipe_of, train, trainer_of, values_of

from inception_tf import optimizers
from inception_tf.steps import Steps

EPSILON, MOVING = 0.001, 0.9  # of batch norm
BLOCKS = ("block_1_branch_0", "block_2_branch_0")


def _block(x, model, name, is_frozen):
    """1x1 convolution, batch norm, ReLU; what the way back needs; the moving statistics after it."""
    z = x @ model[f"{name}_conv/kernel"][0, 0]
    moving = [model[f"{name}_bn/moving_{each}"] for each in ("mean", "variance")]
    mean, variance = moving if is_frozen else (z.mean((0, 1, 2)), z.var((0, 1, 2)))
    deviation = np.sqrt(variance + EPSILON)
    normed = (z - mean) / deviation
    y = normed + model[f"{name}_bn/beta"]
    if not is_frozen:
        moving = [MOVING * m + (1 - MOVING) * new for m, new in zip(moving, (mean, variance), strict=True)]
    return np.maximum(y, 0), (x, normed, deviation, y > 0), moving


def _block_back(gradient, kept, model, name, is_frozen):
    """The gradients of the block's input, kernel and beta."""
    x, normed, deviation, is_positive = kept
    of_y = gradient * is_positive
    of_z = of_y
    if not is_frozen:
        of_z = of_y - of_y.mean((0, 1, 2)) - normed * (of_y * normed).mean((0, 1, 2))
    of_z = of_z / deviation
    kernel = model[f"{name}_conv/kernel"]
    return of_z @ kernel[0, 0].T, np.einsum("nhwi,nhwo->io", x, of_z)[None, None], of_y.sum((0, 1, 2))


def _cross_entropy(logits, targets, weights, batch):
    """The loss of a part, and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = (weights * -(targets * log_shares).sum(1)).sum() / batch
    return loss, weights[:, None] * (np.exp(log_shares) - targets) / batch


class ByHand:
    """The steps of `two_blocks` with 1x1 convolutions."""

    def __init__(self, recipe, model, parts=1, head_steps=0):
        self.recipe, self.parts, self.head_steps = recipe, parts, head_steps
        self.model = {name: value.astype(np.float64) for name, value in model.items()}
        self.averages = dict(self.model)
        self.trained = [name for name in self.model if "moving" not in name]
        self.squares = {name: np.full(self.model[name].shape, 1.0) for name in self.trained}
        self.momentums = {name: np.zeros(self.model[name].shape) for name in self.trained}
        self.norms = []

    def step(self, number, batch, masks=None):
        """Loss, top-1 error, share of zeros."""
        recipe, is_head = self.recipe, number < self.head_steps
        images = batch["pixels"].astype(np.float64) / 127.5 - 1
        masks = np.ones((len(images), 6)) if masks is None else masks
        parts = [
            self._part(is_head, *arrays)
            for arrays in zip(
                *(np.split(each, self.parts) for each in (images, batch["label"], batch["weight"], masks)),
                strict=True,
            )
        ]
        numbers, gradients, statistics = (
            {name: sum(part[i][name] for part in parts) for name in parts[0][i]} for i in range(3)
        )
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        self.norms.append(norm)
        if recipe.clip_norm and norm > recipe.clip_norm:
            gradients = {name: each * recipe.clip_norm / norm for name, each in gradients.items()}
        lowered = max(0, number - self.head_steps) // 2  # an epoch has two steps
        rate = recipe.learning_rate * recipe.learning_rate_decay**lowered
        for name, gradient in gradients.items():
            self._move(name, gradient, rate)
        self.model |= {name: value / self.parts for name, value in statistics.items()}
        n = number + 1
        decay = min(recipe.average_decay, (1 + n) / (10 + n))
        for name, value in self.model.items():
            self.averages[name] = decay * self.averages[name] + (1 - decay) * value
        return [*numbers.values()]

    def _part(self, is_head, images, labels, weights, masks):
        recipe, model = self.recipe, self.model
        is_frozen = is_head or recipe.batch_norm == "freeze"
        targets = np.eye(CLASSES)[labels] * (1 - recipe.label_smoothing) + recipe.label_smoothing / CLASSES
        first, kept_1, moving_1 = _block(images, model, BLOCKS[0], is_frozen)
        second, kept_2, moving_2 = _block(first, model, BLOCKS[1], is_frozen)
        cells = images.shape[1] * images.shape[2]
        pooled = second.mean((1, 2)) * masks
        logits = pooled @ model["logits/kernel"] + model["logits/bias"]
        loss, of_logits = _cross_entropy(logits, targets, weights, recipe.batch)
        gradients = {"logits/kernel": pooled.T @ of_logits, "logits/bias": of_logits.sum(0)}

        of_second = (of_logits @ model["logits/kernel"].T * masks / cells)[:, None, None]
        of_first, *of_block_2 = _block_back(of_second, kept_2, model, BLOCKS[1], is_frozen)
        if recipe.auxiliary_weight:
            pooled, kernel = first.mean((1, 2)), model["auxiliary_logits/kernel"]
            auxiliary = pooled @ kernel + model["auxiliary_logits/bias"]
            added, of_auxiliary = _cross_entropy(auxiliary, targets, weights, recipe.batch)
            loss, of_auxiliary = (
                loss + recipe.auxiliary_weight * added,
                recipe.auxiliary_weight * of_auxiliary,
            )
            gradients["auxiliary_logits/kernel"] = pooled.T @ of_auxiliary
            gradients["auxiliary_logits/bias"] = of_auxiliary.sum(0)
            of_first = of_first + (of_auxiliary @ kernel.T / cells)[:, None, None]
        _, *of_block_1 = _block_back(of_first, kept_1, model, BLOCKS[0], is_frozen)
        for name, (kernel, beta) in zip(BLOCKS, (of_block_1, of_block_2), strict=True):
            gradients[f"{name}_conv/kernel"], gradients[f"{name}_bn/beta"] = kernel, beta

        if is_head:
            gradients = {name: gradients[name] for name in ("logits/kernel", "logits/bias")}
        for name in gradients:
            if name.endswith("/kernel"):
                loss += recipe.weight_decay * (model[name] ** 2).sum() / 2 / self.parts
                gradients[name] = gradients[name] + recipe.weight_decay * model[name] / self.parts
        wrong = (weights * (logits.argmax(1) != labels)).sum() / recipe.batch
        zeros = (second == 0).mean() / self.parts
        statistics = (
            {}
            if is_frozen
            else {
                f"{name}_bn/moving_{each}": value
                for name, moving in zip(BLOCKS, (moving_1, moving_2), strict=True)
                for each, value in zip(("mean", "variance"), moving, strict=True)
            }
        )
        return {"loss": loss, "wrong": wrong, "zeros": zeros}, gradients, statistics

    def _move(self, name, gradient, rate):
        recipe = self.recipe
        if recipe.optimizer == "momentum":
            self.momentums[name] = recipe.momentum * self.momentums[name] - rate * gradient
            self.model[name] = self.model[name] + self.momentums[name]
            return
        self.squares[name] = recipe.rms_decay * self.squares[name] + (1 - recipe.rms_decay) * gradient**2
        scaled = gradient / np.sqrt(self.squares[name] + recipe.epsilon)
        self.momentums[name] = recipe.momentum * self.momentums[name] + rate * scaled
        self.model[name] = self.model[name] - self.momentums[name]

    def values(self):
        """As those of `Trainer.variables`."""
        slots = {"momentum": self.momentums}
        averages = self.averages if self.recipe.average_decay else {}
        if self.recipe.optimizer == "rmsprop":
            slots["velocity"] = self.squares
        return {
            **{f"model/{name}": value for name, value in self.model.items()},
            **{f"average/{name}": value for name, value in averages.items()},
            **{
                f"optimizer/{self.recipe.optimizer}/{name.replace('/', '_')}_{slot}": value
                for slot, values in slots.items()
                for name, value in values.items()
            },
        }


def by_hand(recipe, trainer, parts=1, head_steps=0):
    model = {v.path: v.numpy() for v in trainer.model.weights}
    return ByHand(recipe, model, parts, head_steps)


def check(strategy="one_device", weights=None, steps=STEPS, accumulate=1, jit=False, count=3, **values):
    """Three steps are those by hand, which it returns."""
    recipe = recipe_of(**values)
    trainer = trainer_of(recipe, strategy, steps=steps, accumulate=accumulate, jit=jit)
    replicas = 2 if strategy == "mirrored" else 1
    hand = by_hand(recipe, trainer, accumulate * replicas, steps.head)
    for number, batch in enumerate(batches_of(recipe, count)):
        if weights is not None:
            batch["weight"] = np.array(weights, np.float32)
        numbers = train(trainer, [batch], strategy, first=number)[0]
        np.testing.assert_allclose(numbers[:3], hand.step(number, batch), rtol=1e-5)
        np.testing.assert_allclose(numbers[3], hand.norms[-1], rtol=1e-4)
        assert_equal(values_of(trainer), hand.values())
        assert_equal(trainer.average.values(), hand.averages)
    return hand


def test_rmsprop_from_a_mean_square_of_one():
    check()


def test_rmsprop_with_other_numbers():
    check(rms_decay=0.7, momentum=0.5, epsilon=0.1)


def test_momentum():
    check(optimizer="momentum", momentum=0.8)


def test_label_smoothing():
    check(label_smoothing=0.3)


def test_weight_decay_is_of_kernels_alone():
    check(weight_decay=0.3)


def test_auxiliary_head():
    check(auxiliary_weight=0.4)


def test_gradients_above_the_norm_are_clipped():
    hand = check(clip_norm=0.1, auxiliary_weight=0.4)
    assert min(hand.norms) > 0.1


def test_gradients_below_the_norm_are_not_clipped():
    hand = check(clip_norm=100.0)
    assert max(hand.norms) < 100


def test_averages_follow_the_steps_at_first_and_then_the_decay():
    check(average_decay=0.2)  # the second step is at (1 + 2) / (10 + 2)


def test_averages_without_decay_are_the_values():
    hand = check(average_decay=0.0)
    assert_equal(hand.averages, hand.model, 0)


def test_images_of_weight_0_do_not_count():
    check(weights=[1, 0, 1, 1, 0, 1, 1, 1])


def test_parts_have_statistics_of_their_own():
    check(accumulate=2, weights=[1, 0, 1, 1, 1, 1, 1, 1])


def test_frozen_batch_norm():
    check(batch_norm="freeze")


def test_the_heads_stage_trains_the_last_layer_alone():
    check(steps=Steps(2, 2, 100), weight_decay=0.1, batch_norm="train")


ALL = {
    "label_smoothing": 0.1,
    "weight_decay": 0.1,
    "auxiliary_weight": 0.4,
    "clip_norm": 0.3,
    "average_decay": 0.2,
    "weights": [1, 1, 1, 0, 1, 1, 0, 1],
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("optimizer", ["rmsprop", "momentum"])
def test_all_options_together(optimizer, jit):
    hand = check(optimizer=optimizer, accumulate=2, jit=jit, steps=Steps(2, 1, 100), count=4, **ALL)
    assert min(hand.norms) > 0.3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_options_on_two_replicas(accumulate):
    check("mirrored", accumulate=accumulate, **ALL)


KERNEL, MOMENTUM = "model/logits/kernel", "optimizer/rmsprop/logits_kernel_momentum"


def _masks(trainer, number, batch):
    """The dropout masks of a step: where `logits` moves when one image alone counts. Nothing is changed."""
    before, masks = values_of(trainer), []
    for weights in np.eye(len(batch["label"]), dtype=np.float32):
        trainer.variables[MOMENTUM].assign(np.zeros_like(before[MOMENTUM]))
        train(trainer, [batch | {"weight": weights}], first=number)
        masks.append((trainer.variables[KERNEL].numpy() != before[KERNEL]).any(1))
        for name, value in before.items():
            trainer.variables[name].assign(value)
    return np.array(masks)


@pytest.mark.parametrize("jit", [False, True])
def test_dropout_with_a_mask_for_each_part_and_step(jit):
    recipe = recipe_of()
    trainer = trainer_of(recipe, dropout_rate=0.5, accumulate=2, seed=3, jit=jit)
    hand, of_parts = by_hand(recipe, trainer, parts=2), []
    for number, batch in enumerate(batches_of(recipe, 2)):
        masks = _masks(trainer, number, batch)
        assert 0.2 < masks.mean() < 0.8
        numbers = train(trainer, [batch], first=number)[0]
        np.testing.assert_allclose(numbers[:3], hand.step(number, batch, masks / 0.5), rtol=1e-5)
        assert_equal(values_of(trainer), hand.values())
        of_parts += [masks[:4].tobytes(), masks[4:].tobytes()]
    assert len(set(of_parts)) == 4


def test_dropout_replays_with_the_seed_and_the_step():
    recipe = recipe_of()
    batch = next(batches_of(recipe, 1))

    def masks(seed, *numbers):
        trainer = trainer_of(recipe, dropout_rate=0.5, seed=seed)
        return np.array([_masks(trainer, number, batch) for number in numbers])

    largest = 2**32 - 1
    first = masks(largest, 0, 5)
    assert (masks(largest, 5) == first[1]).all()
    assert (masks(0, 0, 5) != first).any((1, 2)).all()


@pytest.fixture
def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


SCALE, COUNT = "loss_scale/scale", "loss_scale/steps"
STRATEGIES = pytest.mark.parametrize("strategy", ["one_device", "mirrored"])


@pytest.mark.parametrize(
    ("strategy", "clip_norm", "jit"),
    [("one_device", None, False), ("one_device", 0.3, True), ("mirrored", None, False)],
)
def test_in_half_precision_steps_are_those_by_hand(half_precision, strategy, clip_norm, jit):
    recipe = recipe_of(weight_decay=0.1, auxiliary_weight=0.4, clip_norm=clip_norm)
    trainer = trainer_of(recipe, strategy, accumulate=2, jit=jit)
    hand = by_hand(recipe, trainer, 4 if strategy == "mirrored" else 2)
    for number, batch in enumerate(batches_of(recipe, 3)):
        numbers = train(trainer, [batch], strategy, first=number)[0]
        np.testing.assert_allclose(numbers[0], hand.step(number, batch)[0], rtol=2e-3)
    values = values_of(trainer)
    assert (values.pop(SCALE), values.pop(COUNT)) == (2**15, 3)
    assert_equal(values, hand.values(), 5e-3)


@STRATEGIES
def test_a_step_that_overflows_halves_the_scale_and_is_not_taken(half_precision, strategy):
    recipe = recipe_of(auxiliary_weight=0.4, clip_norm=0.3, average_decay=0.0)
    trainer = trainer_of(recipe, strategy)
    first, second, third = batches_of(recipe, 3)
    train(trainer, [first], strategy)
    trainer.variables[SCALE].assign(3e38)
    before = values_of(trainer)
    loss = train(trainer, [second], strategy, first=1)[0, 0]
    after = values_of(trainer)
    assert np.isfinite(loss)
    assert (after.pop(SCALE), after.pop(COUNT)) == (np.float32(1.5e38), 0)
    assert before.pop(COUNT) == 1
    assert_equal(after, {name: value for name, value in before.items() if name != SCALE}, 0)
    trainer.variables[SCALE].assign(2.0**15)
    train(trainer, [third], strategy, first=2)
    assert (trainer.variables[KERNEL].numpy() != after[KERNEL]).any()


@STRATEGIES
def test_the_scale_doubles_after_enough_steps(half_precision, strategy):
    recipe = recipe_of()
    trainer = trainer_of(recipe, strategy)
    trainer.variables[COUNT].assign(optimizers.GROWTH_STEPS - 2)
    scales, counts = [], []
    for number, batch in enumerate(batches_of(recipe, 3)):
        train(trainer, [batch], strategy, first=number)
        scales.append(float(trainer.variables[SCALE].numpy()))
        counts.append(int(trainer.variables[COUNT].numpy()))
    assert scales == [2**15, 2**16, 2**16]
    assert counts == [optimizers.GROWTH_STEPS - 1, 0, 1]


@STRATEGIES
@pytest.mark.parametrize("option", ["jit", "rematerialize"])
def test_an_option_for_speed_or_memory_changes_nothing(strategy, option):
    recipe = recipe_of(auxiliary_weight=0.4, weight_decay=0.1)
    values = []
    for is_on in (False, True):
        # XLA draws another mask than TensorFlow from the same seed.
        dropout_rate = 0.0 if option == "jit" else 0.5
        trainer = trainer_of(recipe, strategy, dropout_rate, accumulate=2, **{option: is_on})
        numbers = train(trainer, batches_of(recipe, 3), strategy)
        values.append(values_of(trainer) | {"numbers": numbers})
    assert_equal(*values)
