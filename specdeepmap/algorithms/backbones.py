# SPDX-License-Identifier: GPL-3.0-or-later
"""Backbones: what can be told of a network's parts without the libraries that build it, before a training starts."""

from __future__ import annotations

import re

from specdeepmap.core.errors import ConfigError, nearest
from specdeepmap.core.jobs import TrainJob
from specdeepmap.core.learn.architectures import ARCHITECTURES, AUTO
from specdeepmap.core.learn.weights import WEIGHTS

_FAMILIES = {
    "resnet": "18 34 50 101 152",
    "resnext": "50_32x4d 101_32x4d 101_32x8d 101_32x16d 101_32x32d 101_32x48d",
    "dpn": "68 68b 92 98 107 131",
    "vgg": "11 11_bn 13 13_bn 16 16_bn 19 19_bn",
    "senet": "154",
    "se_": "resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x4d",
    "densenet": "121 161 169 201",
    "inception": "resnetv2 v4",
    "efficientnet-": "b0 b1 b2 b3 b4 b5 b6 b7",
    "mobilenet_": "v2",
    "mobileone_": "s0 s1 s2 s3 s4",
    "xception": "",
    "mit_": "b0 b1 b2 b3 b4 b5",
    "timm-efficientnet-": "b0 b1 b2 b3 b4 b5 b6 b7 b8 l2",
    "timm-tf_efficientnet_lite": "0 1 2 3 4",
    "timm-sk": "resnet18 resnet34 resnext50_32x4d",
}

BACKBONES = tuple(stem + end for stem, ends in _FAMILIES.items() for end in (ends.split(" ")))
"""The encoders of segmentation-models-pytorch in the versions that the requirements allow; timm's are too many."""

_TIMM = re.compile(r"tu-\w+(\.\w+)?")


def check_parts(job: TrainJob) -> None:
    """Check that architecture, backbone and pretrained weights exist and go together, as far as that is known here.

    Raises:
        ConfigError: if they do not.
    """
    if job.resume or job.init_checkpoint is not None:
        return  # the model brings its own
    if job.backbone not in BACKBONES and not _TIMM.fullmatch(job.backbone):
        raise ConfigError(
            f"BACKBONE is '{job.backbone}', which does not exist.{nearest(job.backbone, BACKBONES)} It can be any "
            "encoder of segmentation-models-pytorch, or tu- followed by a timm name."
        )
    wanted = WEIGHTS[job.pretrained_weights].backbone
    if wanted is not None and job.backbone.removeprefix("tu-").split(".")[0] != wanted:
        raise ConfigError(
            f"PRETRAINED_WEIGHTS {job.pretrained_weights} are made for BACKBONE {wanted}, but BACKBONE is "
            f"{job.backbone}. Set BACKBONE to {wanted}, or take other weights."
        )
    if job.architecture != AUTO:
        _check_architecture(job)


def _check_architecture(job: TrainJob) -> None:
    design = ARCHITECTURES[job.architecture]
    if not design.has_backbone and (job.pretrained_weights != "none" or job.weights_file is not None):
        name = "WEIGHTS_FILE" if job.weights_file is not None else "PRETRAINED_WEIGHTS"
        raise ConfigError(
            f"ARCHITECTURE {job.architecture} has no backbone, so {name} cannot be used. Leave {name} out, or set "
            "ARCHITECTURE to unet."
        )
    if design.has_backbone and design.refused and job.backbone.startswith(design.refused):
        raise ConfigError(
            f"ARCHITECTURE {job.architecture} does not work with BACKBONE {job.backbone}: {design.reason}. "
            f"{design.advice}."
        )
