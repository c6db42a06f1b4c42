# SPDX-License-Identifier: GPL-3.0-or-later
"""Fusion: batch normalisations of a trained network go into the convolutions before them."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from specdeepmap.core.learn.network import Network

TOLERANCE = 1e-3
"""Difference of the logits that counts as rounding, as a share of the largest one."""

SIDE = 32
"""Smallest side of the random image, in pixels: on a single one most of a kernel would see padding only."""


@torch.no_grad()
def fused(network: Network, bands: int) -> Network:
    """Give a network that says the same, faster: each fused layer saves one pass over what the layer before gave.

    Which normalisation follows which convolution is taken from the order in which a module declares them. Where the
    outcome for a random image is not the same, the network is given back as it is.

    Args:
        network: in evaluation mode; it is left as it is, and shares the numbers of layers that are not fused.
        bands: that it takes.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    if not _fuse(copied):
        return network
    side = max(network.stride, network.minimum, SIDE)
    random = torch.Generator().manual_seed(0)
    images = torch.randn(1, bands, side, side, generator=random)
    wanted, found = network(images), copied(images)
    rounding = float((wanted - found).abs().max()) <= TOLERANCE * max(float(wanted.abs().max()), 1e-6)
    return copied if rounding else network


def _fuse(module: nn.Module) -> int:
    """Fuse what lies in a module, and count it."""
    count = 0
    for (name, layer), (next_name, following) in pairwise(list(module.named_children())):
        if type(layer) is nn.Conv2d and type(following) is nn.BatchNorm2d:
            if layer.out_channels != following.num_features or following.running_mean is None:
                continue
            setattr(module, name, fuse_conv_bn_eval(layer, following))
            setattr(module, next_name, nn.Identity())
            count += 1
    return count + sum(_fuse(child) for child in module.children())
