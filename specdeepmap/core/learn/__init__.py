# SPDX-License-Identifier: GPL-3.0-or-later
"""The learning room: networks, training and prediction. Its option tables import without torch."""
