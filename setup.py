"""Packaging of mmt_jax; the lower bounds are the versions that the tests run with."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent
README = HERE / "README.md"

CORE = [
    "absl-py>=2.1",
    "flax>=0.12.8",
    "grain>=0.2.18",
    "ijson>=3.3",
    "jax>=0.10.2,<0.12",  # what is exported follows jax's serialisation: see mmt_jax/infer/export
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "numpy>=2.0",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "rich>=14.1",
    "scipy>=1.13",
    "sentencepiece>=0.2.3",
    "tensorboardX>=2.6",
]
EXTRAS = {
    "tf": [
        "tensorflow>=2.21",
        "tensorflow-hub>=0.16.1",
        "tf-keras>=2.21",
        "setuptools>=77,<81",  # tensorflow_hub imports pkg_resources; torch wants 77
    ],
    # Weights that are pickled need torch too.
    "hf": ["huggingface_hub>=1", "safetensors>=0.6", "tokenizers>=0.22"],
    # Photos, and detectors in ONNX; those of TensorFlow need `tf`, torchvision's torchvision.
    "photos": ["pillow>=11", "onnx>=1.17", "onnxruntime>=1.20"],
    # Features and corpora as others store them.
    "data": [
        "apache-beam>=2.65",
        "array-record>=0.8",
        "h5py>=3.11",
        "lmdb>=1.5",
        "pillow>=11",
        "tensorflow-datasets>=4.9.9",
    ],
    "retrieval": ["faiss-cpu>=1.12"],
    "test": [
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "pytest>=8",
        "pytest-xdist>=3.7",
        # The published models, which ours must equal.
        "torch>=2.9",
        "transformers>=5.20,<6",
    ],
    "dev": ["pre-commit>=4", "pyright>=1.1.400", "ruff>=0.12"],
}
EXTRAS["test"] += EXTRAS["hf"] + EXTRAS["retrieval"] + EXTRAS["photos"]
EXTRAS["test"] += EXTRAS["data"]
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setuptools.setup(
    name="mmt_jax",
    version="0.1.0",
    description="Image–text transformers of one ablation study, trained, compared and served",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["mmt_jax", "mmt_jax.*"]),
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmt = mmt_jax.cli.main:run"]},
)
