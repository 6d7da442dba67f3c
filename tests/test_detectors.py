"""Every detector, run for real on a small model of its interface that the test builds itself."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmt_jax import detectors
from mmt_jax.configs.config import Config, ObjectiveConfig
from mmt_jax.configs.models import ClipConfig
from mmt_jax.data import regions
from mmt_jax.detectors import base, proposals
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES as BBOXES
from mmt_jax.photo import FEATURES, IDS, PROBS, SCORES
from mmt_jax.photos import pictures

pytestmark = [pytest.mark.tf, pytest.mark.torch]

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
LABEL_MAP = """
item { id: 1 name: "/m/01" display_name: "cat" }
item {
  name: 'dog'
  id: 2
}
"""


def picture(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# What the TensorFlow graphs below return: four rows, three of them real, the second the best.
# Features are maps of 2 × 2 places; their means are 1.5, 5.5, 9.5, and what the picture adds.
BOXES = np.array([[0, 0, 0.5, 0.5], [0.2, 0.1, 1, 0.9], [0, 0.5, 1, 1], [0, 0, 0, 0]], np.float32)
CLASSES = np.array([[0.9, 0.1, 0], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [1, 0, 0]], np.float32)
MAPS = np.stack([np.arange(16), 2 * np.arange(16)], axis=-1).reshape(1, 4, 2, 2, 2)


def outputs(tf, pixels):
    """Nodes of the Object Detection API; features move with the picture's mean colour."""
    mean = tf.reduce_mean(tf.cast(pixels, tf.float32)) / 255
    return {
        "detection_boxes": tf.constant(BOXES[None]),
        "detection_features": tf.constant(MAPS.astype(np.float32)) + mean,
        "detection_multiclass_scores": tf.constant(CLASSES[None]),
        "num_detections": tf.constant([3.0]),
    }


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        for name, value in outputs(tf, pixels).items():
            tf.identity(value, name)
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "map.pbtxt").write_text(LABEL_MAP)
    return f"frozen_graph:{folder / 'graph.pb'},labels={folder / 'map.pbtxt'}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tf = pytest.importorskip("tensorflow")

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)])
        def __call__(self, pixels):
            found = outputs(tf, pixels)
            return {
                "where": found["detection_boxes"],
                "how_sure": tf.constant([[0.2, 0.9, 0.4, 0.3]]),
                "what": tf.reduce_mean(found["detection_features"], (2, 3)),
            }

    module, folder = Module(), tmp_path_factory.mktemp("saved")
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    return f"savedmodel:{folder},boxes=where,scores=how_sure,features=what"


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    tf = pytest.importorskip("tensorflow")
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
        def __call__(self, pixels):
            return tf.matmul(tf.reduce_mean(pixels, (1, 2), name="pool"), weights)

    module = Module()
    convert = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    path = tmp_path_factory.mktemp("tflite") / "x.tflite"
    path.write_bytes(convert.convert())
    return f"tflite:{path},features=pool,colours=unit,scales=1x2"


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["pixels"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path_factory.mktemp("onnx") / "x.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return f"onnx:{path},features=pool,colours=unit,scales=1x2"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    from small_models import TOKENIZER
    from tiny import params

    from mmt_jax.models import registry
    from mmt_jax.train import checkpoint

    sizes = {f"{part}_{name}": 8 for part in ("text", "image") for name in ("width", "mlp_dim")}
    model = ClipConfig(
        **sizes,
        width=8,
        text_layers=1,
        image_layers=1,
        text_heads=2,
        image_heads=2,
        image_size=24,
        patch_size=2,
        feature_dim=12,
        num_classes=0,
        vocab_size=TOKENIZER.vocab_size,
        mask_id=6,
        pad_id=5,
    )
    config = Config(
        tag="clip", model=model, objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0)
    )
    folder = tmp_path_factory.mktemp("clip") / "workdir"
    checkpoint.write(folder, config, params(registry.build(config)), TOKENIZER)
    return f"grid:{folder}"


@pytest.fixture
def torchvision(tmp_path_factory, monkeypatch):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    import torchvision_ops

    torchvision_ops.load()
    import torch
    from torchvision.models import detection

    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setattr(detection, "fasterrcnn_tiny", tiny_faster_rcnn, raising=False)
    model, path = tiny_faster_rcnn(num_classes=4), tmp_path_factory.mktemp("tv") / "x.pth"
    state = {
        name: torch.randn_like(value) * 0.2 if value.dtype.is_floating_point else value
        for name, value in model.state_dict().items()
    }
    torch.save(state, path)
    return f"torchvision:fasterrcnn_tiny,weights={path}"


def tiny_faster_rcnn(*, weights=None, weights_backbone=None, num_classes=91):
    """torchvision's own class on a backbone of one layer."""
    import torch
    from torchvision.models.detection import FasterRCNN, anchor_utils, faster_rcnn
    from torchvision.ops import MultiScaleRoIAlign

    assert weights is weights_backbone is None
    backbone = torch.nn.Conv2d(3, 6, 3, stride=8)
    backbone.out_channels = 6
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchor_utils.AnchorGenerator(((8, 16),), ((0.5, 1.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=2, sampling_ratio=1),
        box_head=faster_rcnn.TwoMLPHead(6 * 2 * 2, 10),
        box_predictor=faster_rcnn.FastRCNNPredictor(10, num_classes),
        min_size=32,
        max_size=64,
        rpn_post_nms_top_n_test=8,
    )


DETECTORS = ["frozen", "saved", "tflite", "onnx_file", "grid", "torchvision"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_features_do_not_depend_on_other_photos_and_fit_a_region_folder(name, request):
    detector = detectors.load(request.getfixturevalue(name))
    photos = [picture(20, 30), picture(1, 1, seed=1), picture(33, 12, seed=2)]
    together = [detector.detect(photo) for photo in photos]
    for again, found in zip(map(detector.detect, reversed(photos)), reversed(together)):
        for field in ("boxes", "features", "scores", "class_ids", "class_probs"):
            ours, theirs = getattr(found, field), getattr(again, field)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, atol=1e-6)
    first, last = (together[i].features[0] for i in (0, 2))
    assert np.abs(first - last).max() > 1e-3  # other photos have other features
    photo = base.photo(together[0], image_id=1)
    boxes, features = photo.rows[BBOXES], photo.rows[FEATURES]
    assert boxes.shape == (len(features), 5)
    assert boxes[-1].tolist() == [0, 0, 1, 1, 1]
    assert features.dtype == boxes.dtype == np.float32
    if detector.num_classes:
        assert photo.rows[IDS["class"]].max() < detector.num_classes
        assert (photo.rows[PROBS["class"]].sum(axis=1) <= 1.001).all()
        assert (np.diff(photo.rows[SCORES][:-1]) <= 0).all()


@pytest.mark.slow
def test_a_frozen_graph_is_assembled_as_the_release_assembles_it(frozen):
    detector = detectors.load(frozen)
    assert detector.num_classes == 3
    assert detector.labels == {1: "cat", 2: "dog"}
    black = np.zeros((4, 5, 3), np.uint8)
    found = detector.detect(black)
    # Scores without the background's are 0.1, 0.7, 0.6, and the fourth row is none.
    np.testing.assert_allclose(found.scores, [0.7, 0.6, 0.1])
    np.testing.assert_allclose(found.boxes, BOXES[[1, 2, 0]])
    np.testing.assert_allclose(found.features, [[5.5, 11], [9.5, 19], [1.5, 3]])
    assert found.class_ids.tolist() == [[2, 1, 0], [1, 0, 2], [0, 1, 2]]
    np.testing.assert_allclose(found.class_probs[0], [0.7, 0.2, 0.1])
    photo = base.photo(found, image_id=7)
    np.testing.assert_allclose(photo.rows[FEATURES][-1], [5.5, 11])  # the mean of the three
    assert photo.rows[PROBS["class"]][-1].sum() == 0
    # As in the notebook, the lowest-scoring region makes room for the mean of the others.
    record = base.record(photo, regions.Reading(reading="release"))
    np.testing.assert_allclose(
        record["image/detection_features"], [[5.5, 11], [9.5, 19], [7.5, 15]]
    )
    np.testing.assert_allclose(record["image/bboxes"][-1], [0, 0, 1, 1, 1])


@pytest.mark.slow
def test_a_savedmodel_by_the_names_of_its_outputs(saved):
    found = detectors.load(saved).detect(np.zeros((4, 5, 3), np.uint8))
    np.testing.assert_allclose(found.scores, [0.9, 0.4, 0.3, 0.2])
    np.testing.assert_allclose(found.features[0], [5.5, 11])
    with pytest.raises(UsageError, match=r"no output detection_boxes.*returns .*where"):
        detectors.load(saved.replace("boxes=where,", ""))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "onnx_file"])
def test_classifiers_read_the_whole_photo_and_parts_of_it(name, request):
    detector = detectors.load(request.getfixturevalue(name))
    half = np.zeros((32, 32, 3), np.uint8)
    half[16:] = [255, 51, 0]
    found = detector.detect(half)
    assert len(found.boxes) == 1 + 1 + 4
    rows = {tuple(np.round(box.astype(float), 2)): i for i, box in enumerate(found.boxes)}
    np.testing.assert_allclose(found.features[-1], [0.5, 0.1, 0], atol=0.01)
    lower = rows[0.33, 0.0, 1.0, 0.67]
    np.testing.assert_allclose(found.features[lower], [0.75, 0.15, 0], atol=0.01)
    logits = np.random.default_rng(0).normal(size=(3, 5)).T @ found.features[lower]
    probs = np.exp(logits) / np.exp(logits).sum()
    assert found.class_ids[lower].tolist() == np.argsort(-probs).tolist()
    np.testing.assert_allclose(found.class_probs[lower], np.sort(probs)[::-1], atol=1e-5)
    assert found.scores[lower] == pytest.approx(probs.max(), abs=1e-5)


def test_clip_patches_are_regions_of_a_photo_seen_whole(grid):
    detector = detectors.load(grid)
    photo = np.zeros((24, 48, 3), np.uint8)
    before = detector.detect(photo)
    # 12 × 12 patches are more than 100: squares of two make 6 × 6.
    assert len(before.boxes) == 1 + 36
    np.testing.assert_allclose(before.boxes[7], [1 / 6, 1 / 6, 2 / 6, 2 / 6])
    assert before.features.shape == (37, 8)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_mobilenet_knows_real_photos():
    pytest.importorskip("tensorflow")
    model, names = (
        SHARED / n for n in ("mobilenet_v2_1.0_224_quant.tflite", "imagenet_labels.txt")
    )
    detector = detectors.load(
        f"tflite:{model},features=MobilenetV2/Logits/AvgPool,labels={names},scales=2"
    )
    assert detector.num_classes == 1001
    assert detector.labels[1] == "tench, Tinca tinca"
    paths = pictures.find(SHARED / "coco_val2017" / "images")[:2]
    found = [detector.detect(pictures.read(path)) for path in paths]
    assert [f.features.shape for f in found] == [(5, 1280)] * 2
    assert 0 <= found[0].features.min() < found[0].features.max() <= 6.01  # ReLU6
    assert (found[0].class_probs.sum(axis=1) > 0.3).all()


def test_a_photo_turned_by_exif_gives_the_regions_of_the_upright_one(tmp_path, onnx_file):
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).save(tmp_path / "up.png")
    turned = np.ascontiguousarray(np.rot90(upright, 1))
    Image.fromarray(turned).save(tmp_path / "turned.png", exif=exif)
    detector = detectors.load(onnx_file)
    one, other = (detector.detect(pictures.read(tmp_path / n)) for n in ("up.png", "turned.png"))
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_quantised_probabilities_stay_and_logits_become_some():
    kept = np.array([[0.5, 0.2, 0.0]], np.float32)
    np.testing.assert_array_equal(proposals.distribution(kept), kept)
    np.testing.assert_allclose(proposals.distribution(np.log([[2.0, 6.0]])), [[0.25, 0.75]])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvison:x", "did you mean torchvision"),
        ("onnx:none.onnx,features=x", "there is no model none.onnx"),
        ("tflite:x,size=4", "no option 'size'"),
        ("grid:{here}", "config.json"),
        pytest.param("frozen_graph:{here}/text", "no frozen graph", marks=pytest.mark.slow),
        pytest.param("savedmodel:{here}", "cannot be read as a SavedModel", marks=pytest.mark.slow),
        ("tflite:{here}/text,features=x", "cannot be read as a TensorFlow Lite model"),
        ("onnx:{here}/text,features=x", "cannot be read as an ONNX model"),
    ],
)
def test_wrong_detectors_are_refused(tmp_path, spec, message):
    if spec.startswith(("frozen_graph", "savedmodel", "tflite:{")):
        pytest.importorskip("tensorflow")
    (tmp_path / "text").write_text("nothing of the kind")
    with pytest.raises(UsageError, match=message):
        detectors.load(spec.format(here=tmp_path))


def test_wrong_options_are_refused(onnx_file):
    with pytest.raises(UsageError, match=r"no tensor 'x'.*'pool', 'flat', 'logits'"):
        detectors.load(onnx_file.replace("=pool", "=x"))
    with pytest.raises(UsageError, match="colours="):
        detectors.load(onnx_file.replace("colours=unit,", ""))
    with pytest.raises(UsageError, match="scales=0"):
        detectors.load(onnx_file.replace("1x2", "0"))


@pytest.mark.usefixtures("torchvision")
def test_weights_that_cannot_be_downloaded_are_told(monkeypatch):
    from torchvision.models import _api

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"cannot be downloaded \(no network\); give .* weights=…"):
        detectors.load("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn")


def test_a_model_that_does_not_run_is_told_in_a_sentence(tmp_path, onnx_file):
    import onnx

    model = onnx.load(onnx_file.split(":")[1].split(",")[0])
    del model.graph.node[0]  # what averages, so that the product fits no size of photo but one
    model.graph.node[0].input[0] = "pixels"
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "side"
    onnx.save(model, tmp_path / "wide.onnx")
    with pytest.raises(UsageError, match=r"the detector fails on a black picture of 8 × 8.*MatMul"):
        detectors.load(f"onnx:{tmp_path / 'wide.onnx'},features=flat,colours=unit,size=8")


def test_what_a_library_raises_on_a_photo_is_told_with_the_photo():
    class Broken:
        def detect(self, picture):
            raise ValueError("node\nReshape" + 100 * " of a graph")

    with pytest.raises(UsageError, match=r"fails on dog\.jpg \(node Reshape .{200,300} …\)$"):
        base.answer(Broken(), picture(), "dog.jpg")


def test_a_detector_of_lists_of_pictures_is_told_what_one_takes_now():
    box = base.Detections(np.ones((1, 4), np.float32), np.ones((1, 3), np.float32))
    old = base.Detector(lambda pictures: [box for _ in pictures])
    with pytest.raises(
        UsageError,
        match=r"a detector answers with a list; Detector.detect takes one picture \[H, W",
    ):
        base.answer(old, picture(), "photo.png")


def test_a_tensor_that_is_not_there_is_told_with_the_nearest(tflite):
    with pytest.raises(UsageError, match=r"no tensor 'pol'; the nearest are pool"):
        detectors.load(tflite.replace("=pool", "=pol"))


def test_labels_are_read_from_lines_too(tmp_path):
    path = tmp_path / "labels"
    path.write_text("   0  background\n   1  tench, Tinca tinca\n")
    assert base.labels(path) == {0: "background", 1: "tench, Tinca tinca"}
    path.write_text("a cat\n\na dog\n")
    assert base.labels(path) == {0: "a cat", 1: "a dog"}
    path.write_text("")
    with pytest.raises(UsageError, match="holds no label"):
        base.labels(path)
