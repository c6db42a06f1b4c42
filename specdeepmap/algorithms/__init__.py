# SPDX-License-Identifier: GPL-3.0-or-later
"""The QGIS room: dialogs in, layers out, no computation."""
