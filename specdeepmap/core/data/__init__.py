# SPDX-License-Identifier: GPL-3.0-or-later
"""The data room: rasters, tiles, classes, datasets, scores. It never imports torch."""
