"""The README.md of an exported network."""

SAVED_MODEL = """\
```python
import tensorflow as tf

signatures = tf.saved_model.load("{name}").signatures
with open("cat.jpg", "rb") as file:
    answer = signatures["serving_default"](images=tf.constant([file.read()]))
```

| Signature | `images` | Gives |
|---|---|---|
| `serving_default` | string [n], the bytes of JPEG and PNG files | {gives} |
| `pixels` | uint8 [n, height, width, 3], RGB | the same |
| `tensors` | float32 [n, {size}, {size}, 3], scaled | the same |
| `features` | string [n], the bytes of JPEG and PNG files | `features`, float32 [n, {channels}] |

Pictures of any size are cropped, resized and scaled inside, turned as their EXIF says, and white where they
are transparent. A request with a picture that is none, or that has more than {max_pixels:,} pixels, fails as
a whole and says which it is (of one that is cut off or damaged TensorFlow says so, and not which); the next
one is answered.

On CPUs, in a process that does nothing but serve, set `TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1` before TensorFlow
is imported, or in the environment of TensorFlow Serving: the weights are then put in order once, not at each
request, for as much more memory as they take.

TensorFlow Serving takes this folder as a version of a model, as `models/{network}/1`. Over REST a picture is
`{{"b64": "..."}}`:

```sh
(printf '{{"instances": [{{"b64": "'; base64 -w0 cat.jpg; printf '"}}]}}') |
    curl -d @- localhost:8501/v1/models/{network}:predict
```
"""
OPENVINO = """\
```python
import openvino

network = openvino.Core().compile_model("{name}/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
answer = network([pixels])
```
"""
ONNX = """\
```python
import onnxruntime

session = onnxruntime.InferenceSession("{name}/model.onnx")
{outputs} = session.run(["{first}", "features"], {{"pixels": pixels}})
```
"""
LITERT = """\
```python
from ai_edge_litert.interpreter import Interpreter

answer = Interpreter("{name}/model.tflite").get_signature_runner()(pixels=pixels)
```
"""
FROM_PIXELS = """
`pixels` are float32 [n, {size}, {size}, 3], RGB in [0, 255], not scaled: {preprocessing}. The answers are
`{first}`, float32 [n, {count}], and `features`, float32 [n, {channels}]. Nothing is checked.
A batch to begin with is `pixels = numpy.load("{name}/assets.extra/golden.npz")["pixels"]`.
"""
TEMPLATES = {
    "saved_model": SAVED_MODEL,
    "openvino": OPENVINO + FROM_PIXELS,
    "onnx": ONNX + FROM_PIXELS,
    "litert": LITERT + FROM_PIXELS,
}


def text(name, card, content, golden):
    """README.md of the folder `name`.

    Args:
        name: of the folder.
        card: the `weights.Card`.
        content: of export.json.
        golden: the golden arrays.
    """
    first = "embeddings" if card.labels is None else "probabilities"
    count, channels = golden[first].shape[-1], golden["features"].shape[-1]
    gives = f"`{first}`, float32 [n, {count}]"
    if card.labels is not None:
        gives += (
            "; of the likeliest `top_probabilities`, `top_classes` (their columns) and `top_names`, [n, k]"
        )
    how = card.preprocessing
    body = TEMPLATES[content["format"]].format(
        name=name,
        network=card.network,
        size=card.size,
        first=first,
        outputs=f"{first}, features",
        gives=gives,
        count=count,
        channels=channels,
        max_pixels=content.get("max_pixels"),
        hint={"float32": "f32", "bfloat16": "bf16"}[content["dtype"]],
        preprocessing=f"a {how.crop} crop of {how.central_fraction:g}, resized ({how.resize})",
    )
    return f"""\
# {card.network}, {card.size} pixels, {content["dtype"]}

{body}
Beside this file, `card.json` has the size and the preprocessing (crop: {how.crop} {how.central_fraction:g},
resize: {how.resize}, scale: {how.scale}), `class_names.txt` the classes in order, where they have names,
`export.json` what was decided when this was exported, and `config.json` the training run, where it was one.

`golden.npz` holds a picture, as a PNG file (`encoded`), as it is (`picture`), resized (`pixels`) and scaled
(`tensors`), and what the trained network says of it. A fresh process that loaded this export differed from
that by at most {max(content["differences"].values()):.1e}.
"""
