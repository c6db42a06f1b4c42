# SPDX-License-Identifier: GPL-3.0-or-later
"""Architectures: the networks that can be trained, on any encoder, band count and chip size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdeepmap.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from specdeepmap.core.learn.network import Network

USUAL_BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "efficientnet-b0",
    "efficientnet-b3",
    "mobilenet_v2",
    "densenet121",
    "mit_b0",
    "mit_b2",
    "tu-convnext_tiny",
    "tu-resnet18",
    "tu-efficientnet_b0",
    "tu-regnety_008",
)
"""Backbones that a dialog suggests; every other encoder of smp and timm can be typed."""

_STRIDE = 32  # of every encoder in segmentation-models-pytorch


@dataclass(frozen=True)
class Architecture:
    """A network design.

    Attributes:
        title: for dialogs.
        name: of the design in segmentation-models-pytorch.
        source: where the design was published.
        refused: beginnings of encoder names that the design cannot use.
        reason: why some encoders cannot be used.
        minimum: smallest side of a chip in pixels; smaller chips are padded.
    """

    title: str
    name: str
    source: str
    refused: tuple[str, ...] = ()
    reason: str = ""
    minimum: int = 0


_NO_HALF = "its decoder needs features at half the image's resolution, which this encoder has not"

ARCHITECTURES = {
    "unet": Architecture("U-Net", "unet", "Ronneberger et al. 2015, arXiv 1505.04597"),
    "unetplusplus": Architecture(
        "U-Net++", "unetplusplus", "Zhou et al. 2018, arXiv 1807.10165", refused=("mit_",), reason=_NO_HALF
    ),
    "deeplabv3": Architecture("DeepLabV3", "deeplabv3", "Chen et al. 2017, arXiv 1706.05587"),
    "deeplabv3plus": Architecture("DeepLabV3+", "deeplabv3plus", "Chen et al. 2018, arXiv 1802.02611"),
    "segformer": Architecture("SegFormer", "segformer", "Xie et al. 2021, arXiv 2105.15203"),
    "fpn": Architecture("FPN", "fpn", "Kirillov et al. 2019, Panoptic feature pyramid networks, CVPR"),
    "pspnet": Architecture("PSPNet", "pspnet", "Zhao et al. 2016, arXiv 1612.01105"),
    "manet": Architecture("MA-Net", "manet", "Fan et al. 2020, doi 10.1109/ACCESS.2020.3025372"),
    "linknet": Architecture(
        "LinkNet", "linknet", "Chaurasia & Culurciello 2017, arXiv 1707.03718", refused=("mit_",), reason=_NO_HALF
    ),
    "pan": Architecture("PAN", "pan", "Li et al. 2018, arXiv 1805.10180", minimum=128),
    "upernet": Architecture("UPerNet", "upernet", "Xiao et al. 2018, arXiv 1807.10221"),
}


def check_backbone(backbone: str) -> None:
    """Check that an encoder of this name exists.

    Raises:
        ConfigError: if not; the nearest right names are offered.
    """
    import segmentation_models_pytorch as smp
    import timm

    own = smp.encoders.get_encoder_names()
    if backbone in own:
        return
    known = timm.list_models()
    stem = backbone.removeprefix("tu-").split(".")[0]
    if backbone.startswith("tu-") and stem in known:
        return
    offers = nearest(backbone, [*own, *(f"tu-{name}" for name in known)])
    raise ConfigError(
        f"BACKBONE is '{backbone}', which does not exist.{offers} It can be any encoder of "
        "segmentation-models-pytorch, or tu- followed by a timm name."
    )


def build_network(
    architecture: str, backbone: str, bands: int, classes: int, encoder_weights: str | None = None
) -> Network:
    """Build a network that gives raw logits.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        backbone: an encoder's name.
        bands: number of input channels.
        classes: number of output channels.
        encoder_weights: passed to segmentation-models-pytorch, which downloads them; None = random.

    Raises:
        ConfigError: if the two do not go together, with what does.
    """
    import segmentation_models_pytorch as smp
    import torch

    from specdeepmap.core.learn.network import Network

    check_backbone(backbone)
    design = ARCHITECTURES[architecture]
    if backbone.startswith(design.refused or ("\0",)):
        raise _misfit(architecture, backbone, design.reason)
    try:
        model = smp.create_model(
            design.name,
            encoder_name=backbone,
            encoder_weights=encoder_weights,
            in_channels=bands,
            classes=classes,
        )
        network = Network(model, _STRIDE, design.minimum)
        with torch.no_grad():
            network.eval()(torch.zeros(1, bands, 2 * _STRIDE, 2 * _STRIDE))
    except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, AssertionError) as error:
        # What the libraries raise for encoders without the feature levels a decoder needs.
        if encoder_weights is not None:
            raise
        raise _misfit(architecture, backbone, str(error).split("\n")[0]) from error
    return network.train()


def _misfit(architecture: str, backbone: str, reason: str) -> ConfigError:
    return ConfigError(
        f"ARCHITECTURE {architecture} does not work with BACKBONE {backbone}: {reason}. Take BACKBONE resnet18 or "
        "efficientnet-b0, which work with every architecture."
    )
