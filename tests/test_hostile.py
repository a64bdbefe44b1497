"""No file takes the machine down, or asks the network: hostile ones through the commands."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import CommandLine
from hostile import MEGABYTES, SECONDS, SQUARE, picture

CASES = 40  # python tests/hostile.py 200 runs more of them


def test_hostile_files_end_in_a_sentence_soon_and_in_little_memory(cli: CommandLine):
    words = [sys.executable, Path(__file__).with_name("hostile.py"), str(CASES), "1"]
    done = subprocess.run(words, env=cli.env, capture_output=True, text=True, timeout=1500)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == CASES, done.stderr[-3000:]
    for case in found:
        assert case["status"] in (0, 1, 3) and case["told"], case
        assert "Traceback" not in case["told"], case
        assert case["cpu"] < SECONDS and case["megabytes"] < MEGABYTES, case


class Counting(http.server.BaseHTTPRequestHandler):
    "Remembers what it was asked for."

    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        Counting.asked += (self.path,)
        self.send_error(404)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    "A server on this machine that counts who asks it."
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_no_command_asks_the_network(cli: CommandLine, address: str, tmp_path: Path):
    picture(tmp_path / "scene.tif")
    source = '<SourceFilename relativeToVRT="%d">%s</SourceFilename>'
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource>'
    text = f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTRasterBand></VRTDataset>'
    (tmp_path / "far.vrt").write_text(text % (0, f"/vsicurl/{address}/a.tif"))
    (tmp_path / "nested.vrt").write_text(text % (1, "far.vrt"))
    link = {"type": "link", "properties": {"href": f"{address}/crs", "type": "proj4"}}
    shapes = {"type": "FeatureCollection", "crs": link}
    shapes["features"] = [{"type": "Feature", "properties": {}, "geometry": SQUARE}]
    (tmp_path / "linked.geojson").write_text(json.dumps(shapes))
    (tmp_path / "far.geojson").write_text(f"<OGRVRTDataSource>{address}</OGRVRTDataSource>")
    scene, out = tmp_path / "scene.tif", tmp_path / "cut"
    for raster in ("far.vrt", "nested.vrt"):
        path = tmp_path / raster
        told = cli("polygons", path, "--out", tmp_path / "a.gpkg", status=1).text
        assert "ASM_NETWORK=1" in told, told
        cli.quickly("chips", "--labels", path, "--optical", scene, "--out", out, status=1)
        cli.quickly("chips", "--labels", scene, "--optical", path, "--out", out, status=1)
    words = ("--optical", scene, "--out", out, "--chip-px", 32)
    cli.quickly("chips", "--labels", tmp_path / "far.geojson", *words, status=1)
    cli.quickly("chips", "--labels", tmp_path / "linked.geojson", *words, status=0)
    assert Counting.asked == ()
