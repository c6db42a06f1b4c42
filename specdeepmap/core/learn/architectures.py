# SPDX-License-Identifier: GPL-3.0-or-later
"""Architectures: the networks that can be trained, on any encoder, band count and chip size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specdeepmap.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import nn

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
    "tu-vit_tiny_patch16_224",
)
"""Backbones that a dialog suggests; every other encoder of smp and timm can be typed."""

_STRIDE = 32  # of the encoders in segmentation-models-pytorch


@dataclass(frozen=True)
class Architecture:
    """A network design.

    Attributes:
        title: for dialogs.
        source: where the design was published.
        name: of the design in segmentation-models-pytorch; empty where it is ours.
        build: of a design of ours: builds it from the numbers of bands and classes.
        stride: what the sides of its inputs must be a multiple of; 0 = twice what its encoder says.
        minimum: smallest side of a chip in pixels; smaller chips are padded.
        rate: learning rate that suits it, see the benchmarks.
        local: whether an output depends only on the nearest surroundings, some ten pixels: so that what it says does
            not change with the size of the chip. Networks with a backbone see hundreds of pixels, mostly the padding
            around chips as small as usual ones, and have learnt with it.
        refused: beginnings of encoder names that the design cannot use.
        reason: why some encoders cannot be used.
        advice: which encoders can.
        settings: further arguments for segmentation-models-pytorch.
    """

    title: str
    source: str
    name: str = ""
    build: Callable[[int, int], nn.Module] | None = None
    stride: int = _STRIDE
    minimum: int = 0
    rate: float = 0.001
    local: bool = False
    refused: tuple[str, ...] = ()
    reason: str = ""
    advice: str = "Take BACKBONE resnet18 or efficientnet-b0, which work with every architecture that has a backbone"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def has_backbone(self) -> bool:
        """Whether an encoder of choice is a part of the design."""
        return self.build is None


def _spectral(bands: int, classes: int) -> nn.Module:
    from specdeepmap.core.learn.spectral import SpectralNetwork

    return SpectralNetwork(bands, classes)


def _justo_unet_simple(bands: int, classes: int) -> nn.Module:
    from specdeepmap.core.learn.justo import JustoUNetSimple

    return JustoUNetSimple(bands, classes)


_NO_HALF = "its decoder needs features at half the image's resolution, which this encoder has not"

ARCHITECTURES = {
    "unet": Architecture("U-Net", "Ronneberger et al. 2015, arXiv 1505.04597", "unet"),
    "unetplusplus": Architecture(
        "U-Net++", "Zhou et al. 2018, arXiv 1807.10165", "unetplusplus", refused=("mit_",), reason=_NO_HALF
    ),
    "deeplabv3": Architecture("DeepLabV3", "Chen et al. 2017, arXiv 1706.05587", "deeplabv3"),
    "deeplabv3plus": Architecture("DeepLabV3+", "Chen et al. 2018, arXiv 1802.02611", "deeplabv3plus"),
    "segformer": Architecture("SegFormer", "Xie et al. 2021, arXiv 2105.15203", "segformer"),
    "fpn": Architecture("FPN", "Kirillov et al. 2019, Panoptic feature pyramid networks, CVPR", "fpn"),
    "pspnet": Architecture("PSPNet", "Zhao et al. 2016, arXiv 1612.01105", "pspnet"),
    "manet": Architecture("MA-Net", "Fan et al. 2020, doi 10.1109/ACCESS.2020.3025372", "manet"),
    "linknet": Architecture(
        "LinkNet",
        "Chaurasia & Culurciello 2017, arXiv 1707.03718",
        "linknet",
        refused=("mit_",),
        reason=_NO_HALF,
    ),
    "pan": Architecture("PAN", "Li et al. 2018, arXiv 1805.10180", "pan", minimum=128),
    "upernet": Architecture("UPerNet", "Xiao et al. 2018, arXiv 1807.10221", "upernet"),
    "dpt": Architecture(
        "DPT",
        "Ranftl et al. 2021, arXiv 2103.13413",
        "dpt",
        stride=0,
        advice="DPT needs a plain vision transformer of timm: take BACKBONE tu-vit_tiny_patch16_224 or "
        "tu-deit_tiny_patch16_224, or ARCHITECTURE unet",
        settings={"dynamic_img_size": True},
    ),
    "spectral": Architecture(
        "Spectral network (compact)", "this project", build=_spectral, stride=8, rate=0.003, local=True
    ),
    "justo_unet_simple": Architecture(
        "2D-Justo-UNet-Simple", "Justo et al. 2023, arXiv 2310.16210", build=_justo_unet_simple, stride=4, local=True
    ),
}


AUTO = "auto"
"""Stands for the design that ``choose_architecture`` takes."""

SPARSE_PIXELS = 3_000_000
"""Labelled pixels below which a compact network is taken: it is ahead up to there, see the benchmarks."""


def choose_architecture(bands: int, chip_size: int, labelled: int, backbone: bool) -> tuple[str, str]:
    """Choose a design by what there is to learn from.

    Args:
        bands: of the images.
        chip_size: smaller side of a chip in pixels.
        labelled: training pixels with a label.
        backbone: whether a backbone is needed, for pretrained weights.

    Returns:
        The name in ``ARCHITECTURES``, and why, to follow "since".
    """
    if backbone:
        return "unet", "pretrained weights need a backbone"
    if labelled < SPARSE_PIXELS:
        return "spectral", f"there are {labelled:,} labelled training pixels, less than {SPARSE_PIXELS:,}"
    return "unet", f"there are {labelled:,} labelled training pixels"


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


def build_network(architecture: str, backbone: str, bands: int, classes: int) -> Network:
    """Build a network with random weights that gives raw logits.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        backbone: an encoder's name; a design without a backbone does not look at it.
        bands: number of input channels.
        classes: number of output channels.

    Raises:
        ConfigError: if the two do not go together, with what does.
    """
    import torch

    from specdeepmap.core.learn.network import Network

    design = ARCHITECTURES[architecture]
    if design.build is not None:
        return Network(design.build(bands, classes), design.stride, design.minimum)
    check_backbone(backbone)
    if backbone.startswith(design.refused or ("\0",)):
        raise _misfit(architecture, backbone, design.reason)
    try:
        model = _with_encoder(design, backbone, bands, classes)
        # Twice, since the decoder halves the grid of patches once more and doubles it again.
        stride = design.stride or 2 * int(model.encoder.output_stride)
        network = Network(model, stride, design.minimum)
        with torch.no_grad():
            network.eval()(torch.zeros(1, bands, 2 * network.stride, 2 * network.stride))
    except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, AssertionError) as error:
        # What the libraries raise for encoders without the feature levels a decoder needs.
        raise _misfit(architecture, backbone, str(error).split("\n")[0]) from error
    return network.train()


def _with_encoder(design: Architecture, backbone: str, bands: int, classes: int) -> Any:
    """Build a design of segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    return smp.create_model(
        design.name,
        encoder_name=backbone,
        encoder_weights=None,
        in_channels=bands,
        classes=classes,
        **design.settings,
    )


def _misfit(architecture: str, backbone: str, reason: str) -> ConfigError:
    return ConfigError(
        f"ARCHITECTURE {architecture} does not work with BACKBONE {backbone}: {reason.rstrip('.')}. "
        f"{ARCHITECTURES[architecture].advice}."
    )
