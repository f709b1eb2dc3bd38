# SPDX-License-Identifier: Apache-2.0
"""References made of words by a tiny pipeline of Stable Diffusion's own classes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsv3d.errors import Cancelled, ImageError, ModelError
from gsv3d.text_to_image import (
    ENVIRONMENT,
    SETTING,
    ImagineSettings,
    find_text_model,
    imagine,
    load_text_pipeline,
)
from tests import tiny_text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_text_model.save(tmp_path_factory.mktemp("models") / "Modell für Wörter")


@pytest.fixture(scope="module")
def pipeline(folder: Path):
    return load_text_pipeline(find_text_model(str(folder)), "cpu")


def read_pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def test_a_reference_is_cut_out_and_says_what_made_it(pipeline) -> None:
    heard = []
    made = imagine(
        pipeline,
        ImagineSettings("a wooden barrel, größer", seed=3, steps=4),
        lambda *report: heard.append(report),
    )
    alpha = read_pixels(made.png)[..., 3]
    assert alpha.shape == (64, 64) and alpha[0].max() == 0 and alpha.max() > 250
    with Image.open(io.BytesIO(made.png)) as image:
        assert image.text["prompt"] == "a wooden barrel, größer"
        assert image.text["seed"] == "3" and image.text["steps"] == "4"
    assert heard == [
        *(("imagining", step, 4) for step in range(5)),
        ("cutting", 0, 1),
        ("cutting", 1, 1),
    ]
    assert set(made.timings) == {"imagining", "cutting", "total"}


def test_the_picture_is_the_pipelines_own(pipeline) -> None:
    """Compare the pixels that were cut out with the same call in diffusers."""
    seen = []
    shown = pipeline.image_processor.postprocess
    pipeline.image_processor.postprocess = lambda *a, **k: seen.append(shown(*a, **k)) or seen[-1]
    try:
        imagine(pipeline, ImagineSettings("a chair", seed=5, steps=2, guidance=3.0))
    finally:
        del pipeline.image_processor.postprocess
    expected = pipeline(
        "a chair" + SETTING,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    np.testing.assert_array_equal(np.asarray(seen[0][0]), np.asarray(expected))


def test_seeds_reproduce_and_differ(pipeline) -> None:
    def picture(**settings) -> np.ndarray:
        return read_pixels(imagine(pipeline, ImagineSettings("a cup", steps=2, **settings)).png)

    first = picture(seed=1)
    np.testing.assert_array_equal(first, picture(seed=1))
    assert (first != picture(seed=2)).any()


def test_cancel_ends_within_a_step_and_the_pipeline_goes_on(pipeline) -> None:
    steps = []

    def stop(phase: str, step: int, of: int) -> None:
        steps.append(step)
        if step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        imagine(pipeline, ImagineSettings("a cup", steps=50), stop)
    assert steps == [0, 1, 2]
    assert imagine(pipeline, ImagineSettings("a cup", steps=1)).png


def test_older_pipelines_report_through_their_own_callback(pipeline) -> None:
    class Older:
        """A pipeline with diffusers' interface from before ``callback_on_step_end``."""

        scheduler = pipeline.scheduler

        def __call__(self, prompt, num_inference_steps, generator, callback, callback_steps):
            return pipeline(
                prompt,
                num_inference_steps=num_inference_steps,
                generator=generator,
                callback_on_step_end=lambda p, i, t, k: callback(i, t, None) or {},
            )

    heard = []
    settings = ImagineSettings("a cup", steps=3)
    made = imagine(Older(), settings, lambda phase, step, of: heard.append((step, of)))
    assert heard[:4] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(
        read_pixels(made.png), read_pixels(imagine(pipeline, settings).png)
    )
    with pytest.raises(ModelError, match="Older takes no guidance"):
        imagine(Older(), ImagineSettings("a cup", steps=3, guidance=2.0))


def test_a_pipeline_that_wants_more_than_words_is_named() -> None:
    class Depth:
        def __call__(self, prompt, image, generator):
            raise AssertionError("not reached")

    with pytest.raises(ModelError, match="Depth cannot draw these words.*image"):
        imagine(Depth(), ImagineSettings("a cup"))


def test_a_picture_without_an_object_is_told_by_its_words(pipeline, monkeypatch) -> None:
    flat = Image.new("RGB", (64, 64), (90, 90, 90))
    monkeypatch.setattr(
        pipeline.image_processor, "postprocess", lambda *a, **k: [flat], raising=True
    )
    with pytest.raises(ImageError, match="'a cup' shows no object.*another seed"):
        imagine(pipeline, ImagineSettings("a cup", steps=1))


def test_a_picture_that_the_filter_held_back_is_named(pipeline, monkeypatch) -> None:
    black = np.zeros((1, 64, 64, 3), np.float32)
    monkeypatch.setattr(
        pipeline, "run_safety_checker", lambda image, *_: (torch.tensor(black).mT, [True])
    )
    monkeypatch.setattr(
        pipeline.image_processor,
        "postprocess",
        lambda *a, **k: [Image.fromarray(np.uint8(black[0]))],
    )
    with pytest.raises(ImageError, match="safety filter held back"):
        imagine(pipeline, ImagineSettings("a cup", steps=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": " \n"}, "must not be empty"),
        ({"prompt": "x" * 1001}, "at most 1000"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "steps": 0}, "steps"),
        ({"prompt": "x", "guidance": float("nan")}, "guidance"),
    ],
)
def test_settings_out_of_bounds_are_named(settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        ImagineSettings(**settings)


def test_without_a_model_a_sentence_says_how_to_add_one(tmp_path, monkeypatch, folder) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(ModelError, match="no text-to-image model.*hf download.*--text-model"):
        find_text_model()
    with pytest.raises(ModelError, match="nobody/nothing is not on this computer.*hf download"):
        find_text_model("nobody/nothing")
    for name in ("no: folder, no id", 300 * "a", "~nobody-of-this-name/m"):
        with pytest.raises(ModelError, match="not on this computer"):
            find_text_model(name)
    with pytest.raises(ModelError, match="no model_index.json"):
        find_text_model(str(tmp_path))
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(ModelError, match="single file"):
        find_text_model(str(tmp_path / "one.safetensors"))
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    assert find_text_model() == folder


def test_an_id_is_found_in_the_local_cache(folder, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    revision = "0" * 40
    place = tmp_path / "models--someone--drawings"
    shutil.copytree(folder, place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision)
    assert find_text_model("someone/drawings") == place / "snapshots" / revision


def copy_model(folder: Path, tmp_path: Path) -> tuple[Path, dict]:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    return copy, json.loads((copy / "model_index.json").read_text("utf-8"))


def test_pickled_weights_are_not_read(folder, tmp_path) -> None:
    copy, _ = copy_model(folder, tmp_path)
    (weights,) = (copy / "unet").glob("*.safetensors")
    weights.unlink()
    torch.save({}, copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded.*pickled weights"):
        load_text_pipeline(copy, "cpu")


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Own: pass\n"
    copy, index = copy_model(folder, tmp_path)
    (copy / "pipeline.py").write_text(code, "utf-8")
    (copy / "model_index.json").write_text(
        json.dumps({**index, "_class_name": ["pipeline", "Own"]}), "utf-8"
    )
    with pytest.raises(ModelError, match="code of its own"):
        load_text_pipeline(copy, "cpu")
    (copy / "unet" / "own.py").write_text(code, "utf-8")
    (copy / "model_index.json").write_text(json.dumps({**index, "unet": ["own", "Own"]}), "utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_text_pipeline(copy, "cpu")
    (copy / "tokenizer" / "own.py").write_text(code, "utf-8")
    settings = copy / "tokenizer" / "tokenizer_config.json"
    known = json.loads(settings.read_text("utf-8"))
    settings.write_text(
        json.dumps({**known, "auto_map": {"AutoTokenizer": ["own.Own", None]}}), "utf-8"
    )
    (copy / "model_index.json").write_text(
        json.dumps({**index, "tokenizer": ["transformers", "AutoTokenizer"]}), "utf-8"
    )
    with pytest.raises(ModelError, match="code of its own"):
        load_text_pipeline(copy, "cpu")
    assert not ran.exists()


def test_what_cannot_be_loaded_is_one_sentence(folder, tmp_path) -> None:
    copy, index = copy_model(folder, tmp_path)
    for wrong, words in (("{", "cannot be read"), ("[]", "code of its own")):
        (copy / "model_index.json").write_text(wrong, "utf-8")
        with pytest.raises(ModelError, match=words):
            load_text_pipeline(copy, "cpu")
    for kind in ("NoSuchPipeline", "GSV3DPipeline"):
        (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}), "utf-8")
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_text_pipeline(copy, "cpu")
    (copy / "model_index.json").write_text(
        json.dumps({**index, "_class_name": "DDIMPipeline"}), "utf-8"
    )
    with pytest.raises(ModelError, match="makes no pictures of words: DDIMPipeline"):
        load_text_pipeline(copy, "cpu")
    (copy / "model_index.json").write_text(json.dumps(index), "utf-8")
    weights = next((copy / "text_encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_text_pipeline(copy, "cpu")


def test_the_text_to_image_sibling_of_an_image_to_image_pipeline(folder, tmp_path) -> None:
    copy, index = copy_model(folder, tmp_path)
    kind = {**index, "_class_name": "StableDiffusionImg2ImgPipeline"}
    (copy / "model_index.json").write_text(json.dumps(kind), "utf-8")
    assert type(load_text_pipeline(copy, "cpu")).__name__ == "StableDiffusionPipeline"


def test_weights_in_the_half_precision_variant_alone(folder, tmp_path, pipeline) -> None:
    copy, _ = copy_model(folder, tmp_path)
    for file in copy.glob("*/*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    settings = ImagineSettings("a cup", steps=1)
    again = imagine(load_text_pipeline(copy, "cpu"), settings)
    np.testing.assert_array_equal(
        read_pixels(again.png), read_pixels(imagine(pipeline, settings).png)
    )


def test_loading_draws_no_bars(folder, capfd) -> None:
    load_text_pipeline(folder, "cpu")
    heard = capfd.readouterr()
    assert "%|" not in heard.err + heard.out
