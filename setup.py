"""Package metadata lives in settings.ini; this file only hands it to setuptools."""

from configparser import ConfigParser

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
EXTRAS = ("lab", "tensorboard", "onnx", "openvino", "tune", "cluster", "dev")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    license=cfg["license"].upper(),
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[f"{cfg['lib_path']}*"]),
    install_requires=cfg["requirements"].split(),
    extras_require={extra: cfg[f"{extra}_requirements"].split() for extra in EXTRAS},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
)
