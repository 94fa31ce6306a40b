"""The point that the original's evaluation clicks on each object: the deepest of its mask, as a box of +-3 pixels.

Its distances are approximate (convolutions); ours give the same pixel without them. The type of the prompt is always
"box", as in the original's data pipeline (defect 18): converted weights are told so by `point_prompt_row`.
"""

from __future__ import annotations

import torch

from omg_transformers.ops.deepest import deepest_point


def clicks(reference):
    """(N, 2) (x, y) on masks resized (nearest) to the size of the picture in the model's input."""
    height, width = reference["image_u8"].shape[-2:]
    rows, columns = nearest(reference["masks"].shape[1], height), nearest(reference["masks"].shape[2], width)
    return torch.tensor([deepest_point(mask[rows[:, None], columns].numpy()) for mask in reference["masks"]])


def nearest(length, target):
    """The places that OpenCV's nearest-neighbour resizing reads; `interpolate` rounds others in float32."""
    return (torch.arange(target, dtype=torch.float64) * (1 / (target / length))).long().clamp(max=length - 1)


def test_points_are_the_deepest_of_the_resized_masks(golden, model):
    reference = golden("prompt_prep")
    points = clicks(reference)
    radius = round(model.config.point_prompt_radius)
    assert len(points) == len(reference["masks"]) == len(reference["point_coords"]) > 1
    assert torch.equal(torch.cat([points - radius, points + radius], dim=1), reference["point_coords"])


def test_the_model_sees_a_click_as_the_original_box(golden, model):
    reference = golden("prompt_prep")
    pixels, boxes = reference["inputs"], reference["point_coords"][None].float()
    with torch.no_grad():
        features = model.get_image_features(pixels)
        by_point = model(image_features=features, input_points=clicks(reference)[None, :, None].float())
        by_box = model(image_features=features, input_boxes=boxes, query_inputs={"box_types": reference["bp"][None]})
    assert torch.equal(by_point.mask_logits, by_box.mask_logits)
