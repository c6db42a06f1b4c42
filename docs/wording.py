# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of the tables that stand in no job: what kinds of values are called, and what each output is."""

from __future__ import annotations

KINDS = {
    "raster": "raster layer or file",
    "labels": "raster, polygon or point layer, or file",
    "field": "name of a field",
    "file": "file",
    "folder": "folder",
    "integer": "whole number",
    "number": "number",
    "flag": "yes or no (``true``, ``false``)",
    "choice": "one of a list",
    "text": "text",
    "extent": "extent",
    "folder_out": "folder to write",
    "file_out": "file to write",
    "raster_out": "raster to write",
    "vector_out": "vector file to write",
    "html": "page for the browser (HTML)",
    "vector": "vector layer",
}
"""What a kind of value is called in the tables."""

UNITS = ("pixels", "%", "chips", "tiles", "epochs", "seconds", "degrees", "standard deviations")
"""Units that stand in brackets in a label."""

JOB_FILE_ONLY = {
    "classes": "Names and colours of the classes: a list of objects with ``value`` (1 to 255), ``name`` and ``color`` "
    "(``#rrggbb``). In QGIS they are read from the style of the label layer. Default: those of the label file.",
}
"""Fields that no dialog asks for."""

MEANINGS: dict[str, dict[str, str]] = {
    "tile": {
        "output_folder": "The dataset folder, ready for the Dataset Maker.",
        "tile_count": "How many chips were written.",
        "skipped_count": "How many were left out, since too few of their pixels are labelled.",
        "tile_index": "``tiles.gpkg``: one polygon per chip, loaded as the layer *Chips of …*.",
    },
    "prepare": {
        "output_folder": "The folder with the tables: what the trainer asks for.",
        "train_csv": "``train_files.csv``: the training chips.",
        "validation_csv": "``validation_files.csv``: the chips that choose the best epoch.",
        "test_csv": "``test_files.csv``: the chips that the tester measures on.",
        "summary_csv": "``Summary_train_val.csv``: pixels and shares of each class in each set, and class weights.",
        "statistics_csv": "``Normalize_Bands.csv``: mean and standard deviation of each band. Only with STATISTICS.",
        "tile_index": "``tiles.gpkg``, its field ``split`` filled in; loaded as the layer *Split of …*. Only in QGIS.",
        "report": "``dataset_report.html``: class shares, the sets on the ground, warnings, and the bands.",
    },
    "train": {
        "best_checkpoint": "The model of the best epoch: what tester and mapper ask for.",
        "last_checkpoint": "``last.ckpt``: the model of the last epoch, from which RESUME goes on.",
        "best_val_iou": "Mean IoU of the best epoch on the validation chips; missing where there are none.",
        "epochs_trained": "How many epochs were trained; fewer than EPOCHS after an early stop.",
        "history_csv": "``history.csv``: a row per epoch.",
        "log_folder": "The TensorBoard logs, for the TensorBoard Launcher.",
        "model_folder": "The folder with checkpoints, model cards, history, report and ``job.json``.",
        "report": "``training_report.html``: curves, scores beside simple baselines, example chips, warnings.",
    },
    "tensorboard": {
        "url": "The address to open in a browser, such as ``http://127.0.0.1:6006/``.",
        "port": "The port that it really listens on.",
    },
    "evaluate": {
        "scores_csv": "IoU, precision, recall, F1 and number of pixels of each class, and the mean IoU.",
        "confusion_csv": "Pixels by true class (rows) and predicted class (columns).",
        "chip_scores_csv": "Scores of each chip. Only where CHIP_SCORES_CSV is set.",
        "prediction_folder": "The predicted chips. Only where PREDICTION_FOLDER is set.",
        "mean_iou": "Mean of the classes' IoU, 0 to 1.",
        "overall_accuracy": "Share of the labelled pixels that are right, 0 to 1.",
        "macro_f1": "Mean of the classes' F1, 0 to 1.",
        "kappa": "Agreement beyond chance (Cohen): 1 is perfect, 0 is chance.",
        "average_accuracy": "Mean of the classes' recall, 0 to 1; also called balanced accuracy.",
        "weighted_f1": "F1 of the classes, weighted by their reference pixels.",
        "calibration_error": "How far the model's confidence is from being right as often as it says; 0 is perfect.",
        "report": "A page that explains all of it, with the worst and the best chips.",
    },
    "predict": {
        "output": "The map: class ids, 0 = no data, with class names, colours and overviews.",
        "confidence": "Probability of the chosen class, 0 to 1.",
        "probabilities": "A band per class, 0 to 1, or whole percent.",
        "margin": "Distance between the best and the second probability, 0 to 1.",
        "entropy": "Shannon's entropy of the probabilities, in nats.",
        "vector": "The map as polygons with class id, class name and area.",
        "error_map": "1 where map and ground truth agree, 2 where they disagree, 0 where nothing can be compared.",
        "scores_csv": "Scores against the ground truth.",
        "confusion_csv": "Pixels by true and predicted class.",
        "mean_iou": "Mean IoU against the ground truth. Only with GROUND_TRUTH.",
        "overall_accuracy": "Share of the compared pixels that are right. Only with GROUND_TRUTH.",
    },
}
"""What each output is, by job and field."""
