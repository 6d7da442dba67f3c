"""Two photos in each published layout of features, written as their extractors write them."""

import base64
import json
import pickle

import numpy as np

# Photo 139 is 640 × 480 with two regions, photo 285 is 100 × 200 with one. Of five classes, the
# whole distribution is known where a layout has it, else the likeliest with its probability.
NAMES = ("COCO_val2014_000000000139", "COCO_val2014_000000000285")
SIZES = ((640, 480), (100, 200))
BOXES = (
    np.array([[64, 48, 320, 240], [0, 0, 640, 480]], np.float32),
    np.array([[50, 50, 100, 150]], np.float32),
)
FEATURES = (
    np.array([[1, 2, 3], [3, 4, 5]], np.float32),
    np.array([[0.5, 0.25, 8]], np.float32),
)
IDS = (np.array([4, 0]), np.array([2]))
PROBS = (
    np.array([[0, 0, 0.25, 0.125, 0.625], [0.5, 0.25, 0.125, 0.125, 0]], np.float32),
    np.array([[0, 0, 1, 0, 0]], np.float32),
)
CAPTIONS = {139: ["a room", "a table"], 285: ["a bear"]}

# What the region folder holds of them: ymin, xmin, ymax, xmax, the whole photo first.
IMAGE_IDS = [139, 285]
OFFSETS = [0, 3, 5]
ROWS = [[2, 3, 4], [1, 2, 3], [3, 4, 5], [0.5, 0.25, 8], [0.5, 0.25, 8]]
CORNERS = [[0, 0, 1, 1], [0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1], [0, 0, 1, 1], [0.25, 0.5, 0.75, 1]]


def photos():
    return zip(NAMES, SIZES, BOXES, FEATURES, IDS, PROBS, strict=True)


def b64(values):
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def geometry(size, boxes):
    """xmin, ymin, xmax, ymax, width, height in 0..1."""
    corners = boxes / np.tile(np.array(size, np.float32), 2)
    return np.concatenate([corners, corners[:, 2:] - corners[:, :2]], axis=1)


def _tsv(path, rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def bottom_up(folder, probs=False):
    rows = []
    for name, (width, height), boxes, features, _, dist in photos():
        number = int(name[-12:])
        row = [number, width, height, len(boxes), b64(boxes), b64(features)]
        rows.append(row + [b64(dist)] * probs)
    return _tsv(folder / "bottom_up.tsv", rows)


def vilbert_tsv(folder):
    return bottom_up(folder, probs=True)


def lxmert(folder):
    rows = []
    for name, (width, height), boxes, features, ids, dist in photos():
        conf = b64(dist.max(axis=1))
        attributes = [b64(ids + 7), b64(np.full(len(ids), 0.5, np.float32))]
        rows.append(
            [name, height, width, b64(ids), conf, *attributes, len(ids), b64(boxes), b64(features)]
        )
    return _tsv(folder / "val2014_obj36.tsv", rows)


def vinvl(folder):
    rows = []
    for name, size, boxes, features, _, _ in photos():
        wide = np.concatenate([features, geometry(size, boxes)], axis=1)
        rows.append([int(name[-12:]), len(boxes), b64(wide)])
    return _tsv(folder / "features.tsv", rows)


def vinvl_json(folder):
    path = vinvl(folder)
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    pairs = [(key, {"num_boxes": int(count), "features": text}) for key, count, text in rows]
    return _tsv(path, [[key, json.dumps(value)] for key, value in pairs])


def _volta_fields(photo):
    _, (width, height), boxes, features, ids, dist = photo
    return {
        "features": features,
        "boxes": boxes,
        "img_w": width,
        "img_h": height,
        "obj_id": ids,
        "obj_conf": dist.max(axis=1),
        "attr_id": ids + 7,
        "attr_conf": np.full(len(ids), 0.5, np.float32),
    }


def h5(folder):
    import h5py

    with h5py.File(folder / "val_boxes36.h5", "w") as file:
        for photo in photos():
            group = file.create_group(photo[0])
            for key, value in _volta_fields(photo).items():
                group[key] = value
    return folder / "val_boxes36.h5"


def _lmdb(folder, values):
    import lmdb

    environment = lmdb.open(str(folder / "features.lmdb"), map_size=1 << 20)
    with environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), pickle.dumps(value))
        transaction.put(b"keys", pickle.dumps([key.encode() for key in values]))
    return folder / "features.lmdb"


def vilbert_lmdb(folder):
    values = {}
    for name, (width, height), boxes, features, _, dist in photos():
        values[str(int(name[-12:]))] = {
            "image_id": str(int(name[-12:])),
            "image_w": str(width),
            "image_h": str(height),
            "num_boxes": str(len(boxes)),
            "boxes": b64(boxes),
            "features": b64(features),
            "cls_prob": b64(dist),
        }
    return _lmdb(folder, values)


def volta_lmdb(folder):
    values = {photo[0]: {**_volta_fields(photo), "img_id": photo[0]} for photo in photos()}
    return _lmdb(folder, values)


def _mmf_info(photo):
    _, (width, height), boxes, _, ids, dist = photo
    return {
        "bbox": np.concatenate([boxes, boxes[:1]]),
        "num_boxes": len(boxes),  # what follows them has a score of 0
        "objects": np.append(ids, 0),
        "image_width": width,
        "image_height": height,
        "cls_prob": np.concatenate([dist, dist[:1]]),
    }


def _padded(features):
    return np.concatenate([features, features[:1]])


def mmf_lmdb(folder):
    values = {}
    for photo in photos():
        fields = {"feature_path": photo[0], "features": _padded(photo[3])}
        values[photo[0]] = fields | _mmf_info(photo)
    return _lmdb(folder, values)


def npy(folder):
    for photo in photos():
        np.save(folder / f"{photo[0]}.npy", _padded(photo[3]))
        np.save(folder / f"{photo[0]}_info.npy", _mmf_info(photo))
    return folder


def npz(folder):
    for name, (width, height), boxes, features, _, dist in photos():
        np.savez_compressed(
            folder / f"{name}.npz",
            x=features,
            bbox=boxes,
            num_bbox=len(boxes),
            image_w=width,
            image_h=height,
            cls_prob=dist,
        )
    return folder


def uniter(folder):
    for name, size, boxes, features, _, dist in photos():
        np.savez(
            folder / f"coco_val2014_{name[-12:]}.npz",
            features=features.astype(np.float16),
            norm_bb=geometry(size, boxes).astype(np.float16),
            conf=dist.max(axis=1).astype(np.float16),
            soft_labels=dist.astype(np.float16),
        )
    return folder


def mmt(folder):
    for name, size, boxes, features, _, _ in photos():
        corners = geometry(size, boxes)[:, [1, 0, 3, 2]]
        corners = np.concatenate([np.zeros((1, 4)), corners, [[0, 0, 1, 1]]])
        area = (corners[:, 2:] - corners[:, :2]).prod(axis=1, keepdims=True)
        padding = np.array([1] + [0] * (len(boxes) + 1))
        record = {
            "image/bboxes": np.concatenate([corners, area], axis=1).astype(np.float32),
            "image/detection_features": np.concatenate(
                [np.zeros((1, 3)), features, [features.mean(axis=0)]]
            ).astype(np.float32),
            "image/padding_mask": padding,
        }
        (folder / f"{name[-12:]}.pkl").write_bytes(pickle.dumps(record))
    return folder


ANNOTATED = (
    {
        "image_id": 139,
        "width": 640,
        "height": 480,
        "captions": ["a room", "a table"],
        "boxes": [
            {"xyxy": [64, 48, 320, 240], "category": "table"},
            {"xyxy": [0, 0, 640, 480], "category": "bed"},
            {"xyxy": [0, 0, 640, 240], "category": "table"},
        ],
    },
    {"image_id": 285, "width": 100, "height": 200, "captions": ["a bear"], "boxes": []},
)


def boxes_jsonl(folder):
    path = folder / "annotations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ANNOTATED))
    return path


def coco(folder):
    """Categories by id: bed 3, table 7."""
    annotations = [
        {"id": 1, "image_id": 139, "category_id": 7, "bbox": [64, 48, 256, 192], "iscrowd": 0},
        {"id": 2, "image_id": 139, "category_id": 3, "bbox": [0, 0, 640, 480], "iscrowd": 0},
        {"id": 3, "image_id": 285, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"id": 4, "image_id": 139, "category_id": 7, "bbox": [0, 0, 640.5, 240], "iscrowd": 0},
    ]
    document = {
        "info": {"year": 2017, "numbers": [1, 2]},
        "licenses": [{"id": 1}],
        "images": [
            {"id": 139, "file_name": "139.jpg", "width": 640, "height": 480},
            {"id": 285, "file_name": "285.jpg", "width": 100, "height": 200},
        ],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "table"}, {"id": 3, "name": "bed"}],
    }
    path = folder / "instances_val2017.json"
    path.write_text(json.dumps(document))
    return path


# Name of the format, what writes it, and what it says of classes: nothing, the likeliest, all.
DETECTED = {
    "bottom-up-tsv": ("bottom-up-tsv", bottom_up, None),
    "bottom-up-tsv of ViLBERT": ("bottom-up-tsv", vilbert_tsv, "all"),
    "lxmert-tsv": ("lxmert-tsv", lxmert, "likeliest"),
    "lxmert-h5": ("lxmert-h5", h5, "likeliest"),
    "volta-h5": ("volta-h5", h5, "likeliest"),
    "vilbert-lmdb": ("vilbert-lmdb", vilbert_lmdb, "all"),
    "vilbert-lmdb of VOLTA": ("vilbert-lmdb", volta_lmdb, "likeliest"),
    "mmf-lmdb": ("mmf-lmdb", mmf_lmdb, "all"),
    "uniter-npz": ("uniter-npz", uniter, "all"),
    "vinvl-tsv": ("vinvl-tsv", vinvl, None),
    "vinvl-tsv in JSON": ("vinvl-tsv", vinvl_json, None),
    "npy": ("npy", npy, "all"),
    "npz": ("npz", npz, "all"),
    "mmt-pickle": ("mmt-pickle", mmt, None),
}
ANNOTATED_FORMATS = {"boxes-jsonl": boxes_jsonl, "coco-instances": coco}


CAPTION_FILES = {
    "lines.jsonl": '{"image_id": 139, "captions": ["a room"]}\n'
    '{"image_id": "val2014/COCO_val2014_000000000285.jpg", "captions": ["a bear"]}\n',
    "captions_val2014.json": json.dumps(
        {
            "images": [{"id": 139, "file_name": "x.jpg"}],
            "annotations": [
                {"id": 1, "image_id": 285, "caption": "a bear"},
                {"id": 2, "image_id": 139, "caption": "a room"},
            ],
        }
    ),
    "dataset_coco.json": json.dumps(
        {
            "images": [
                {"cocoid": 139, "split": "train", "sentences": [{"raw": "a room"}]},
                {"cocoid": 285, "split": "restval", "sentences": [{"raw": "a bear"}]},
                {"cocoid": 5, "split": "test", "sentences": [{"raw": "a test"}]},
            ],
            "dataset": "coco",
        }
    ),
    "dataset_flickr30k.json": json.dumps(
        {
            "images": [
                {"filename": "139.jpg", "split": "train", "sentences": [{"raw": "a room"}]},
                {"filename": "285.jpg", "split": "train", "sentences": [{"raw": "a bear"}]},
            ]
        }
    ),
    "results.token": "139.jpg#0\ta room\n285.jpg#0\ta bear\n",
}


def captions(folder):
    path = folder / "captions.jsonl"
    rows = [{"image_id": key, "captions": value} for key, value in CAPTIONS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
