"""Run by a Python that has QGIS: open a project, tell what is in it, draw what is ticked."""

import json
import os
import sys

from qgis.core import (
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def about(node) -> dict:
    "Say what QGIS made of a layer."
    layer = node.layer()
    told = {"name": node.name(), "shown": node.isVisible(), "valid": layer.isValid()}
    told |= {"crs": layer.crs().authid(), "kind": layer.renderer().type()}
    if isinstance(layer, QgsRasterLayer) and told["kind"] == "paletted":
        told["ramp"] = [(c.value, c.color.alpha()) for c in layer.renderer().classes()]
    elif isinstance(layer, QgsRasterLayer):
        ramp = layer.renderer().shader().rasterShaderFunction()
        told["ramp"] = [(item.value, item.color.alpha()) for item in ramp.colorRampItemList()]
    else:
        told |= {"label": layer.labeling().settings().fieldName, "sites": layer.featureCount()}
    return told


def draw(layers: list, picture: str) -> None:
    "Draw layers as the canvas would."
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setOutputSize(QSize(600, 600))
    settings.setBackgroundColor(QColor("white"))
    settings.setDestinationCrs(QgsProject.instance().crs())
    settings.setExtent(layers[-1].extent())
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)


project_file, sites_file, picture = sys.argv[1:]
application = QgsApplication([], False)
application.initQgis()
project = QgsProject.instance()
read = project.read(project_file)
nodes = project.layerTreeRoot().findLayers()
told = {"read": read, "crs": project.crs().authid(), "layers": [about(n) for n in nodes]}
draw([node.layer() for node in nodes if node.isVisible()], picture)
alone = QgsVectorLayer(f"{sites_file}|layername=sites", "alone", "ogr")
told["alone"] = [alone.labelsEnabled(), alone.renderer().symbol().symbolLayerCount()]
print(json.dumps(told), flush=True)
os._exit(0)  # QGIS 3.22 may crash when it ends
