# SPDX-License-Identifier: GPL-3.0-or-later
"""Map a whole raster with a model: the Deep Learning Mapper."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from specdeepmap import __version__
from specdeepmap.core.data.bandmatch import match_bands, reordered
from specdeepmap.core.data.chips import image_stem
from specdeepmap.core.data.grid import Grid
from specdeepmap.core.data.labels import LabelRaster
from specdeepmap.core.data.mapcheck import score_map
from specdeepmap.core.data.maplayers import MAP, MEASURES, PROBABILITIES, Layers
from specdeepmap.core.data.polygons import companions, other_layers, polygonize
from specdeepmap.core.data.raster import Raster, check_nodata, open_input, warn_of_points
from specdeepmap.core.data.scores import Scores, write_confusion, write_scores
from specdeepmap.core.data.sieve import sieve
from specdeepmap.core.data.tiling import Window
from specdeepmap.core.data.writer import build_overviews
from specdeepmap.core.errors import ConfigError, RasterError
from specdeepmap.core.jobs import PredictJob, PredictResult
from specdeepmap.core.jobs.base import check_apart
from specdeepmap.core.learn.architectures import ARCHITECTURES
from specdeepmap.core.learn.bandcheck import warn_of_known_image, warn_of_other_classes
from specdeepmap.core.learn.checkpoint import ModelCard
from specdeepmap.core.learn.predictor import Predictor
from specdeepmap.core.learn.team import Team
from specdeepmap.core.progress import Progress
from specdeepmap.core.staging import Staging, remove_staged
from specdeepmap.core.tasks.mapping import Counts, Plan, map_area

_LARGEST_AREA = 2**31 - 1  # what GDAL's sieve takes


def predict_raster(job: PredictJob, progress: Progress) -> PredictResult:
    """Predict every pixel of a raster, tile by tile, and write the map."""
    _check_files(job)
    image = open_input("IMAGE", job.image, job.nodata)
    check_nodata(job.nodata, image)
    warn_of_points(image, progress)
    predictor = Predictor(job.checkpoint, job.device, job.precision, job.tta)
    image = _with_nodata_of_training(image, predictor, progress)
    stem = image_stem(image)
    image = _with_right_bands(job, image, predictor)
    predictor.check_raster(image, "IMAGE", progress)
    area = _area(job, image)
    truth = None if job.ground_truth is None else _open_truth(job, image.grid, stem, predictor.card, progress)
    team = Team.join(job.devices, predictor.device)
    predictor.use(team.device)
    mapping = _Mapping(job, image, area, predictor, truth, team, progress)
    return mapping.take_part() if team.number else mapping.lead()


def _open_truth(job: PredictJob, grid: Grid, stem: str, card: ModelCard, progress: Progress) -> LabelRaster:
    """Open the ground truth, and say why its scores may mislead: better now than after hours."""
    truth = LabelRaster(str(job.ground_truth), grid, progress, job.zero_as, "GROUND_TRUTH")
    found = truth.values(progress.part(0.0, 0.02))
    missing = set(card.classes.values) - found
    if missing and job.zero_as is None and (len(found) == 1 or (truth.zeros and len(missing) == 1)):
        progress.warning(
            f"{truth.name} holds no pixel of class {', '.join(map(str, sorted(missing)))}, and 0 means unlabelled: "
            "where the map shows too much of the others is not scored. If 0 is a class, as in masks of 0 and 1, set "
            "ZERO_AS as in the Raster Splitter."
        )
    warn_of_known_image(card, stem, progress)
    warn_of_other_classes(card.classes, truth.names, "GROUND_TRUTH", progress)
    return truth


@dataclass(frozen=True)
class _Mapping:
    """A mapping from the first tile to the last file.

    The first process of a team leads: it puts together what all wrote, and does everything that needs the whole map.
    """

    job: PredictJob
    image: Raster
    area: Window
    predictor: Predictor
    truth: LabelRaster | None
    team: Team
    progress: Progress

    def take_part(self) -> PredictResult:
        """Map a share of the tiles for the process that leads."""
        files = self._parts(self.team.number)
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._map(self._plan(self.team.number), files, self.progress)
        except BaseException:
            remove_staged(files.values())  # the first process may have tidied up before these were closed
            raise
        return self._result(None)

    def lead(self) -> PredictResult:
        """Map, and make everything else of the map."""
        job, progress, classes = self.job, self.progress, self.predictor.card.classes
        with Staging(progress) as staging:
            files = {name: staging.file(path) for name, path in self._targets.items()}
            for path in filter(None, (job.error_map, job.vector, job.scores_csv, job.confusion_csv)):
                staging.file(path)  # a folder that cannot be written is better found now than after hours
            if job.min_area > 1:
                files[MAP] = staging.scratch(_beside(job.output, f"raw{self.team.mark}"))
            if self.team.size == 1:
                self._map(self._plan(0), files, progress.part(0.02, 0.88))
            else:
                self._map_together(files, staging)
            if job.min_area > 1:
                progress.report(0.88, f"Joining patches of less than {job.min_area} pixels to their neighbours")
                raw, files[MAP] = files[MAP], staging.file(job.output)
                least = min(job.min_area, self.area.width * self.area.height, _LARGEST_AREA)
                sieve(raw, files[MAP], least, progress.part(0.88, 0.92))
            for name, path in files.items():
                build_overviews(path, "NEAREST" if name == MAP else "AVERAGE", progress.part(0.92, 0.93))
            scores = self._score(files[MAP], staging)
            if job.vector is not None:
                progress.report(0.95, "Making polygons")
                vector = staging.file(job.vector)
                for path in companions(job.vector):
                    staging.companion(path)
                polygonize(files[MAP], vector, classes, progress.part(0.95, 0.99))
        progress.report(1.0)
        return self._result(scores)

    @property
    def _targets(self) -> dict[str, Path]:
        """The rasters that are wanted, by the name of the layer."""
        job = self.job
        wanted = {MAP: job.output, PROBABILITIES: job.probabilities}
        wanted.update({name: getattr(job, name) for name in MEASURES})
        return {name: path for name, path in wanted.items() if path is not None}

    def _parts(self, number: int) -> dict[str, Path]:
        """The files that a process of a team writes its share to."""
        return {name: _beside(path, f"{number}of{self.team.mark}") for name, path in self._targets.items()}

    def _plan(self, number: int) -> Plan:
        """Cut the area into tiles, for a process of the team."""
        return plan_of(self.job, self.area, self.predictor, (number, self.team.size))

    def _layers(self, files: Mapping[str, Path], reach: tuple[int, int]) -> Layers:
        top, end = reach
        grid = self.image.grid.cut(self.area).cut(Window(0, top, self.area.width, end - top))
        classes = self.predictor.card.classes
        return Layers(files, grid, top, classes, self._notes(), self.job.probability_format)

    def _map(self, plan: Plan, files: Mapping[str, Path], progress: Progress) -> None:
        """Map a process's share, and wait for the others; with more processes than rows of tiles it may be empty."""
        counts = Counts()
        if plan.read_rows:
            counts = self._map_share(plan, files, progress)
        mapped, lost = self.team.total((counts.mapped, counts.lost))
        if not mapped:
            self.progress.warning(
                f"IMAGE {self.image.name} has no pixel with data in the mapped area; the map is empty."
            )
        if lost:
            self.progress.warning(
                f"{lost} pixels got no class: the network gave no number there. IMAGE {self.image.name} probably holds "
                "extreme values, such as a no-data value that it does not declare; or set PRECISION to float32."
            )

    def _map_share(self, plan: Plan, files: Mapping[str, Path], progress: Progress) -> Counts:
        count = sum(len(plan.rows[row]) for row in plan.read_rows)
        shape, where = f"{plan.tile[0]} x {plan.tile[1]}", f"{self.predictor.device.type}, {self.predictor.precision}"
        progress.report(0.0, f"Mapping {count} tiles of {shape} pixels, {plan.batch} at a time, on {where}")
        with self._layers(files, plan.reach) as layers:
            return map_area(self.image, plan, self.predictor, layers, progress)

    def _map_together(self, files: Mapping[str, Path], staging: Staging) -> None:
        """Map this process's share, and join those of all."""
        parts = []
        for number in range(self.team.size):
            plan = self._plan(number)
            if plan.read_rows:
                written = {name: staging.scratch(path) for name, path in self._parts(number).items()}
                parts.append((written, plan.reach[0]))
        self._map(self._plan(0), self._parts(0), self.progress.part(0.02, 0.84))
        with self._layers(files, (0, self.area.height)) as layers:
            layers.join(parts, self.progress.part(0.84, 0.88))

    def _notes(self) -> dict[str, str]:
        """What the files say of themselves."""
        job, card = self.job, self.predictor.card
        network = ARCHITECTURES[card.architecture].title + (f" with {card.backbone}" if card.backbone else "")
        return {
            "TIFFTAG_SOFTWARE": f"SpecDeepMap {__version__}",
            "TIFFTAG_DATETIME": datetime.now().strftime("%Y:%m:%d %H:%M:%S"),
            "MODEL": job.checkpoint.name,
            "MODEL_NETWORK": network,
            "MODEL_DATE": card.date,
        }

    def _score(self, class_map: Path, staging: Staging) -> Scores | None:
        """Compare the finished map with the ground truth, where there is one."""
        job, progress, classes = self.job, self.progress, self.predictor.card.classes
        if self.truth is None:
            return None
        progress.report(0.93, "Comparing with the ground truth")
        error_map = None if job.error_map is None else staging.file(job.error_map)
        scores, unknown = score_map(
            class_map, self.truth, classes, progress.part(0.93, 0.95), area=self.area, error_map=error_map
        )
        if job.scores_csv is not None:
            write_scores(staging.file(job.scores_csv), scores, classes)
        if job.confusion_csv is not None:
            write_confusion(staging.file(job.confusion_csv), scores, classes)
        for value, count in sorted(unknown.items()):
            progress.warning(f"The model does not know class {value}; its {count} reference pixels are left out.")
        if not scores.matrix.any():
            progress.warning("GROUND_TRUTH has no labelled pixel of a known class on the map; there are no scores.")
        else:
            progress.info(f"Mean IoU {scores.mean_iou:.4f}, overall accuracy {scores.overall_accuracy:.4f}.")
        return scores

    def _result(self, scores: Scores | None) -> PredictResult:
        job = self.job
        return PredictResult(
            output=job.output,
            confidence=job.confidence,
            probabilities=job.probabilities,
            margin=job.margin,
            entropy=job.entropy,
            vector=job.vector,
            error_map=job.error_map,
            scores_csv=job.scores_csv,
            confusion_csv=job.confusion_csv,
            mean_iou=None if scores is None else scores.mean_iou,
            overall_accuracy=None if scores is None else scores.overall_accuracy,
            classes=self.predictor.card.classes.entries,
        )


def plan_of(job: PredictJob, area: Window, predictor: Predictor, share: tuple[int, int] = (0, 1)) -> Plan:
    """Cut an area into the tiles that a job wants, or, where it leaves that open, into those that suit the model.

    Args:
        job: the parameters.
        area: in image pixels.
        predictor: at work.
        share: number of a process, from 0, and how many processes share the tiles.
    """
    trained = min(predictor.card.chip_width, predictor.card.chip_height)
    side = min(job.tile_size, 4 * max(area.width, area.height, trained))  # larger ones would be mirrored land
    overlap = round((side or trained) * job.overlap / 100)
    tile = (side, side) if side else predictor.tile_size(area.width, area.height, overlap)
    width, height = tile
    batch = job.batch_size or predictor.batch_size(height, width)
    return Plan(area, tile, overlap, batch, job.blend, share)


def _beside(path: Path, mark: str) -> Path:
    """Give the name of a file that is needed for a while."""
    return path.with_name(f".{path.stem}.{mark}.part{path.suffix}")


def _check_files(job: PredictJob) -> None:
    """Check that no output replaces an input, another output, or other layers of a database.

    Raises:
        ConfigError: if one would.
    """
    others = [] if job.vector is None else other_layers(job.vector)
    if others:
        raise ConfigError(
            f"VECTOR {job.vector} exists and holds other layers ({', '.join(others)}), which would be lost: the file "
            "is written anew. Choose another file."
        )
    outputs = job.outputs
    if job.vector is not None:
        outputs["VECTOR"] += companions(job.vector)
    inputs = {"IMAGE": _files_of(job.image), "CHECKPOINT": [job.checkpoint, job.checkpoint.with_suffix(".json")]}
    if job.ground_truth is not None:
        inputs["GROUND_TRUTH"] = _files_of(job.ground_truth)
    check_apart(outputs, inputs)


def _files_of(source: str) -> list[Path]:
    """Give the files that a raster is made of, and those beside it: of a virtual raster also those of its sources.

    GDAL itself lists what a virtual raster names, and not what that is made of.
    """
    found: dict[str, Path] = {}
    waiting = [source]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = Path(name)
        if name == source or name.lower().endswith(".vrt"):
            with suppress(RasterError):  # a source that is missing is told when it is read
                waiting += Raster.open(name).dataset.GetFileList() or ()
    return list(found.values())


def _with_nodata_of_training(image: Raster, predictor: Predictor, progress: Progress) -> Raster:
    """Give the image with the no-data value of the training chips, where it declares none and has no mask.

    The same image may have been cut with NODATA: what was missing in training must not be mapped as data.
    """
    nodata = predictor.card.image_nodata
    if nodata is None or image.nodata is not None or image.masked:
        return image
    known = Raster.open(image.name, nodata)
    if known.nodata is None:  # its number type cannot hold it
        return image
    progress.info(
        f"IMAGE {image.name} declares no no-data value; {nodata:g} is taken, as in the training chips of the model. "
        "NODATA sets another."
    )
    return known


def _with_right_bands(job: PredictJob, image: Raster, predictor: Predictor) -> Raster:
    """Give the image with its bands in the order of the model, where that is wanted."""
    if job.match_bands == "none":
        return image
    card, name = predictor.card, f"IMAGE {image.name}"
    return reordered(image, match_bands(image.bands, card.bands, card.wavelengths_nm, job.match_bands, name))


def _area(job: PredictJob, image: Raster) -> Window:
    """Give the pixels to map.

    Raises:
        ConfigError: if the extent lies outside of the image.
    """
    if job.extent is None:
        return image.whole
    if image.grid.transform[2] or image.grid.transform[4]:
        raise ConfigError("EXTENT cannot be used with IMAGE, whose grid is rotated. Warp it to a north-up grid first.")
    xmin, ymin, xmax, ymax = job.extent
    area = image.grid.window_of((xmin, ymin, xmax, ymax))
    if not area.width or not area.height:
        wanted, has = (", ".join(f"{number:.10g}" for number in box) for box in (job.extent, image.grid.extent))
        own = "" if image.grid.crs else " IMAGE has no coordinate system, so that EXTENT has to be in its own units."
        raise ConfigError(
            f"EXTENT {wanted} lies outside of IMAGE, which reaches over {has} (xmin, ymin, xmax, ymax).{own}"
        )
    return area
