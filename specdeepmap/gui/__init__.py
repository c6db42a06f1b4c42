# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows of the plugin's own, beside the dialogs that QGIS makes of the algorithms."""
