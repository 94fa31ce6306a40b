"""The small random model of the kit."""

import pytest
import torch

from omg_transformers.testing import tiny_model


def test_it_answers_a_picture():
    output = tiny_model()(torch.zeros(1, 3, 32, 64))
    assert output.mask_logits.shape == (1, 12, 1, 8, 16)


def test_the_seed_gives_the_weights_whatever_was_drawn_before():
    first = tiny_model(seed=3).state_dict()
    torch.rand(5)
    second = tiny_model(seed=3).state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_another_seed_gives_other_weights():
    first, second = (tiny_model(seed=seed).state_dict()["query_encoders.learned.content.weight"] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_it_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    tiny_model(seed=5)
    assert torch.equal(torch.rand(1), expected)


def test_it_takes_settings_of_the_configuration():
    assert tiny_model(num_queries=5).config.num_queries == 5


def test_it_refuses_settings_that_do_not_exist():
    with pytest.raises(TypeError, match="num_querys"):
        tiny_model(num_querys=5)
