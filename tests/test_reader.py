"""One reader: a file means the same as a chip and as a scene, and no file is misread unsaid."""

import shlex
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform

from asm_mapping.catalog import Manifest, RoleFiles, check_dataset, inspect_chip, manifest_from
from asm_mapping.config import UserError
from asm_mapping.grid import Grid
from asm_mapping.mosaic import check_values, open_scene, sample_scene
from asm_mapping.sensors import SENSORS, Sensor, sensor_from
from asm_mapping.store import open_store, prepare

HERE = Affine(10, 0, 600_000, 0, -10, 700_000)


@pytest.fixture(autouse=True, scope="module")
def away(tmp_path_factory: pytest.TempPathFactory):
    "Keep stores away from a person's data."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASM_DATA", str(tmp_path_factory.mktemp("data")))
        yield


ROLES = {"optical": "sentinel2", "sar": "sentinel1"}
NAMES = {  # what files call a sensor's bands
    "optical": [None, ("B2", "B3", "B4", "B8"), ("b02", "green", "refl_B04", "NIR")],
    "sar": [None, ("VV", "VH"), ("Gamma0_VV_db", "Gamma0_VH_db")],
}


def write(path: Path, values: np.ndarray, names: Any = None, **options: Any) -> Path:
    "Write a GeoTIFF; scale, offset, mask and colours are set afterwards."
    path.parent.mkdir(parents=True, exist_ok=True)
    later = {k: options.pop(k) for k in ("scale", "offset", "mask", "colours") if k in options}
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    profile |= {"crs": "EPSG:32630", "transform": HERE, "dtype": values.dtype} | options
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as file,
    ):
        if "colours" in later:
            file.colorinterp = later["colours"]
        file.write(values)
        if names:
            file.descriptions = names
        if "scale" in later:
            file.scales, file.offsets = [later["scale"]] * count, [later["offset"]] * count
        if "mask" in later:
            file.write_mask(later["mask"])
    return path


def picture(role: str, seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    "Draw numbers that the role's sensor could have measured."
    generator = np.random.default_rng(seed)
    if role == "sar":
        return generator.normal(-12, 4, (2, height, width)).astype(np.float32)
    return generator.integers(200, 4000, (4, height, width)).astype(np.uint16)


def manifest_of(folder: Path, role: str, **files: Any) -> Manifest:
    "Describe a folder with chips of one role."
    given = {"sensor": SENSORS[ROLES[role]]} | files
    fields = {"path": folder / "m.toml", "root": folder, "name": "tiny", "target": "x"}
    fields |= {"licence": "none", "source": "tests", "mask": {"path": "{chip}_m.tif"}}
    fields["mask"]["positive"] = (1,)
    return manifest_from(fields | {role: RoleFiles(path="{chip}_x.tif", **given)})


def as_chip(path: Path, role: str, **files: Any) -> tuple[np.ndarray, np.ndarray]:
    "Read a file as a dataset's chip: physical values, valid pixels."
    folder = path.parent
    with rasterio.open(path) as file:
        write(folder / "c_m.tif", np.ones((1, *file.shape), np.uint8), transform=file.transform,
              crs=file.crs)  # fmt: skip
    manifest = manifest_of(folder, role, **files)
    row = {"chip": "c", "group": "", "mask": "c_m.tif", role: path.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        record = inspect_chip(manifest, row)
    if record.problems:
        raise UserError(str(record.problems[0]))
    sensor = manifest.role(role).sensor
    values = record.values[role].astype(np.float32) * np.float32(sensor.scale)
    return values + np.float32(sensor.offset), record.valid[role] > 0


def as_scene(
    path: Path, role: str, sensor: Sensor | None = None, **given: Any
) -> tuple[np.ndarray, np.ndarray]:
    "Read a file as a whole scene: physical values, valid pixels."
    sensor = sensor or SENSORS[ROLES[role]]
    scene = open_scene(role, [path], sensor, **given)
    values, valid = scene.read(scene.grid)
    values = values.astype(np.float32) * np.float32(sensor.scale)
    return values + np.float32(sensor.offset), valid > 0


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    "Draw how a file is written."
    role = draw(st.sampled_from(["optical", "sar"]))
    count = 4 if role == "optical" else 2
    return {
        "role": role,
        "names": draw(st.sampled_from(NAMES[role])),
        "order": draw(st.permutations(range(count))),
        "dtype": draw(st.sampled_from(["uint16", "int16", "float32", "float64"])),
        "tag": draw(st.sampled_from([None, 0, 777])),
        "person": draw(st.sampled_from([None, 778])),
        "masked": draw(st.booleans()),
        "alpha": draw(st.booleans()),
        "scaled": draw(st.booleans()),
        "south_up": draw(st.booleans()),
        "crs": draw(st.sampled_from(["EPSG:32630", "EPSG:4326", "EPSG:3857"])),
        "seed": draw(st.integers(0, 9)),
    }


def truth_of(how: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Make a file's numbers, what they are physically, and which are valid, by definition."
    role, generator = how["role"], np.random.default_rng(how["seed"])
    numbers = picture(role, how["seed"]).astype(np.float64)
    kind = np.dtype(how["dtype"])
    if role == "sar":  # integers hold hundredths of decibels
        numbers = np.round(numbers * 100) if kind.kind in "iu" else numbers
        numbers = numbers + 10_000 if kind.kind == "u" else numbers
    scale, offset = (1e-4, -0.1) if role == "optical" else (0.01, 0.0)
    if kind.kind == "u" and role == "sar":
        offset = -100.0
    size = numbers.shape[1:]
    gone = {mark: generator.random(size) < 0.1 for mark in ("tag", "person", "mask", "nan")}
    valid = np.ones(size, bool)
    for mark, value in (("tag", how["tag"]), ("person", how["person"])):
        if value is not None:
            numbers[:, gone[mark]] = value
            valid &= ~gone[mark]
    if kind.kind == "f":
        numbers[0, gone["nan"]] = np.nan
        valid &= ~gone["nan"]
    numbers = numbers.astype(kind)
    valid &= ~(numbers == 0).all(axis=0) if role == "optical" else True
    for value in (how["tag"], how["person"]):  # some pixels hold it by chance
        if value is not None:
            alike, measurable = numbers == value, role == "optical" and value in (0, 255)
            valid &= ~(alike.all(axis=0) if measurable else alike.any(axis=0))
    if how["masked"] or how["alpha"]:
        valid &= ~gone["mask"]
    how |= {"scale": scale, "offset": offset, "gone": gone["mask"]}
    return numbers, numbers.astype(np.float64) * scale + offset, valid


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(how=files())
def test_a_file_means_the_same_as_chip_and_as_scene(tmp_path_factory, how: dict[str, Any]):
    role, folder = how["role"], tmp_path_factory.mktemp("reader")
    numbers, physical, valid = truth_of(how)
    kind = numbers.dtype.kind
    scaled = how["scaled"] or (role == "sar" and kind != "f")
    if not scaled:
        physical = numbers.astype(np.float64) * (1e-4 if role == "optical" else 1.0)
    options = {"scale": how["scale"], "offset": how["offset"]} if scaled else {}
    names, layers = how["names"], numbers
    if names:  # described files hold their bands in any order
        names, layers = tuple(names[i] for i in how["order"]), numbers[how["order"]]
    if how["alpha"] and not how["masked"]:
        layers = np.concatenate(
            [layers, np.where(how["gone"], 0, 255)[None].astype(layers.dtype)]
        )
        grey = [ColorInterp.gray] + [ColorInterp.undefined] * (len(numbers) - 1)
        options["colours"] = [*grey, ColorInterp.alpha]
        names = (*names, None) if names else None
    if how["masked"]:
        options["mask"] = np.where(how["gone"], 0, 255).astype(np.uint8)
    here = {"EPSG:4326": Affine(1e-4, 0, -2, 0, -1e-4, 6)}.get(how["crs"], HERE)
    if how["south_up"]:
        here = here * Affine.translation(0, numbers.shape[1]) * Affine.scale(1, -1)
        layers = layers[:, ::-1]
        if "mask" in options:
            options["mask"] = options["mask"][::-1]
    options |= {"crs": how["crs"], "transform": here, "nodata": how["tag"]}
    path = write(folder / "c_x.tif", layers, names, **options)
    person = how["person"]
    chip = as_chip(path, role, nodata=person)
    scene = as_scene(path, role, nodata=() if person is None else (person,))
    for values, seen in (chip, scene):
        np.testing.assert_array_equal(seen, valid)
        np.testing.assert_allclose(values[:, valid], physical[:, valid], rtol=2e-6, atol=1e-5)
    assert chip[0][:, valid].tobytes() == scene[0][:, valid].tobytes()


def test_descriptions_go_before_the_listed_order_and_check_says_so(tmp_path: Path, capsys):
    values = picture("sar")
    for name in ("a", "b"):
        write(tmp_path / f"{name}_x.tif", values[::-1], ("VH", "VV"))
        write(tmp_path / f"{name}_m.tif", np.ones((1, 40, 56), np.uint8))
    manifest = manifest_of(tmp_path, "sar")
    report = check_dataset(manifest, progress=False)
    assert report.ok and "VH, VV, the manifest VV, VH: taken by name" in report.text()
    store = prepare(manifest, progress=False)
    assert "2 files call their bands VH, VV" in capsys.readouterr().err
    np.testing.assert_array_equal(store.image("sar", 0), values)
    assert open_store(store.folder).key == store.key
    listed = prepare(manifest_of(tmp_path, "sar", file_bands=("VV", "VH")), progress=False)
    np.testing.assert_array_equal(listed.image("sar", 0), values[::-1])
    assert listed.key != store.key


def test_numbers_that_cannot_be_are_refused_before_training(tmp_path: Path):
    power = (10 ** (picture("sar") / 10)).astype(np.float32)
    share = (picture("optical") / 1e4).astype(np.float32)
    for role, values, told in (
        ("sar", power, 'sensor = "sentinel1_linear" under [sar]'),
        ("optical", share, "scale = 1.0, offset = 0.0: say so under [optical.sensor]"),
    ):
        folder = tmp_path / role
        write(folder / "c_x.tif", values)
        write(folder / "c_m.tif", np.ones((1, 40, 56), np.uint8))
        manifest = manifest_of(folder, role)
        report = check_dataset(manifest, progress=False)
        assert not report.ok and told in report.text()
        with pytest.raises(UserError, match=told.replace("[", r"\[").split(" under")[0]):
            prepare(manifest, progress=False)
    mended = manifest_of(tmp_path / "sar", "sar", sensor=SENSORS["sentinel1_linear"])
    assert check_dataset(mended, progress=False).ok and prepare(mended, progress=False).roles


def test_half_a_chip_of_exact_zeros_is_told(tmp_path: Path):
    values = picture("sar")
    values[:, :, :30] = 0
    write(tmp_path / "c_x.tif", values)
    write(tmp_path / "c_m.tif", np.ones((1, 40, 56), np.uint8))
    report = check_dataset(manifest_of(tmp_path, "sar"), progress=False)
    assert report.ok and "if that is no data, nodata = 0 under [sar]" in report.text()
    told = check_dataset(manifest_of(tmp_path, "sar", nodata=0.0), progress=False)
    assert not told.notes and told.valid_shares["sar"] < 0.5
    scene = open_scene("sar", [tmp_path / "c_x.tif"], SENSORS["sentinel1"])
    assert any("--sar-nodata 0" in note for note in check_values(scene, sample_scene(scene)))


# --- around the Earth ------------------------------------------------------------------------


def field(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    "Draw a smooth field over places, the same on both sides of the date line."
    return -12 + 5 * np.sin(np.radians((longitude % 360 - 180) * 900)) + (latitude + 17) * 20


def grid_field(grid: Grid) -> np.ndarray:  # (1, row, column) float32
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform * (columns.ravel(), rows.ravel())
    longitude, latitude = map(np.array, transform(grid.crs, "EPSG:4326", x, y))
    return field(longitude, latitude).reshape(1, grid.height, grid.width).astype(np.float32)


def test_scenes_over_the_date_line_lie_where_they_lie(tmp_path: Path):
    one_band = SENSORS["sentinel1"].model_copy(update={"bands": ("VV",)})
    degrees, step = CRS.from_epsg(4326), 2e-4
    wests = {"over": (179.9,), "under": (-180.1,), "both": (179.9, -180.0)}
    (x,), (y,) = transform(degrees, "EPSG:32760", [179.97], [-17.02])
    targets = [
        Grid(CRS.from_epsg(32760), Affine(20, 0, x, 0, -20, y), 150, 300),
        Grid(degrees, Affine(step, 0, 179.96, 0, -step, -17.01), 150, 400),
        Grid(degrees, Affine(step, 0, -180.04, 0, -step, -17.01), 150, 400),
    ]
    for name, starts in wests.items():
        paths = []
        for number, west in enumerate(starts):
            width = 500 if len(starts) == 2 else 1000
            grid = Grid(degrees, Affine(step, 0, west, 0, -step, -17.0), 500, width)
            path = tmp_path / f"{name}{number}.tif"
            paths.append(write(path, grid_field(grid), transform=grid.transform, crs=degrees))
        scene = open_scene("sar", paths, one_band)
        assert scene.grid.width <= 1001, "a grid around the Earth"
        for target in targets:
            values, valid = scene.read(target)
            assert valid.mean() > 0.98, (name, target.crs, valid.mean())
            off = np.abs(values - grid_field(target))[:, valid > 0]
            assert np.quantile(off, 0.99) < 0.05, (name, target.crs)


# --- advice ----------------------------------------------------------------------------------


def run_advice(text: str, folder: Path) -> None:
    "Carry out the GDAL command that ends an error."
    command = next(
        part for part in text.replace("`", "").split(": ") if part.startswith(("gdal", "ogr"))
    )
    subprocess.run(shlex.split(command.split(". Or say")[0]), cwd=folder, check=True)


@pytest.mark.skipif(not shutil.which("gdal_edit.py"), reason="GDAL's own commands are not here")
def test_commands_that_errors_advise_do_mend_the_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optical = picture("optical")
    byte = (optical // 16).astype(np.uint8)
    alpha = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    eight_bit = sensor_from(
        {"base": "sentinel2", "unit": "digital_number", "scale": 1.0}, "optical"
    )
    stated = sensor_from({"base": "sentinel2", "scale": 1e-4}, "optical")
    for name, path, sensor in (
        ("alpha", write(Path("alpha.tif"), byte, colours=alpha), eight_bit),
        ("scale", write(Path("scale.tif"), optical, scale=1e-4, offset=-0.1), stated),
    ):
        with pytest.raises(UserError) as told:
            as_scene(path, "optical", sensor)
        run_advice(str(told.value), tmp_path)
        assert as_scene(path, "optical", sensor)[1].all(), name
    for name, change, made in (
        ("turned", HERE * Affine.rotation(5), "turned_north_up.tif"),
        ("mirrored", HERE * Affine.scale(-1, 1), "mirrored_north_up.tif"),
    ):
        path = write(Path(f"{name}.tif"), optical, transform=change)
        with pytest.raises(UserError) as told:
            as_scene(path, "optical")
        run_advice(str(told.value), tmp_path)
        assert as_scene(Path(made), "optical")[1].mean() > 0.5
    corners = [(r, c) for r in (0, 40) for c in (0, 56)]
    points = [rasterio.control.GroundControlPoint(r, c, *(HERE * (c, r))) for r, c in corners]
    path = write(Path("points.tif"), optical, gcps=points, transform=Affine.identity())
    with pytest.raises(UserError, match="-tps") as told:
        as_scene(path, "optical")
    run_advice(str(told.value), tmp_path)
    assert as_scene(Path("points_placed.tif"), "optical")[1].any()


def test_options_that_errors_advise_do_mend_the_reading(tmp_path: Path):
    power = (10 ** (picture("sar") / 10)).astype(np.float32)
    share = (picture("optical") / 1e4).astype(np.float32)
    filled = np.where(picture("sar") < -14, -9999, picture("sar")).astype(np.float32)
    for role, values, advice in (
        ("sar", power, "--sar-sensor sentinel1_linear"),
        ("sar", filled, "--sar-nodata -9999"),
        ("optical", share, 'scale = 1.0, offset = 0.0: write them and base = "sentinel2"'),
    ):
        path = write(tmp_path / "x.tif", values)
        scene = open_scene(role, [path], SENSORS[ROLES[role]])
        with pytest.raises(UserError) as told:
            check_values(scene, sample_scene(scene))
        assert advice in str(told.value)
        given, sensor = {}, SENSORS[ROLES[role]]
        if "nodata" in advice:
            given = {"nodata": (float(advice.split()[-1]),)}
        elif role == "sar":
            sensor = sensor_from(advice.split()[-1], role)
        else:
            (tmp_path / "S.toml").write_text('scale = 1.0\noffset = 0.0\nbase = "sentinel2"\n')
            sensor = sensor_from(str(tmp_path / "S.toml"), role)
        scene = open_scene(role, [path], sensor, **given)
        assert not check_values(scene, sample_scene(scene))
    five = np.concatenate([picture("optical"), picture("optical")[:1]])
    path = write(tmp_path / "five.tif", five)
    with pytest.raises(UserError, match="--optical-bands B2,B3,B4,B8"):
        as_scene(path, "optical")
    bands = ("B2", "B3", "B4", "B8", "other")
    by_scene, by_chip = as_scene(path, "optical", bands=bands), None
    shutil.copy(path, tmp_path / "c_x.tif")
    by_chip = as_chip(tmp_path / "c_x.tif", "optical", file_bands=bands)
    assert by_scene[0].tobytes() == by_chip[0].tobytes()
