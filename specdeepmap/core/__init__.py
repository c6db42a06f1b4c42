# SPDX-License-Identifier: GPL-3.0-or-later
"""The QGIS-free library: a Job in, a Result out. Rooms: data, learn, tasks."""
