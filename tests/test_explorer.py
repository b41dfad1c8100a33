"""The explorer in a real browser, against embedded servers of tiny untrained decoders."""

import contextlib
import json
import shutil
import time
import urllib.parse

import numpy as np
import pytest
import tensorflow as tf
from helpers import REPOSITORY

from vae_tf import VAE, VQVAE, CodePrior, Condition, ConditionalVAE, export_decoder

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
server = pytest.importorskip("vae_tf.serving.server", reason="the extra 'serve' is not installed")

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if BROWSER is None:
    pytest.skip("there is no Chromium or Chrome", allow_module_level=True)

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
COUNT_FETCHES = """
  const real = window.fetch; let now = 0; window.most = 0; window.fetches = 0;
  window.fetch = async (...given) => {
    window.fetches++; now++; window.most = Math.max(window.most, now);
    await new Promise((done) => setTimeout(done, 50));
    try { return await real(...given); } finally { now--; }
  };
"""
MANY_MOVES = """async (plane) => {
  const move = (clientX) => plane.dispatchEvent(new PointerEvent("pointermove", { clientX }));
  const frame = () => new Promise(requestAnimationFrame);
  for (let x = 1000; x >= 400; x -= 10) move(x);
  await frame(); await frame();
  move(0);
}"""


class Decoder:
    """A decoder of contrasts, its export and its server."""

    def __init__(self, folder, latent_dim, shape):
        self.model = VAE(latent_dim=latent_dim, hidden_units=(8,), seed=0)
        self.model.build((None, *shape))
        random = np.random.default_rng(0)
        for weight in self.model.decoder.weights:
            weight.assign(random.normal(size=weight.shape))
        self.path = export_decoder(self.model, folder)
        self.signatures = tf.saved_model.load(str(self.path)).signatures

    def decode(self, *z):
        return levels(self.model.decode_images(np.array([z], "float32"))[0])

    def generate(self, seed):
        out = self.signatures["generate"](seed=tf.constant([seed], tf.int64))
        return levels(out["images"][0]), out["z"][0].numpy()


class Labelled(tf.Module):
    """Vectors of four numbers that tell z and the class."""

    @tf.function(input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None,), tf.int64)])
    def decode(self, z, label):
        return {"probabilities": tf.concat([z, tf.cast(label[:, None], tf.float32) / 10], 1)}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    yield from _served(Decoder(tmp_path_factory.mktemp("plane"), 2, (8, 8, 1)))


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """Five dimensions, images of three channels that are no squares."""
    yield from _served(Decoder(tmp_path_factory.mktemp("colour"), 5, (6, 4, 3)))


def _served(decoder):
    with serve(decoder.path.parent) as started:
        decoder.address = f"http://{started.rest_address}"
        yield decoder


def serve(path, port=0, cors=False):
    return server.EmbeddedServer(path, rest_port=port, grpc_port=0, cors=cors)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a page. In the end: what it asked, whom, and what it complained of."""
    with contextlib.ExitStack() as stack:

        def visit(address, endpoint="", fails=False, script="", wait=True, **options):
            options = {"viewport": WIDE, "reduced_motion": "reduce"} | options
            context = stack.enter_context(browser.new_context(**options))
            page = context.new_page()
            page.set_default_timeout(5000)
            page.add_init_script(script)
            page.complaints, page.requests = [], []
            page.on("console", lambda message: page.complaints.append(message.text))
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("request", lambda request: page.requests.append(request))
            stack.callback(_check, page, urllib.parse.urlsplit(address).netloc, fails)
            page.goto(address + (endpoint and f"/?endpoint={urllib.parse.quote(endpoint)}"))
            if wait:
                settle(page)
            return page

        yield visit


def _check(page, host, fails):
    assert {urllib.parse.urlsplit(request.url).netloc for request in page.requests} <= {host, ""}
    rows = [len(next(iter(body["inputs"].values()))) for body in asked(page)]
    assert max(rows, default=0) <= 64
    assert [text for text in page.complaints if not (fails and "Failed to load" in text)] == []


def settle(page, samples=64, steps=24):
    playwright.expect(page.locator("#drawn")).to_contain_text("seed")
    playwright.expect(page.locator("#grid button")).to_have_count(samples)
    playwright.expect(page.locator("#film canvas")).to_have_count(steps)
    playwright.expect(page.locator("#picture[width]")).to_be_visible()


def asked(page):
    return [json.loads(request.post_data) for request in page.requests if request.post_data]


def levels(image):
    """An image as a canvas holds it."""
    image = np.clip(np.asarray(image, "float64"), 0, 1)
    return np.broadcast_to(np.rint(255 * image), (*image.shape[:-1], 3))


def pixels(page, canvas, box=None):
    """Red, green and blue of a canvas or a box in it, black where it is not opaque."""
    width, height, data = page.locator(canvas).evaluate(
        """(canvas, box) => {
          const [x, y, width, height] = box ?? [0, 0, canvas.width, canvas.height];
          const copy = new OffscreenCanvas(width, height).getContext("2d");
          copy.drawImage(canvas, -x, -y);
          return [width, height, [...copy.getImageData(0, 0, width, height).data]];
        }""",
        box,
    )
    rgba = np.reshape(data, (height, width, 4))
    return rgba[..., :3] * (rgba[..., 3:] == 255)


def assert_shows(page, canvas, expected, box=None):
    """Within five seconds; a level may be rounded the other way."""
    end = time.monotonic() + 5
    while True:
        seen = pixels(page, canvas, box)
        if seen.shape == expected.shape and np.abs(seen - expected).max() <= 1:
            return
        if time.monotonic() > end:
            break
        page.wait_for_timeout(20)
    np.testing.assert_allclose(seen, expected, atol=1)


def differ(one, other):
    return np.abs(one - other).max() > 20


def position(page):
    """z, as the plane tells it to those who do not see it."""
    text = page.locator("#plane").get_attribute("aria-valuetext")
    return [float(part.split()[1]) for part in text.replace("−", "-").split(",")]


def in_plane(page, x, y):
    """The point of the page where the plane has z = (x, y)."""
    box = page.locator("#plane").bounding_box()
    return box["x"] + box["width"] * (x + 3) / 6, box["y"] + box["height"] * (3 - y) / 6


def test_the_header(visit, plane):
    page = visit(plane.address)
    assert page.url.endswith("/?endpoint=/v1/models/vae")
    facts = [page.inner_text(f"#{name}") for name in ("name", "version", "latent-dim", "size")]
    assert facts == ["vae", "1", "2", "8 × 8 × 1"]
    assert 0 < float(page.inner_text("#latency").removesuffix(" ms")) < 30000


def test_the_pointer_moves_over_the_plane(visit, plane):
    page = visit(plane.address)
    assert_shows(page, "#picture", plane.decode(0, 0))
    assert differ(plane.decode(0, 0), plane.decode(1.5, -2))
    page.mouse.move(*in_plane(page, 1.5, -2))
    np.testing.assert_allclose(position(page), [1.5, -2], atol=0.02)  # a pixel is 0.012
    assert_shows(page, "#picture", plane.decode(*position(page)))
    page.mouse.down()
    page.mouse.move(1275, 5)  # held, it goes on outside
    assert position(page) == [3, 3]
    assert_shows(page, "#picture", plane.decode(3, 3))


def test_a_finger_moves_over_the_plane(visit, plane):
    page = visit(plane.address, viewport=PHONE, has_touch=True)
    page.locator("#plane").scroll_into_view_if_needed()
    page.touchscreen.tap(*in_plane(page, -1, 0.5))
    np.testing.assert_allclose(position(page), [-1, 0.5], atol=0.03)
    assert_shows(page, "#picture", plane.decode(*position(page)))
    assert page.locator("#plane").evaluate("e => getComputedStyle(e).touchAction") == "none"


def test_arrow_keys_move_over_the_plane(visit, plane):
    page = visit(plane.address)
    page.focus("#plane")
    for key in ("ArrowRight", "Shift+ArrowUp", "Shift+ArrowUp", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert position(page) == [-0.4, 0.9]
    assert_shows(page, "#picture", plane.decode(-0.4, 0.9))
    for _ in range(7):
        page.keyboard.press("Shift+ArrowLeft")
    assert position(page) == [-3, 0.9]


def test_behind_the_plane_is_what_it_decodes_there(visit, plane):
    page = visit(plane.address)
    for column, row in ((15, 15), (0, 0), (15, 0), (4, 13)):
        z = (column + 0.5) * 6 / 16 - 3, 3 - (row + 0.5) * 6 / 16
        assert_shows(page, "#map", plane.decode(*z), box=[8 * column, 8 * row, 8, 8])
    assert page.locator("#map").evaluate("map => [map.width, map.height]") == [128, 128]


def test_one_request_is_in_flight_and_the_newest_position_wins(visit, plane):
    page = visit(plane.address, script=COUNT_FETCHES)
    page.wait_for_load_state("networkidle")
    page.evaluate("window.most = window.fetches = 0")
    page.mouse.move(*in_plane(page, 2, 1), steps=40)
    assert_shows(page, "#picture", plane.decode(*position(page)))
    np.testing.assert_allclose(position(page), [2, 1], atol=0.02)
    assert page.evaluate("window.most") == 1
    page.evaluate("window.fetches = 0")
    page.locator("#plane").evaluate(MANY_MOVES)
    assert_shows(page, "#picture", plane.decode(*position(page)))
    assert position(page) == [-3, 3]
    assert (
        page.evaluate("window.fetches") == 2
    )  # one for many positions in one frame, one while it was in flight


def test_sliders(visit, colour):
    page = visit(colour.address)
    sliders = page.locator("#sliders input")
    playwright.expect(sliders).to_have_count(5)
    assert differ(colour.decode(0, 0, 0, 0, 0), colour.decode(0, 0, 2.5, 0, 0))
    sliders.nth(2).fill("2.5")
    assert_shows(page, "#picture", colour.decode(0, 0, 2.5, 0, 0))
    sliders.nth(0).press("ArrowLeft")
    assert_shows(page, "#picture", colour.decode(-0.05, 0, 2.5, 0, 0))
    assert page.locator("#sliders .value").all_inner_texts() == [
        "−0.05",
        "0.00",
        "2.50",
        "0.00",
        "0.00",
    ]
    page.click("text=Zero")
    assert_shows(page, "#picture", colour.decode(0, 0, 0, 0, 0))


def test_from_a_seed(visit, colour):
    page = visit(colour.address)
    page.fill("#jump-seed", "11")
    page.click("text=From seed")
    image, z = colour.generate(11)
    assert_shows(page, "#picture", image)
    np.testing.assert_allclose(image, levels(colour.model.generate(1, seed=11)[0]), atol=1)
    values = [text.replace("−", "-") for text in page.locator("#sliders .value").all_inner_texts()]
    np.testing.assert_allclose(np.array(values, float), z, atol=0.0051)


@pytest.mark.parametrize("first", [5, 2**53 - 256])
def test_samples_are_those_of_their_seeds(visit, colour, first):
    page = visit(colour.address)
    before = len(asked(page))
    page.fill("#first", str(first))
    page.fill("#number", "70")
    page.press("#number", "Enter")
    settle(page, samples=70)
    assert [body["inputs"]["seed"][0] for body in asked(page)[before:]] == [first, first + 64]
    cells = page.locator("#grid button")
    for i in (0, 1, 63, 64, 69):
        assert cells.nth(i).get_attribute("aria-label") == f"seed {first + i}"
        assert_shows(page, f"#grid button:nth-child({i + 1}) canvas", colour.generate(first + i)[0])
    assert differ(colour.generate(first)[0], colour.generate(first + 1)[0])
    cells.nth(69).click()
    assert_shows(page, "#picture", colour.generate(first + 69)[0])


def test_seeds_that_are_not_exact_are_not_asked_for(visit, colour):
    page = visit(colour.address)
    before = len(asked(page))
    for wrong in (str(2**53), "-1", "1.5", ""):
        page.fill("#first", wrong)
        page.get_by_role("button", name="Draw", exact=True).click()
        assert page.locator("#first").evaluate("box => !box.validity.valid")
    assert len(asked(page)) == before


def test_a_walk_goes_from_one_seed_to_the_other(visit, colour):
    page = visit(colour.address)
    for box, value in (("#from", 3), ("#to", 8), ("#steps", 5)):
        page.fill(box, str(value))
    page.press("#steps", "Enter")
    settle(page, steps=5)
    (first, a), (last, b) = colour.generate(3), colour.generate(8)
    assert differ(first, last)
    assert_shows(page, "#film canvas:first-child", first)
    assert_shows(page, "#film canvas:nth-child(2)", colour.decode(*(0.75 * a + 0.25 * b)))
    assert_shows(page, "#film canvas:last-child", last)
    assert_shows(page, "#moving", first)
    page.press("#step", "End")
    assert_shows(page, "#moving", last)
    assert page.inner_text("#step-value") == "5 of 5"


def test_a_walk_plays_and_pauses(visit, plane):
    page = visit(plane.address)
    page.wait_for_timeout(300)
    assert page.inner_text("#step-value") == "1 of 24"  # motion is reduced: it waits to be asked
    page.click("#play")
    playwright.expect(page.locator("#step-value")).not_to_have_text("1 of 24")
    page.click("text=Pause")
    stopped = page.inner_text("#step-value")
    page.wait_for_timeout(300)
    assert page.inner_text("#step-value") == stopped
    moving = visit(plane.address, reduced_motion="no-preference")
    playwright.expect(moving.locator("#play")).to_have_text("Pause")
    playwright.expect(moving.locator("#step-value")).not_to_have_text("1 of 24")


def test_the_class_goes_with_every_row(visit, tmp_path):
    module = Labelled()
    tf.saved_model.save(module, str(tmp_path / "1"), {"decode": module.decode})
    with serve(tmp_path) as started:
        page = visit(f"http://{started.rest_address}", wait=False)
        page.locator("#sliders input").nth(1).fill("0.4")
        assert_shows(page, "#picture", levels(np.array([[[0], [0.4], [0], [0]]])))
        page.fill("#label", "6")
        page.press("#label", "Tab")
        assert_shows(page, "#picture", levels(np.array([[[0], [0.4], [0], [0.6]]])))
        assert page.locator("#samples").is_hidden()  # there is no generate


def test_a_class_that_there_is_not_cannot_be_asked_for(visit, tmp_path):
    """The page learns the last class from the model's own words."""
    model = ConditionalVAE(2, (8,), num_classes=4, seed=0)
    model.build((None, 4, 4, 1))
    export_decoder(model, tmp_path / "m")
    with serve(tmp_path / "m") as started:
        page = visit(f"http://{started.rest_address}", fails=True)
        assert page.inner_text("#classes") == "0 to 3"
        assert page.locator("[role=alert]").is_hidden()
        settle(page)
        before = len(asked(page))
        page.fill("#label", "4")
        page.press("#label", "Tab")
        assert page.locator("#label").evaluate("box => box.validity.rangeOverflow")
        assert len(asked(page)) == before
        page.fill("#label", "3")
        page.press("#label", "Tab")
        assert_shows(page, "#picture", levels(model.decode_images([[0, 0]], label=3)[0]))
        settle(page)
        drawn = levels(model.generate(1, seed=0, label=3)[0])
        assert_shows(page, "#grid button:first-child canvas", drawn)


def test_a_condition_that_the_page_cannot_give_is_named(visit, tmp_path):
    condition = Condition("pose", (2,), "float32")
    model = ConditionalVAE(2, (8,), condition=condition, seed=0)
    model.build((None, 4, 4, 1))
    export_decoder(model, tmp_path / "m")
    with serve(tmp_path / "m") as started:
        page = visit(f"http://{started.rest_address}", wait=False)
        words = page.get_by_role("alert")
        playwright.expect(words).to_contain_text("the model also takes pose (batch, 2)")
        playwright.expect(words).to_contain_text('model="vae").generate(8, pose=...)')


@pytest.mark.slow
@pytest.mark.parametrize("has_prior", [True, False])
def test_maps_of_codes_are_drawn_from_seeds(has_prior, visit, tmp_path):
    model = VQVAE(8, 4, filters=(8,), seed=0)
    model.build((None, 8, 8, 1))
    if has_prior:
        prior = CodePrior(model, filters=8, num_layers=2, seed=0)
        prior.build((None, 8, 8, 1))
        model.adopt(prior.network)
    with serve(export_decoder(model, tmp_path / "model").parent) as started:
        page = visit(f"http://{started.rest_address}", wait=False)
        if not has_prior:
            words = playwright.expect(page.get_by_role("alert"))
            words.to_contain_text(
                "maps, (4, 4, 4), which this page draws from seeds; and it has no"
            )
            return
        playwright.expect(page.locator("#grid button")).to_have_count(64)
        playwright.expect(page.locator("#drawn")).to_contain_text("seeds 0 to 63")
        assert page.inner_text("#latent-dim") == "4 × 4 × 4"
        assert "a map of 4 × 4 vectors of 4 numbers" in page.inner_text("#of-maps")
        for hidden in ("#sliders", "#plane-box", "#walk", "#zero"):
            assert page.locator(hidden).is_hidden()
        assert_shows(page, "#picture", levels(model.generate(1, seed=0)[0]))
        page.locator("#grid button").nth(5).click()
        assert_shows(page, "#picture", levels(model.generate(1, seed=5)[0]))
        page.fill("#jump-seed", "9")
        page.press("#jump-seed", "Enter")
        assert_shows(page, "#picture", levels(model.generate(1, seed=9)[0]))


def test_the_server_s_words_are_shown(visit, plane):
    page = visit(plane.address, "/v1/models/<img src=x>", fails=True, wait=False)
    words = page.get_by_role("alert")
    playwright.expect(words).to_contain_text("Servable not found for request: Latest(<img src=x>)")
    assert page.locator("img").count() == 0
    page.fill("#endpoint", f"{plane.address}/v1/models/vae/")
    page.press("#endpoint", "Enter")
    settle(page)
    playwright.expect(words).to_be_hidden()
    assert page.locator("#connect").is_hidden()


def test_what_is_no_address(visit, plane):
    page = visit(plane.address, "javascript:alert(1)", wait=False)
    playwright.expect(page.get_by_role("alert")).to_contain_text("javascript:alert(1)")
    assert len(page.requests) == 1


def test_a_server_that_stops_and_comes_back(visit, plane):
    with serve(plane.path.parent) as started:
        page = visit(f"http://{started.rest_address}", fails=True)
        port = int(started.rest_address.split(":")[1])
    page.focus("#plane")
    page.keyboard.press("ArrowUp")
    words = page.get_by_role("alert")
    playwright.expect(words).to_contain_text(
        f"No answer from http://127.0.0.1:{port}/v1/models/vae"
    )
    playwright.expect(words).to_contain_text("--rest_api_enable_cors_support=true")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.wait_for_timeout(100)
    with serve(plane.path.parent, port):
        page.keyboard.press("Tab")
        page.focus("#plane")
        page.keyboard.press("ArrowUp")
        assert_shows(page, "#picture", plane.decode(0, 0.2))
        settle(page)  # the samples that were asked for in vain come too
        playwright.expect(words).to_be_hidden()


def test_what_a_stopping_server_refused_is_asked_again(visit, plane):
    page = visit(plane.address, fails=True)
    answer = {"status": 503, "json": {"error": "The server is stopping; ask again."}}
    page.route("**:predict", lambda route: route.fulfill(**answer))
    page.locator("#first").fill("5")
    page.get_by_role("button", name="Draw", exact=True).click()
    words = page.get_by_role("alert")
    playwright.expect(words).to_contain_text("The server is stopping")
    page.unroute("**:predict")
    page.focus("#plane")
    page.keyboard.press("ArrowUp")
    assert_shows(page, "#picture", plane.decode(0, 0.1))
    playwright.expect(words).to_be_hidden()
    playwright.expect(page.locator("#drawn")).to_contain_text("seeds 5 to 68")


def test_from_elsewhere_it_asks_for_an_address(visit, plane):
    with serve(plane.path.parent, cors=True) as started:
        file = (REPOSITORY / "vae_tf" / "serving" / "explorer.html").as_uri()
        page = visit(file, wait=False)
        page.get_by_label("Address of a served decoder").fill(
            f"http://{started.rest_address}/v1/models/vae"
        )
        page.click("text=Open")
        settle(page)
        assert_shows(page, "#picture", plane.decode(0, 0))
        assert {request.method for request in page.requests} == {"GET", "POST"}
        page.requests.clear()  # they went to the server that was named


@pytest.mark.parametrize(("scheme", "decoder"), [("light", "plane"), ("dark", "colour")])
def test_a_phone_does_not_scroll_sideways(visit, request, scheme, decoder):
    address = request.getfixturevalue(decoder).address
    page = visit(address, viewport=PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (bright > 600) == (scheme == "light")


def test_the_keyboard_reaches_everything(visit, plane):
    page = visit(plane.address)
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        focused = "e => [e.id || e.textContent || e.ariaLabel, getComputedStyle(e).outlineStyle]"
        name, outline = page.locator(":focus").evaluate(focused)
        assert outline == "solid"
        reached.append(name)
    assert reached == [
        *("zero", "jump-seed", "From seed", "plane", "first", "number", "Draw", "seed 0"),
        *("from", "to", "steps", "Walk", "play", "step"),
    ]
